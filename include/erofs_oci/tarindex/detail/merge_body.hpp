// SPDX-License-Identifier: Apache-2.0
/// @file
/// What tarindex/merge.hpp only declares.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <erofs_oci/core/config.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/erofs/tree.hpp>
#include <erofs_oci/tar/entry.hpp>
#include <erofs_oci/tarindex/layer.hpp>
#include <erofs_oci/tarindex/merge.hpp>
#include <erofs_oci/tarindex/path.hpp>

namespace erofs_oci::tarindex {
namespace detail {

/// Lays layer after layer over a tree.
class Merger {
 public:
  explicit Merger(MergedMarks marks) noexcept : marks_(marks) {}

  /// Lays `layer` over all that came before; its files get device number `device`.
  void add(Layer const& layer, std::uint32_t device) {
    auto const targets = targets_below(layer.dangling);
    from_ = &layer.tree;
    device_ = device;
    ids_.assign(layer.tree.size(), none);
    steps_.assign(1, {0, {}});
    todo_.assign(1, {erofs::root_id, erofs::root_id, 0});
    run();
    // Last, so that the links find the files of this layer.
    while (!grafts_.empty()) {
      for (auto const& graft : std::exchange(grafts_, {})) put_behind_link(graft);
      run();
    }
    for (std::size_t i = 0; i < layer.dangling.size(); ++i) {
      auto const& link = layer.dangling[i];
      if (!add_link(link, targets[i])) report_left_out(reports_, link, "no such file");
    }
  }

  /// add() for the lowest layer, whose tree becomes the merged one, without its marks.
  void adopt(Layer&& layer, std::uint32_t device) {
    if (marks_ == MergedMarks::keep) return add(layer, device);
    tree_ = std::move(layer.tree);
    for (erofs::NodeId id = 0; id < tree_.size(); ++id) {
      if (auto* const directory = tree_[id].directory()) {
        directory->opaque = false;
        std::erase_if(directory->children, [&](auto const& child) {
          return tree_[child.second].kind == erofs::Kind::whiteout;
        });
      }
      if (auto* const file = tree_[id].regular()) {
        for (auto& extent : file->extents) {
          if (extent.device != 0) extent.device = device;
        }
      }
    }
    for (auto const& link : layer.dangling) {
      if (!add_link(link, std::nullopt)) report_left_out(reports_, link, "no such file");
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
    under.opaque = marks_ == MergedMarks::keep && (under.opaque || over.opaque);
    for (auto const& [name, id] : over.children) {
      auto const kind = (*from_)[id].kind;
      if (kind == erofs::Kind::whiteout && marks_ == MergedMarks::strip) {
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
    node.directory()->opaque = below == Below::hidden && marks_ == MergedMarks::keep;
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
      for (auto& extent : file->extents) {
        if (extent.device != 0) extent.device = device_;
      }
    }
    return ids_[over] = tree_.add(std::move(node));
  }

  /// The file that a link may lead to: neither a directory nor a mark.
  [[nodiscard]] std::optional<erofs::NodeId> file_at(std::string_view path) {
    auto const place = find_place(tree_, path, Missing::leave);
    auto const* const found = place ? tree_.find(place->parent, place->name) : nullptr;
    if (found == nullptr || tree_[*found].kind == erofs::Kind::directory ||
        tree_[*found].kind == erofs::Kind::whiteout) {
      return std::nullopt;
    }
    return *found;
  }

  /// What the links of a layer lead to in the layers below, before this one changes anything: a
  /// link keeps the file that its target named then, whatever becomes of the name.
  [[nodiscard]] std::vector<std::optional<erofs::NodeId>> targets_below(
      std::vector<DanglingLink> const& links) {
    std::vector<std::optional<erofs::NodeId>> targets;
    targets.reserve(links.size());
    for (auto const& link : links) targets.push_back(file_at(link.target));
    return targets;
  }

  [[nodiscard]] bool add_link(DanglingLink const& link, std::optional<erofs::NodeId> target) {
    if (!target) target = file_at(link.target);
    if (!target) return false;
    auto place = find_place(tree_, link.path, Missing::create);
    if (!place) return false;
    tree_.link(place->parent, std::move(place->name), *target);
    return true;
  }

  MergedMarks marks_;
  erofs::Tree tree_;
  tar::Reports reports_;

  erofs::Tree const* from_ = nullptr;
  std::uint32_t device_ = 0;
  std::vector<erofs::NodeId> ids_;  // of the layer's nodes in tree_
  std::vector<Step> steps_;
  std::vector<Pair> todo_;
  std::vector<Graft> grafts_;
};

/// Removes the devices without data of a file, and renumbers the others from 1.
inline void drop_unused(Merged& merged, std::span<erofs::Device const> layers) {
  std::vector<std::uint32_t> number(layers.size() + 1, 0);  // 0: not used
  for_each_regular(merged.tree, [&](erofs::NodeId, erofs::Regular const& file) {
    for (auto const& extent : file.extents) number[extent.device] = 1;
  });
  number[0] = 0;  // the image itself keeps its number
  for (std::size_t i = 0; i < layers.size(); ++i) {
    if (number[i + 1] == 0) continue;
    merged.devices.push_back(layers[i]);
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

EROFS_OCI_BODY Result<Merged> merge(std::span<MergeInput const> layers, MergedMarks marks) {
  Merging merging(marks);
  for (auto const& layer : layers) merging.add(*layer.layer, layer.device);
  return std::move(merging).finish();
}

EROFS_OCI_BODY Merging::Merging(MergedMarks marks)
    : merger_(std::make_unique<detail::Merger>(marks)) {}
EROFS_OCI_BODY Merging::~Merging() = default;
EROFS_OCI_BODY Merging::Merging(Merging&&) noexcept = default;
EROFS_OCI_BODY Merging& Merging::operator=(Merging&&) noexcept = default;

EROFS_OCI_BODY void Merging::add(Layer const& layer, erofs::Device device) {
  devices_.push_back(std::move(device));
  merger_->add(layer, static_cast<std::uint32_t>(devices_.size()));
}

EROFS_OCI_BODY void Merging::add(Layer&& layer, erofs::Device device) {
  if (!devices_.empty()) return add(std::as_const(layer), std::move(device));
  devices_.push_back(std::move(device));
  merger_->adopt(std::move(layer), 1);
}

EROFS_OCI_BODY Result<Merged> Merging::finish() && {
  Merged merged{std::move(merger_->tree()), {}, {}, std::move(merger_->reports())};
  detail::drop_unused(merged, devices_);
  if (merged.devices.size() > max_layers) {
    return fail(Errc::unsupported,
                "image of " + std::to_string(merged.devices.size()) + " layers with data");
  }
  return merged;
}

}  // namespace erofs_oci::tarindex
