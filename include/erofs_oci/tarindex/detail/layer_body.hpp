// SPDX-License-Identifier: Apache-2.0
/// @file
/// What tarindex/layer.hpp only declares.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <erofs_oci/core/config.hpp>
#include <erofs_oci/core/memory_budget.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/erofs/format.hpp>
#include <erofs_oci/erofs/tree.hpp>
#include <erofs_oci/erofs/tree_rules.hpp>
#include <erofs_oci/tar/entry.hpp>
#include <erofs_oci/tar/whiteout.hpp>
#include <erofs_oci/tarindex/layer.hpp>
#include <erofs_oci/tarindex/node.hpp>
#include <erofs_oci/tarindex/path.hpp>

namespace erofs_oci::tarindex {

EROFS_OCI_BODY LayerBuilder::LayerBuilder(LayerOptions options) : options_(std::move(options)) {
  constexpr auto enough = std::numeric_limits<std::uint64_t>::max();
  if (!options_.memory) options_.memory = std::make_shared<ImageMemory>(MemoryBudget{}, enough);
}

EROFS_OCI_BODY Result<void> LayerBuilder::apply(tar::Entry entry) {
  auto const offset = entry.header_offset;
  auto const member = "member " + tar::printable(entry.path);
  auto const where = member + " at offset " + std::to_string(offset);
  if (names_nothing(entry.path)) {
    return fail(
        Errc::corrupt,
        where + ": a whiteout that names nothing, which the OCI image specification forbids");
  }
  if (auto const ok = take(std::move(entry)); !ok) {
    layer_.reports.add(offset, member + ": " + ok.error().context + ", left out");
  }
  EROFS_OCI_TRY(charge(), where);
  return {};
}

EROFS_OCI_BODY Result<void> LayerBuilder::charge() {
  auto const all = layer_.tree.memory() + beside_;
  return options_.memory->take_tree(all - std::exchange(charged_, all));
}

EROFS_OCI_BODY Layer LayerBuilder::finish() && {
  resolve_links();
  place_whiteouts();
  return std::move(layer_);
}

EROFS_OCI_BODY Result<void> LayerBuilder::take(tar::Entry&& entry) {
  auto const path = entry.path;  // the components borrow from it
  auto parts = normalised(path);
  if (parts.empty() && entry.type != tar::Type::directory) {
    return fail(Errc::corrupt, "only a directory can be the root");
  }
  if (parts.empty()) return update_directory(erofs::root_id, std::move(entry));
  auto const name = parts.back();
  auto const mark = mark_of(name);
  if (is_bookkeeping(parts)) return fail(Errc::unsupported, "a file of AUFS's own");
  parts.pop_back();
  if (!erofs::is_valid_name(mark.kind == tar::WhiteoutKind::none ? name : mark.target) &&
      mark.kind != tar::WhiteoutKind::opaque) {
    return fail(Errc::unsupported, "a name of " + std::to_string(name.size()) +
                                       " bytes, longer than " +
                                       std::to_string(erofs::max_name_length) + " or with a NUL");
  }
  EROFS_OCI_TRY_ASSIGN(auto parent, walk(layer_.tree, parts, Missing::create));
  switch (mark.kind) {
    case tar::WhiteoutKind::name:
      beside_ += sizeof(erofs::Node) + 2 * erofs::entry_size(mark.target);  // here and in the tree
      whiteouts_.insert_or_assign({*parent, std::string(mark.target)},
                                  erofs::Time{entry.mtime.seconds, entry.mtime.nanoseconds});
      return {};
    case tar::WhiteoutKind::opaque: layer_.tree[*parent].directory()->opaque = true; return {};
    default: return put({*parent, std::string(name)}, std::move(entry));
  }
}

EROFS_OCI_BODY tar::Whiteout LayerBuilder::mark_of(std::string_view name) const noexcept {
  return options_.whiteouts == Whiteouts::oci ? tar::whiteout(name) : tar::Whiteout{};
}

EROFS_OCI_BODY bool LayerBuilder::is_bookkeeping(Components const& parts) const noexcept {
  return std::ranges::any_of(parts, [this](std::string_view part) {
    return mark_of(part).kind == tar::WhiteoutKind::reserved;
  });
}

EROFS_OCI_BODY bool LayerBuilder::names_nothing(std::string_view path) const {
  auto const parts = normalised(path);
  return !parts.empty() && mark_of(parts.back()).kind == tar::WhiteoutKind::invalid &&
         !is_bookkeeping(parts);
}

EROFS_OCI_BODY Result<void> LayerBuilder::update_directory(erofs::NodeId id, tar::Entry&& entry) {
  EROFS_OCI_TRY_ASSIGN(auto node, node_of(std::move(entry), 1, layer_.reports));
  beside_ += erofs::heap_size(node);
  auto& old = layer_.tree[id];
  auto content = std::move(old.content);
  old = std::move(node);
  old.content = std::move(content);
  old.directory()->implied = false;
  return {};
}

EROFS_OCI_BODY Result<void> LayerBuilder::put(Place place, tar::Entry&& entry) {
  if (entry.type == tar::Type::hard_link) return put_link(std::move(place), std::move(entry));
  auto const* const old = layer_.tree.find(place.parent, place.name);
  auto const old_is_directory = old != nullptr && layer_.tree[*old].kind == erofs::Kind::directory;
  if (entry.type == tar::Type::directory && old_is_directory) {
    return update_directory(*old, std::move(entry));
  }
  EROFS_OCI_TRY_ASSIGN(auto node, node_of(std::move(entry), 1, layer_.reports));
  // Whatever was here, be it a link that waits for its target, has replaced what the layers below
  // have: a directory starts anew.
  auto const replaces = late_.erase(place) > 0 || old != nullptr;
  if (auto* const directory = node.directory()) directory->opaque = replaces;
  layer_.tree.add(place.parent, std::move(place.name), std::move(node));
  return {};
}

EROFS_OCI_BODY Result<void> LayerBuilder::put_link(Place place, tar::Entry&& entry) {
  auto const target = find_place(layer_.tree, entry.link, Missing::leave);
  DanglingLink link{std::move(entry.path), std::move(entry.link), entry.header_offset};
  auto const* const found = target ? layer_.tree.find(target->parent, target->name) : nullptr;
  if (found == nullptr) {
    if (target == place && late_.contains(place)) return {};  // a link to itself changes nothing
    wait(std::move(place), std::move(link), target);
    return {};
  }
  if (layer_.tree[*found].kind == erofs::Kind::directory) {
    report_left_out(layer_.reports, link, "a directory");
    return {};
  }
  late_.erase(place);
  auto const id = *found;  // the entry may go away by the next line: a link to itself
  layer_.tree.link(place.parent, std::move(place.name), id);
  return {};
}

EROFS_OCI_BODY void LayerBuilder::wait(Place place, DanglingLink link,
                                       std::optional<Place> const& target) {
  auto const earlier = target ? late_.find(*target) : late_.end();
  Late late{std::move(link)};
  if (earlier != late_.end()) {
    late.link.target = earlier->second.link.target;
    late.hidden = earlier->second.hidden;
  } else {
    late.hidden = hides(late.link.target);
  }
  beside_ += erofs::entry_size(place.name) + sizeof(Late) + late.link.path.size() +
             late.link.target.size();
  layer_.tree.unlink(place.parent, place.name);
  late_.insert_or_assign(std::move(place), std::move(late));
}

EROFS_OCI_BODY bool LayerBuilder::hides(std::string_view target) {
  auto const parts = normalised(target);
  auto parent = erofs::root_id;
  for (auto const part : parts) {
    if (layer_.tree[parent].directory()->opaque) return true;
    if (whiteouts_.contains({parent, std::string(part)})) return true;
    auto const* const own = layer_.tree.find(parent, part);
    if (own == nullptr) return false;
    auto const kind = layer_.tree[*own].kind;
    if (kind != erofs::Kind::directory) return kind != erofs::Kind::symlink;
    parent = *own;
  }
  return false;
}

EROFS_OCI_BODY void LayerBuilder::resolve_links() {
  for (auto at = late_.begin(); at != late_.end(); ++at) {
    std::vector<std::pair<Place const, Late>*> chain;
    std::optional<erofs::NodeId> id;
    for (auto* next = &*at; next != nullptr && !next->second.done;) {
      next->second.done = true;
      chain.push_back(next);
      auto const target = find_place(layer_.tree, next->second.link.target, Missing::leave);
      next = nullptr;
      if (!target) break;
      if (auto const more = late_.find(*target); more != late_.end() && !more->second.done) {
        next = &*more;
      } else if (auto const* const found = layer_.tree.find(target->parent, target->name)) {
        id = *found;
      }
    }
    for (auto* const link : chain) settle(link->first, link->second, id);
  }
  std::ranges::sort(layer_.dangling, {}, &DanglingLink::header_offset);
}

EROFS_OCI_BODY void LayerBuilder::settle(Place const& place, Late& late,
                                         std::optional<erofs::NodeId> id) {
  auto& link = late.link;
  auto const now = find_place(layer_.tree, link.path, Missing::leave);
  if (now != place) return;  // replaced since
  if (layer_.tree.find(place.parent, place.name) != nullptr) {
    report_left_out(layer_.reports, link, "a directory by a later member");
    return;
  }
  auto const is_directory = id && layer_.tree[*id].kind == erofs::Kind::directory;
  if (id && !is_directory) layer_.tree.link(place.parent, place.name, *id);
  if (!late.hidden) {
    layer_.dangling.push_back(std::move(link));
  } else if (is_directory) {
    report_left_out(layer_.reports, link, "a directory");
  } else if (!id) {
    report_left_out(layer_.reports, link, "removed before by the same layer");
  }
}

EROFS_OCI_BODY void LayerBuilder::place_whiteouts() {
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

}  // namespace erofs_oci::tarindex
