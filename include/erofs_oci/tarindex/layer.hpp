// SPDX-License-Identifier: Apache-2.0
/// @file
/// LayerBuilder: the tree of one layer, from the members of its tar.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <erofs_oci/core/result.hpp>
#include <erofs_oci/erofs/tree.hpp>
#include <erofs_oci/tar/entry.hpp>
#include <erofs_oci/tar/whiteout.hpp>
#include <erofs_oci/tarindex/node.hpp>
#include <erofs_oci/tarindex/path.hpp>

namespace erofs_oci::tarindex {

/// A hard link whose target is not in its own layer; a lower layer may have it.
struct DanglingLink {
  std::string path;             ///< the link
  std::string target;           ///< what it links to
  std::uint64_t header_offset;  ///< of the link in its archive

  friend bool operator==(DanglingLink const&, DanglingLink const&) = default;
};

/// A layer by itself: what it adds, and by Kind::whiteout and Directory::opaque what it takes away.
///
/// A directory without a header of its own is `implied`. The root is opaque if the layer hides all
/// that is below it.
struct Layer {
  erofs::Tree tree;
  std::vector<DanglingLink> dangling;  ///< in the order of the archive; merge() looks below
  tar::Reports reports;                ///< what was left out
};

/// What `.wh.` names mean.
enum class Whiteouts : std::uint8_t {
  oci,      ///< removals from lower layers
  literal,  ///< files of that name
};

/// How to read a layer.
struct LayerOptions {
  /// Default: Whiteouts::oci.
  Whiteouts whiteouts = Whiteouts::oci;
  /// Most files and directories, whiteouts, links that wait for their targets, and implied
  /// directories: a path of 4 KiB may stand for two thousand. Default: 8 Mi, about 2 GiB of memory.
  std::size_t max_nodes = std::size_t{1} << 23;
  /// Most bytes of attributes, link targets and sparse maps together: a thousandth of that,
  /// gzipped, may stand for them. Default: 1 GiB.
  std::uint64_t max_extra = std::uint64_t{1} << 30;
};

/// Applies members one after another, as an extraction would:
///   - paths are cleaned, and `..` stops at the root; symbolic links on the way are followed inside
///     the tree
///   - a later member replaces an earlier one of its name; a directory over a directory only
///     changes its attributes; a directory in place of something else hides what lower layers have
///   - a hard link keeps the file that its target named then; a target that only comes later is
///     found at the end
///   - whiteouts concern lower layers only, wherever they stand in the archive
///
/// Parents without a member become implied directories: 0755, 0:0, time 0; so does the root.
class LayerBuilder {
 public:
  explicit LayerBuilder(LayerOptions options = {}) : options_(options) {}

  /// Adds a member. After an error the builder is of no use.
  /// @error{Errc::corrupt, a file is in the way of a directory\, or something other than a
  /// directory would become the root}
  /// @error{Errc::unsupported, a name\, attribute\, device number\, sparse segment or number of
  /// files that no image can hold\, or more than the options allow}
  [[nodiscard]] Result<void> apply(tar::Entry entry) {
    auto where = "member " + tar::printable(entry.path) + " at offset " +
                 std::to_string(entry.header_offset);
    extra_ += extra_of(entry);
    auto ok = take(std::move(entry));
    if (!ok) return fail(std::move(ok).error(), std::move(where));
    if (extra_ > options_.max_extra) {
      return fail(Errc::unsupported, where + ": more than " + std::to_string(options_.max_extra) +
                                         " bytes of attributes, link targets and sparse maps");
    }
    if (layer_.tree.size() + whiteouts_.size() + late_.size() > options_.max_nodes) {
      return fail(Errc::unsupported,
                  where + ": more than " + std::to_string(options_.max_nodes) + " files");
    }
    return ok;
  }

  /// The layer, once all members are in.
  [[nodiscard]] Layer finish() && {
    resolve_links();
    place_whiteouts();
    return std::move(layer_);
  }

 private:
  /// An entry of a directory.
  struct Place {
    erofs::NodeId parent;
    std::string name;

    friend auto operator<=>(Place const&, Place const&) = default;
  };

  /// A hard link to something that was not there when it came.
  struct Late {
    DanglingLink link;
    bool done = false;
  };

  /// Bytes that a member other than a link keeps besides its node, its name and one extent.
  [[nodiscard]] static std::uint64_t extra_of(tar::Entry const& entry) {
    if (entry.type == tar::Type::hard_link) return 0;
    std::uint64_t bytes = entry.link.size();
    for (auto const& [name, value] : entry.xattrs) bytes += name.size() + value.size();
    return bytes + sizeof(erofs::Extent) * std::max<std::size_t>(entry.extents.size(), 1) -
           sizeof(erofs::Extent);
  }

  [[nodiscard]] Result<void> take(tar::Entry&& entry) {
    auto const path = entry.path;  // the components borrow from it
    auto parts = normalised(path);
    if (!parts) return fail(std::move(parts).error());
    if (parts->empty()) return take_root(std::move(entry));
    auto const name = parts->back();
    auto const mark = options_.whiteouts == Whiteouts::oci ? tar::whiteout(name) : tar::Whiteout{};
    if (options_.whiteouts == Whiteouts::oci && is_bookkeeping(*parts)) {
      layer_.reports.add(entry.header_offset,
                         "member " + tar::printable(path) + ": whiteout of nothing, left out");
      return {};
    }
    parts->pop_back();
    auto parent = walk(layer_.tree, *parts, Missing::create);
    if (!parent) return fail(std::move(parent).error());
    switch (mark.kind) {
      case tar::WhiteoutKind::name:
        whiteouts_.insert_or_assign({**parent, std::string(mark.target)},
                                    erofs::Time{entry.mtime.seconds, entry.mtime.nanoseconds});
        return {};
      case tar::WhiteoutKind::opaque: layer_.tree[**parent].directory()->opaque = true; return {};
      default: return put({**parent, std::string(name)}, std::move(entry));
    }
  }

  /// AUFS kept files of its own under `.wh..wh.` names; nobody unpacks those, or what is in them.
  [[nodiscard]] static bool is_bookkeeping(Components const& parts) {
    for (auto const part : parts) {
      if (tar::whiteout(part).kind == tar::WhiteoutKind::reserved) return true;
    }
    return tar::whiteout(parts.back()).kind == tar::WhiteoutKind::invalid;
  }

  [[nodiscard]] Result<void> take_root(tar::Entry&& entry) {
    if (entry.type != tar::Type::directory) {
      return fail(Errc::corrupt, "only a directory can be the root");
    }
    return update_directory(erofs::root_id, std::move(entry));
  }

  [[nodiscard]] Result<void> update_directory(erofs::NodeId id, tar::Entry&& entry) {
    auto node = node_of(std::move(entry), 1, layer_.reports);
    if (!node) return fail(std::move(node).error());
    auto& old = layer_.tree[id];
    auto content = std::move(old.content);
    old = *std::move(node);
    old.content = std::move(content);
    old.directory()->implied = false;
    return {};
  }

  [[nodiscard]] Result<void> put(Place place, tar::Entry&& entry) {
    if (entry.type == tar::Type::hard_link) return put_link(std::move(place), std::move(entry));
    late_.erase(place);
    auto const* const old = layer_.tree.find(place.parent, place.name);
    auto const old_is_directory =
        old != nullptr && layer_.tree[*old].kind == erofs::Kind::directory;
    if (entry.type == tar::Type::directory && old_is_directory) {
      return update_directory(*old, std::move(entry));
    }
    auto node = node_of(std::move(entry), 1, layer_.reports);
    if (!node) return fail(std::move(node).error());
    // Whatever was here has replaced what the layers below have: a directory starts anew.
    if (auto* const directory = node->directory()) directory->opaque = old != nullptr;
    layer_.tree.add(place.parent, std::move(place.name), *std::move(node));
    return {};
  }

  [[nodiscard]] Result<void> put_link(Place place, tar::Entry&& entry) {
    auto target = find_target(entry.link);
    if (!target) return fail(std::move(target).error());
    auto const* const found =
        *target ? layer_.tree.find((*target)->parent, (*target)->name) : nullptr;
    if (found == nullptr) {
      extra_ += entry.path.size() + entry.link.size();
      late_.insert_or_assign(std::move(place), Late{{std::move(entry.path), std::move(entry.link),
                                                     entry.header_offset}});
      return {};
    }
    if (layer_.tree[*found].kind == erofs::Kind::directory) {
      report_directory(entry.path, entry.link, entry.header_offset);
      return {};
    }
    late_.erase(place);
    auto const id = *found;  // the entry may go away by the next line: a link to itself
    layer_.tree.link(place.parent, std::move(place.name), id);
    return {};
  }

  void report_directory(std::string_view path, std::string_view target, std::uint64_t offset) {
    layer_.reports.add(offset, "hard link " + tar::printable(path) + " to " +
                                   tar::printable(target) + ": a directory, left out");
  }

  /// The entry that a link's target would be; empty if its directory is not there.
  [[nodiscard]] Result<std::optional<Place>> find_target(std::string_view target) {
    auto parts = normalised(target);
    if (!parts) return fail(std::move(parts).error(), "link target");
    if (parts->empty()) return std::optional<Place>{};
    std::string name(parts->back());
    parts->pop_back();
    auto const parent = walk(layer_.tree, *parts, Missing::leave);
    if (!parent || !*parent) return std::optional<Place>{};
    return std::optional(Place{**parent, std::move(name)});
  }

  /// Links that came before their targets. A target may be another such link: each chain is
  /// followed once, whatever its order in the archive.
  void resolve_links() {
    for (auto at = late_.begin(); at != late_.end(); ++at) {
      std::vector<std::pair<Place const, Late>*> chain;
      std::optional<erofs::NodeId> id;
      for (auto* next = &*at; next != nullptr && !next->second.done;) {
        next->second.done = true;
        chain.push_back(next);
        auto const target = find_target(next->second.link.target);
        next = nullptr;
        if (!target || !*target) break;
        if (auto const more = late_.find(**target); more != late_.end() && !more->second.done) {
          next = &*more;
        } else if (auto const* const found = layer_.tree.find((*target)->parent, (*target)->name)) {
          id = *found;
        }
      }
      for (auto* const link : chain) settle(link->first, link->second.link, id);
    }
    std::ranges::sort(layer_.dangling, {}, &DanglingLink::header_offset);
  }

  void settle(Place const& place, DanglingLink const& link, std::optional<erofs::NodeId> id) {
    if (auto const now = find_target(link.path); !now || *now != place) return;  // replaced since
    if (!id) {
      layer_.dangling.push_back(link);
    } else if (layer_.tree[*id].kind == erofs::Kind::directory) {
      report_directory(link.path, link.target, link.header_offset);
    } else {
      layer_.tree.link(place.parent, place.name, *id);
    }
  }

  /// The layer's own files win over its whiteouts; an own directory hides the one below.
  void place_whiteouts() {
    for (auto const& [place, mtime] : whiteouts_) {
      auto const* const own = layer_.tree.find(place.parent, place.name);
      if (own == nullptr) {
        auto node = erofs::make_node(erofs::Kind::whiteout);
        node.permissions = 0;
        node.mtime = mtime;
        layer_.tree.add(place.parent, place.name, std::move(node));
      } else if (auto* const directory = layer_.tree[*own].directory()) {
        directory->opaque = true;
        directory->implied = false;  // the lower one's attributes are gone with it
      }
    }
  }

  LayerOptions options_;
  Layer layer_;
  std::map<Place, erofs::Time> whiteouts_;
  std::map<Place, Late> late_;
  std::uint64_t extra_ = 0;  // bytes taken so far
};

}  // namespace erofs_oci::tarindex
