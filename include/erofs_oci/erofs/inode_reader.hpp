// SPDX-License-Identifier: Apache-2.0
/// @file
/// read_inode(): reads one inode of an image, and checks that all that it refers to lies in the
/// image.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include <erofs_oci/core/arithmetic.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/core/source.hpp>
#include <erofs_oci/erofs/directory.hpp>
#include <erofs_oci/erofs/format.hpp>
#include <erofs_oci/erofs/frame.hpp>
#include <erofs_oci/erofs/inode.hpp>
#include <erofs_oci/erofs/tree.hpp>

namespace erofs_oci::erofs {

namespace detail {

template <RandomAccessSource S>
[[nodiscard]] Result<void> check_record(Frame<S> const& frame, Inode const& inode) {
  auto const& r = inode.record;
  if (r.reserved_bits() || r.layout_bits() > 4) {
    return fail(Errc::unsupported, "inode format " + std::to_string(r.format));
  }
  if (file_type(r.mode) == FileType::unknown) {
    return fail(Errc::corrupt, "mode " + std::to_string(r.mode) + " has no file type");
  }
  if (r.size >> 63 != 0) return fail(Errc::corrupt, "size is negative");
  if (r.xattr_count == 1) return fail(Errc::corrupt, "xattr area without entries");
  if (!frame.contains(inode.xattr_position(), r.xattr_size())) {
    return fail(Errc::corrupt, "xattr area leaves the image");
  }
  return {};
}

/// Contiguous content: directories, links, and the inline tail of any.
template <RandomAccessSource S>
[[nodiscard]] Result<void> check_content(Frame<S> const& frame, Inode const& inode) {
  auto const metadata = inode.is_directory() || inode.is_symlink();
  if (metadata && inode.layout() != DataLayout::plain && inode.layout() != DataLayout::tail) {
    return fail(Errc::unsupported, "a directory or link of this layout");
  }
  if (inode.is_symlink() && inode.size() > max_symlink_length) {
    return fail(Errc::corrupt, "a link of " + std::to_string(inode.size()) + " bytes");
  }
  auto const tail = inode.tail_size(frame.block());
  if (tail > 0 && (inode.tail_position() % frame.block() + tail > frame.block() ||
                   !frame.contains(inode.tail_position(), tail))) {
    return fail(Errc::corrupt, "inline data leaves its block");
  }
  if (!metadata || inode.size() == tail) return {};
  auto const start = checked_mul(inode.first_block(), frame.block());
  if (!start || !frame.contains(*start, inode.size() - tail)) {
    return fail(Errc::corrupt,
                "content at block " + std::to_string(inode.first_block()) + " leaves the image");
  }
  return {};
}

}  // namespace detail

/// Reads and checks an inode. Chunk tables and addresses of file data are checked as they are used.
/// @error{Errc::corrupt, no inode there\, or content that leaves the image}
/// @error{Errc::unsupported, a format or layout that we do not know}
template <RandomAccessSource S>
[[nodiscard]] Result<Inode> read_inode(Frame<S> const& frame, std::uint64_t nid) {
  auto const base = frame.superblock().meta_block * frame.block();
  auto const distance = checked_mul(nid, inode_unit);
  auto const position = distance ? checked_add(base, *distance) : distance;
  if ((nid & metabox_bit) != 0 || !position ||
      !frame.contains(*position, InodeRecord::compact_size)) {
    return fail(Errc::corrupt, "leaves the image");
  }
  std::array<std::byte, InodeRecord::extended_size> raw{};
  auto const there = std::min<std::uint64_t>(raw.size(), frame.image_size() - *position);
  auto const bytes = std::span(raw).first(static_cast<std::size_t>(there));
  EROFS_OCI_TRY(frame.read(*position, bytes));
  Inode inode{nid, *position, InodeRecord::decode(raw), {}};
  auto const& r = inode.record;
  auto const& s = frame.superblock();
  auto const sum =  // wraps, as the kernel's does
      static_cast<std::uint64_t>(s.epoch) + static_cast<std::uint64_t>(r.seconds);
  inode.mtime = r.extended() ? Time{r.seconds, r.nanoseconds}
                             : Time{static_cast<std::int64_t>(sum), s.fixed_nsec};
  auto const where = "offset " + std::to_string(*position);
  if (bytes.size() < r.record_size()) return fail(Errc::corrupt, where + ": leaves the image");
  EROFS_OCI_TRY(detail::check_record(frame, inode), where);
  EROFS_OCI_TRY(detail::check_content(frame, inode), where);
  return inode;
}

}  // namespace erofs_oci::erofs
