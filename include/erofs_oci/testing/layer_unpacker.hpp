// SPDX-License-Identifier: Apache-2.0
/// @file
/// LayerUnpacker: an oracle for merges: layers unpacked one after another into a file system of
/// maps.
#pragma once

#include <algorithm>
#include <cstddef>
#include <map>
#include <memory>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include <erofs_oci/erofs/tree.hpp>
#include <erofs_oci/tar/entry.hpp>
#include <erofs_oci/tarindex/merge.hpp>

namespace erofs_oci::testing {

/// A member, reduced to what matters here. `stamp` is unlike that of any other member.
struct UnpackStep {
  tar::Type type = tar::Type::regular;
  std::string path;
  std::string link;
  unsigned stamp = 0;
};

/// A file of any kind; two names of one are hard links.
struct UnpackedFile {
  tar::Type type = tar::Type::directory;
  unsigned stamp = 0;     // 0: nobody described this directory
  std::size_t layer = 0;  // that made it
  std::map<std::string, std::shared_ptr<UnpackedFile>> names;
};

using UnpackedFilePtr = std::shared_ptr<UnpackedFile>;

/// Unpacks layers, the lowest first, as OCI tells it: first a layer takes away, then it adds.
class LayerUnpacker {
 public:
  /// Leaves out what is below a file of its layer. Taken out of `steps`: a hard link whose target
  /// is not there when its turn comes, and what is to lie below a hard link.
  void unpack(std::vector<UnpackStep>& steps, std::size_t layer) {
    layer_ = layer;
    take_out_below_links(steps);
    now_ = copy(root_);
    for (auto const& step : steps) remove(step.path);
    std::vector<UnpackStep> taken;
    for (auto& step : steps) {
      auto const is_link = step.type == tar::Type::hard_link;
      if (is_link && step.path.starts_with(step.link + "/")) continue;  // becomes a directory
      auto file =
          step.type == tar::Type::hard_link
              ? at(step.link)
              : std::make_shared<UnpackedFile>(UnpackedFile{step.type, step.stamp, layer_, {}});
      auto const is_directory = file && file->type == tar::Type::directory;
      if (step.type == tar::Type::hard_link && (!file || is_directory)) continue;
      if (is_directory) file = nullptr;
      if (add(root_, step, file) && add(now_, step, file)) remove_now(step.path);
      taken.push_back(std::move(step));
    }
    steps = std::move(taken);
  }

  [[nodiscard]] UnpackedFilePtr root() const { return root_; }

 private:
  static std::pair<std::vector<std::string>, std::string> cut(std::string const& path) {
    std::vector<std::string> parents;
    std::istringstream in(path);
    for (std::string part; std::getline(in, part, '/');) parents.push_back(part);
    auto name = parents.back();
    parents.pop_back();
    return {parents, name};
  }

  static void take_out_below_links(std::vector<UnpackStep>& steps) {
    std::set<std::string> links;
    std::erase_if(steps, [&](UnpackStep const& step) {
      auto const is_above = [&](auto const& link) { return step.path.starts_with(link + "/"); };
      if (std::ranges::any_of(links, is_above)) return true;
      links.erase(step.path);
      if (step.type == tar::Type::hard_link) links.insert(step.path);
      return false;
    });
  }

  /// The same files in directories of their own.
  static UnpackedFilePtr copy(UnpackedFilePtr const& file) {
    if (file->type != tar::Type::directory) return file;
    auto out =
        std::make_shared<UnpackedFile>(UnpackedFile{file->type, file->stamp, file->layer, {}});
    for (auto const& [name, child] : file->names) out->names[name] = copy(child);
    return out;
  }

  /// What is at a path after the steps so far, whichever layer it is from.
  UnpackedFilePtr at(std::string const& path) const {
    auto const [parents, name] = cut(path);
    auto where = now_;
    for (auto const& part : parents) {
      if (!where->names.contains(part)) return nullptr;
      where = where->names[part];
    }
    return where->names.contains(name) ? where->names[name] : nullptr;
  }

  /// Takes away what lower layers have; false if nothing is left.
  bool keep_own(UnpackedFilePtr const& file) const {
    std::erase_if(file->names, [&](auto const& child) { return !keep_own(child.second); });
    return file->layer == layer_ || !file->names.empty();
  }

  /// What a whiteout takes away when its turn comes.
  void remove_now(std::string const& path) {
    auto const [parents, name] = cut(path);
    if (!name.starts_with(".wh.")) return;
    auto where = now_;
    for (auto const& part : parents) where = where->names[part];
    if (name == ".wh..wh..opq") {
      keep_own(where);
    } else if (auto const found = where->names.find(name.substr(4)); found != where->names.end()) {
      if (!keep_own(found->second)) where->names.erase(found);
    }
  }

  /// First all that the layer takes away from those below...
  void remove(std::string const& path) {
    auto const [parents, name] = cut(path);
    if (!name.starts_with(".wh.")) return;
    auto where = root_;
    for (auto const& part : parents) {
      if (!where->names.contains(part)) return;
      where = where->names[part];
      if (where->type != tar::Type::directory) return;
    }
    if (name == ".wh..wh..opq") {
      where->names.clear();
    } else {
      where->names.erase(name.substr(4));
    }
  }

  /// ... then what it brings.
  bool add(UnpackedFilePtr where, UnpackStep const& step, UnpackedFilePtr const& file) const {
    auto const [parents, name] = cut(step.path);
    for (auto const& part : parents) {
      auto& next = where->names[part];
      if (next && next->type != tar::Type::directory && next->layer == layer_) return false;
      if (!next || next->type != tar::Type::directory) {
        next = std::make_shared<UnpackedFile>(UnpackedFile{tar::Type::directory, 0, layer_, {}});
      }
      where = next;
    }
    if (name.starts_with(".wh.")) return true;
    auto& place = where->names[name];
    if (file) {
      place = file;
    } else if (place && place->type == tar::Type::directory) {
      place->stamp = step.stamp;
    } else {
      place = std::make_shared<UnpackedFile>(UnpackedFile{step.type, step.stamp, layer_, {}});
    }
    return true;
  }

  UnpackedFilePtr root_ = std::make_shared<UnpackedFile>();
  UnpackedFilePtr now_;  // as root_, but each whiteout only takes effect when its turn comes
  std::size_t layer_ = 0;
};

/// Path to type, stamp and the first path of the same file.
using UnpackedListing = std::map<std::string, std::tuple<tar::Type, unsigned, std::string>>;

namespace detail {

inline void list(UnpackedFilePtr const& file, std::string const& path,
                 std::map<UnpackedFile*, std::string>& first, UnpackedListing& out) {
  auto const known = first.try_emplace(file.get(), path).first->second;
  out[path] = {file->type, file->stamp, known};
  for (auto const& [name, child] : file->names) list(child, path + "/" + name, first, out);
}

inline void demand(bool condition, std::string const& path) {
  if (!condition) throw std::logic_error("merged tree: " + path);
}

inline void list(tarindex::Merged const& merged, erofs::NodeId id, std::string const& path,
                 std::map<erofs::NodeId, std::string>& first, UnpackedListing& out) {
  auto const& node = merged.tree[id];
  auto const known = first.try_emplace(id, path).first->second;
  auto const type = node.kind == erofs::Kind::directory ? tar::Type::directory
                    : node.kind == erofs::Kind::regular ? tar::Type::regular
                                                        : tar::Type::fifo;
  auto const stamp = static_cast<unsigned>(node.mtime.seconds);
  out[path] = {type, stamp, known};
  if (auto const* const file = node.regular()) {  // its data are where its own layer has them
    demand(file->extents.size() == 1, path);
    demand(merged.layers.at(file->extents[0].device - 1) == stamp / 1000 - 1, path);
    demand(file->extents[0].device_offset == stamp * 512u, path);
  }
  auto const* const directory = node.directory();
  if (directory == nullptr) return;
  demand(!directory->opaque, path);
  demand(!directory->implied || (stamp == 0 && node.permissions == 0755), path);
  for (auto const& [name, child] : directory->children) {
    demand(merged.tree[child].kind != erofs::Kind::whiteout, path + "/" + name);
    list(merged, child, path + "/" + name, first, out);
  }
}

}  // namespace detail

/// What unpacking has left.
[[nodiscard]] inline UnpackedListing listing_of(LayerUnpacker const& unpacker) {
  UnpackedListing out;
  std::map<UnpackedFile*, std::string> first;
  detail::list(unpacker.root(), "", first, out);
  return out;
}

/// A merge of layers of such members: layer i has the stamps from 1000 * (i + 1) on.
/// @throws std::logic_error  for a mark, or data that are not those of the file's layer
[[nodiscard]] inline UnpackedListing listing_of(tarindex::Merged const& merged) {
  UnpackedListing out;
  std::map<erofs::NodeId, std::string> first;
  detail::list(merged, erofs::root_id, "", first, out);
  return out;
}

/// The member as an archive has it as its `number`th, from 0.
[[nodiscard]] inline tar::Entry entry_of(UnpackStep const& step, std::size_t number) {
  tar::Entry entry;
  entry.header_offset = number * 512;
  entry.type = step.type;
  entry.path = step.path;
  entry.link = step.link;
  entry.mode = 0755;
  entry.mtime.seconds = step.stamp;
  if (step.type == tar::Type::regular) {
    entry.size = 512;
    entry.extents = {{0, step.stamp * 512u, 512}};
  }
  return entry;
}

}  // namespace erofs_oci::testing
