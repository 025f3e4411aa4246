// SPDX-License-Identifier: Apache-2.0
/// @file
/// Writer: writes a Tree as a metadata image, always with the same bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/core/source.hpp>
#include <erofs_oci/erofs/format.hpp>
#include <erofs_oci/erofs/tree.hpp>
#include <erofs_oci/erofs/write_options.hpp>
#include <erofs_oci/erofs/write_plan.hpp>

namespace erofs_oci::erofs {

/// Writes the metadata image of a tree: directories, inodes, links, xattrs, and where on which
/// device the data of files are. The data stay where they are.
///
/// The same tree, devices and options give the same bytes, on any machine and compiler: no clock,
/// no random numbers, no order of insertion. The epoch is the most common mtime; the uuid is made
/// from the image. All images have blocks of 512 bytes and a superblock checksum.
///
/// @par Memory
/// About 45 bytes a node beside the tree, and the largest directory. Nothing of the image is kept.
///
/// @par Thread safety
/// All const members, from any thread, while the tree does not change.
class Writer {
 public:
  /// Checks the tree and plans the image; writes nothing.
  /// @param tree     outlives the writer, unchanged
  /// @param devices  what the extents of files name: 1 is the first
  /// @error{Errc::invalid_argument, a name\, link target\, xattr\, extent\, mode or time that
  /// cannot be stored\, a directory with two parents; the text gives the path}
  /// @error{Errc::unsupported, image and data reach 2 TiB\, data that do not start on a block of
  /// 512 bytes\, too many chunks}
  [[nodiscard]] static Result<Writer> make(Tree const& tree, std::vector<Device> devices,
                                           WriteOptions options = {});

  /// Length of the image in bytes: a multiple of the alignment.
  [[nodiscard]] std::uint64_t size() const noexcept { return plan_.image_blocks * block_size; }

  /// Length of image and devices one after another, in bytes. Device i starts at flat_offset(i).
  [[nodiscard]] std::uint64_t flat_size() const noexcept {
    return plan_.starts.back() * block_size;
  }

  /// Where device `i`, counted from 0, starts in the flat space, in bytes.
  [[nodiscard]] std::uint64_t flat_offset(std::size_t i) const noexcept {
    return plan_.starts[i] * block_size;
  }

  /// Inodes in the image.
  [[nodiscard]] std::uint64_t inodes() const noexcept { return plan_.order.size(); }

  /// The first 1000 xattrs left out because their namespace cannot be stored.
  [[nodiscard]] std::vector<DroppedXattr> const& dropped_xattrs() const noexcept {
    return plan_.dropped;
  }

  /// How many were left out.
  [[nodiscard]] std::uint64_t dropped_xattr_count() const noexcept { return plan_.dropped_count; }

  /// Passes the image to the sink in order, in pieces of 64 KiB.
  /// @error{Errc::stopping, the sink ended the stream}
  [[nodiscard]] Result<void> write(ByteSink sink) const;

  /// The whole image.
  [[nodiscard]] Bytes to_bytes() const;

 private:
  Writer(Tree const& tree, std::vector<Device> devices, WriteOptions options,
         detail::Plan plan) noexcept
      : tree_(&tree),
        devices_(std::move(devices)),
        options_(std::move(options)),
        plan_(std::move(plan)) {}

  // One pass over the image for the uuid; its beginning is kept, for the checksum.
  void make_head();

  // Yields whether the sink has taken all. What it refers to outlives the call: no temporary.
  [[nodiscard]] bool emit(ByteSink sink) const;

  Tree const* tree_;
  std::vector<Device> devices_;
  WriteOptions options_;
  detail::Plan plan_;
  Bytes head_;  // the image's first bytes, with uuid and checksum
};

}  // namespace erofs_oci::erofs

#ifndef EROFS_OCI_COMPILED
#include <erofs_oci/erofs/detail/writer_body.hpp>
#endif
