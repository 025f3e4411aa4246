// SPDX-License-Identifier: Apache-2.0
/// @file
/// merge: one tree from the layers of an image.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include <erofs_oci/core/result.hpp>
#include <erofs_oci/erofs/tree.hpp>
#include <erofs_oci/tar/entry.hpp>
#include <erofs_oci/tarindex/layer.hpp>

namespace erofs_oci::tarindex {

/// Whether removals stay visible in a merged tree.
enum class MergedMarks : std::uint8_t {
  strip,  ///< no whiteouts and no opaque directories: the image as a container sees it
  keep,   ///< both stay, for a tree that will itself lie over others
};

/// A layer to merge.
struct MergeInput {
  Layer const* layer;    ///< borrowed for the call; its data are on device 1
  erofs::Device device;  ///< its tar
};

/// An image's tree.
struct Merged {
  erofs::Tree tree;                    ///< extents name the devices below, from 1
  std::vector<erofs::Device> devices;  ///< bottom to top, only those with data in the tree
  std::vector<std::size_t> layers;     ///< for each device the input that it comes from
  tar::Reports reports;                ///< hard links that lead nowhere
};

/// Most layers of an image: the format numbers devices in 16 bits.
inline constexpr std::size_t max_layers = 65535;

namespace detail {

class Merger;

/// Calls `visit` with each file of a tree once for every name that leads to it.
template <class Visit>
void for_each_regular(erofs::Tree& tree, Visit visit) {
  std::vector<erofs::NodeId> todo{erofs::root_id};
  while (!todo.empty()) {
    auto const& directory = *tree[todo.back()].directory();
    todo.pop_back();
    for (auto const& [name, id] : directory.children) {
      if (tree[id].kind == erofs::Kind::directory) todo.push_back(id);
      if (auto* const file = tree[id].regular()) visit(id, *file);
    }
  }
}

}  // namespace detail

/// Lays layers over each other, `layers` from the bottom to the top:
///   - a whiteout or an opaque directory removes what is below it, in any order of members in its
///     layer; a file replaces a directory and the reverse
///   - an implied directory keeps the attributes of the one below; one that was never described has
///     0755, 0:0, time 0. The same goes for the root
///   - an implied directory over a symbolic link is what the link leads to, as when unpacking;
///     overlayfs would hide the link
///   - a hard link may lead to a file of a lower layer
///   - hard links within a layer stay, also if some of their names are hidden
///
/// Takes milliseconds: only trees are read, no data.
/// @error{Errc::unsupported, more than `max_layers` layers give data}
[[nodiscard]] Result<Merged> merge(std::span<MergeInput const> layers,
                                   MergedMarks marks = MergedMarks::strip);

/// merge() for layers that come one after another, so that beside the merged tree only one layer's
/// is in memory. Not thread-safe.
class Merging {
 public:
  explicit Merging(MergedMarks marks = MergedMarks::strip);
  ~Merging();
  Merging(Merging&&) noexcept;
  Merging& operator=(Merging&&) noexcept;

  /// Lays a layer over those before.
  /// @param device  its tar
  void add(Layer const& layer, erofs::Device device);
  /// The same; the lowest layer's tree becomes the merged one.
  void add(Layer&& layer, erofs::Device device);

  /// The image's tree.
  /// @error{as merge(), as there}
  [[nodiscard]] Result<Merged> finish() &&;

 private:
  std::unique_ptr<detail::Merger> merger_;
  std::vector<erofs::Device> devices_;
};

}  // namespace erofs_oci::tarindex

#ifndef EROFS_OCI_COMPILED
#include <erofs_oci/tarindex/detail/merge_body.hpp>
#endif
