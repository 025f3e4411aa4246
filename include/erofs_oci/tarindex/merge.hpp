// SPDX-License-Identifier: Apache-2.0
/// @file
/// merge: one tree from the layers of an image.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <erofs_oci/core/result.hpp>
#include <erofs_oci/erofs/tree.hpp>
#include <erofs_oci/tar/entry.hpp>
#include <erofs_oci/tarindex/layer.hpp>
#include <erofs_oci/tarindex/path.hpp>

namespace erofs_oci::tarindex {

/// Whether removals stay visible in a merged tree.
enum class Marks : std::uint8_t {
  strip,  ///< no whiteouts, nothing opaque: the image as a container sees it
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
  std::vector<erofs::Device> devices;  ///< bottom to top, only those that still give data
  std::vector<std::size_t> layers;     ///< for each device the input that it comes from
  tar::Reports reports;                ///< hard links that lead nowhere
};

/// Most layers of an image: the format numbers devices in 16 bits.
inline constexpr std::size_t max_layers = 65535;

namespace detail {

/// Lays layer after layer over a tree.
class Merger {
 public:
  explicit Merger(Marks marks) noexcept : marks_(marks) {}

  /// Lays `layer` over all that came before; its files get device number `device`.
  void add(Layer const& layer, std::uint32_t device) {
    from_ = &layer.tree;
    device_ = device;
    ids_.assign(layer.tree.size(), none);
    steps_.assign(1, {0, {}});
    todo_.assign(1, {erofs::root_id, erofs::root_id, 0});
    run();
    // Only now, so that what the links lead to is as this layer has it.
    while (!grafts_.empty()) {
      for (auto const& graft : std::exchange(grafts_, {})) put_behind_link(graft);
      run();
    }
    for (auto const& link : layer.dangling) {
      if (!add_link(link)) {
        reports_.add(link.header_offset, "hard link " + tar::printable(link.path) + " to " +
                                             tar::printable(link.target) +
                                             ": no such file, left out");
      }
    }
  }

  [[nodiscard]] erofs::Tree& tree() noexcept { return tree_; }
  [[nodiscard]] tar::Reports& reports() noexcept { return reports_; }

 private:
  static constexpr auto none = std::numeric_limits<erofs::NodeId>::max();

  /// A directory of the layer, as the last component of its path.
  struct Step {
    std::size_t parent;  // in steps_; the root is its own
    std::string_view name;
  };

  /// A directory of the layer and the merged directory that it is laid over.
  struct Pair {
    erofs::NodeId over;
    erofs::NodeId under;
    std::size_t step;
  };

  /// An implied directory of the layer where the layers below have a symbolic link.
  struct Graft {
    erofs::NodeId over;
    erofs::NodeId parent;
    std::size_t step;
  };

  void run() {
    while (!todo_.empty()) {
      auto const next = todo_.back();
      todo_.pop_back();
      lay(next);
    }
  }

  void lay(Pair const& pair) {
    auto const& over = *(*from_)[pair.over].directory();
    if (!over.implied) copy_attributes((*from_)[pair.over], tree_[pair.under]);
    auto& under = *tree_[pair.under].directory();
    if (over.opaque) under.children.clear();
    under.opaque = marks_ == Marks::keep && (under.opaque || over.opaque);
    for (auto const& [name, id] : over.children) {
      auto const kind = (*from_)[id].kind;
      if (kind == erofs::Kind::whiteout && marks_ == Marks::strip) {
        tree_.unlink(pair.under, name);
      } else if (kind != erofs::Kind::directory) {
        tree_.link(pair.under, name, import(id));
      } else {
        steps_.push_back({pair.step, name});
        lay_directory({id, pair.under, steps_.size() - 1});
      }
    }
  }

  void lay_directory(Graft const& place) {
    auto const& directory = *(*from_)[place.over].directory();
    auto const* const found = tree_.find(place.parent, steps_[place.step].name);
    auto const fresh = !directory.implied || directory.opaque;
    if (found == nullptr) {
      todo_.push_back({place.over, new_directory(place, Below::nothing), place.step});
    } else if (tree_[*found].kind == erofs::Kind::directory) {
      todo_.push_back({place.over, *found, place.step});
    } else if (tree_[*found].kind == erofs::Kind::symlink && !fresh) {
      grafts_.push_back(place);
    } else {
      todo_.push_back({place.over, new_directory(place, Below::hidden), place.step});
    }
  }

  /// A member `lib/x` without a `lib/` lands where the `lib` of the layers below leads, as it does
  /// when layers are unpacked one over another; if that is nowhere, a directory replaces the link.
  void put_behind_link(Graft const& place) {
    Components path;
    for (auto step = place.step; step != 0; step = steps_[step].parent) {
      path.push_back(steps_[step].name);
    }
    std::ranges::reverse(path);
    auto const there = walk(tree_, path, Missing::leave);
    auto const under = there && *there ? **there : new_directory(place, Below::hidden);
    todo_.push_back({place.over, under, place.step});
  }

  enum class Below : std::uint8_t { nothing, hidden };

  erofs::NodeId new_directory(Graft const& place, Below below) {
    auto node = erofs::make_node(erofs::Kind::directory);
    node.directory()->implied = true;
    node.directory()->opaque = below == Below::hidden && marks_ == Marks::keep;
    return tree_.add(place.parent, std::string(steps_[place.step].name), std::move(node));
  }

  static void copy_attributes(erofs::Node const& from, erofs::Node& to) {
    to.permissions = from.permissions;
    to.uid = from.uid;
    to.gid = from.gid;
    to.mtime = from.mtime;
    to.xattrs = from.xattrs;
    to.directory()->implied = false;
  }

  /// A copy of one of the layer's nodes; the same one for each of its names.
  erofs::NodeId import(erofs::NodeId over) {
    if (ids_[over] != none) return ids_[over];
    auto node = (*from_)[over];
    if (auto* const file = node.regular()) {
      for (auto& extent : file->extents) extent.device = device_;
    }
    return ids_[over] = tree_.add(std::move(node));
  }

  /// The entry at a path, its directory made if `missing` says so.
  [[nodiscard]] std::optional<std::pair<erofs::NodeId, std::string>> place_of(std::string_view path,
                                                                              Missing missing) {
    auto parts = normalised(path);
    if (!parts || parts->empty()) return std::nullopt;
    std::string name(parts->back());
    parts->pop_back();
    auto const parent = walk(tree_, *parts, missing);
    if (!parent || !*parent) return std::nullopt;
    return std::pair(**parent, std::move(name));
  }

  [[nodiscard]] bool add_link(DanglingLink const& link) {
    auto const target = place_of(link.target, Missing::leave);
    if (!target) return false;
    auto const* const found = tree_.find(target->first, target->second);
    if (found == nullptr || tree_[*found].kind == erofs::Kind::directory ||
        tree_[*found].kind == erofs::Kind::whiteout) {
      return false;
    }
    auto const id = *found;
    auto place = place_of(link.path, Missing::create);
    if (!place) return false;
    tree_.link(place->first, std::move(place->second), id);
    return true;
  }

  Marks marks_;
  erofs::Tree tree_;
  tar::Reports reports_;

  erofs::Tree const* from_ = nullptr;
  std::uint32_t device_ = 0;
  std::vector<erofs::NodeId> ids_;  // of the layer's nodes in tree_
  std::vector<Step> steps_;
  std::vector<Pair> todo_;
  std::vector<Graft> grafts_;
};

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

/// Takes out the devices that no file's data are on, and renumbers the others from 1.
inline void drop_unused(Merged& merged, std::span<MergeInput const> layers) {
  std::vector<std::uint32_t> number(layers.size() + 1, 0);  // 0: not used
  for_each_regular(merged.tree, [&](erofs::NodeId, erofs::Regular const& file) {
    for (auto const& extent : file.extents) number[extent.device] = 1;
  });
  for (std::size_t i = 0; i < layers.size(); ++i) {
    if (number[i + 1] == 0) continue;
    merged.devices.push_back(layers[i].device);
    merged.layers.push_back(i);
    number[i + 1] = static_cast<std::uint32_t>(merged.devices.size());
  }
  std::vector<bool> done(merged.tree.size());
  for_each_regular(merged.tree, [&](erofs::NodeId id, erofs::Regular& file) {
    if (done[id]) return;
    done[id] = true;
    for (auto& extent : file.extents) extent.device = number[extent.device];
  });
}

}  // namespace detail

/// Lays layers over each other, `layers` from the bottom to the top:
///   - a whiteout or an opaque directory takes away what is below it, whatever the order of members
///     in its layer; a file replaces a directory and the reverse
///   - an implied directory keeps the attributes of the one below; one that was never described has
///     0755, 0:0, time 0. The same goes for the root
///   - an implied directory over a symbolic link is what the link leads to, as when unpacking;
///     overlayfs would hide the link
///   - a hard link may lead to a file of a lower layer
///   - hard links within a layer stay, whatever names of theirs are hidden
///
/// Takes milliseconds: only trees are read, no data.
/// @error{Errc::unsupported, more than `max_layers` layers give data}
[[nodiscard]] inline Result<Merged> merge(std::span<MergeInput const> layers,
                                          Marks marks = Marks::strip) {
  detail::Merger merger(marks);
  for (std::size_t i = 0; i < layers.size(); ++i) {
    merger.add(*layers[i].layer, static_cast<std::uint32_t>(i + 1));
  }
  Merged merged{std::move(merger.tree()), {}, {}, std::move(merger.reports())};
  detail::drop_unused(merged, layers);
  if (merged.devices.size() > max_layers) {
    return fail(Errc::unsupported,
                "image of " + std::to_string(merged.devices.size()) + " layers with data");
  }
  return merged;
}

}  // namespace erofs_oci::tarindex
