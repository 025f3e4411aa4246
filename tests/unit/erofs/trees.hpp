// SPDX-License-Identifier: Apache-2.0
// Generated trees, and what a file system made of one must show: the oracle of Writer and Reader.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <ostream>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/erofs/inode.hpp>
#include <erofs_oci/erofs/tree.hpp>
#include <erofs_oci/erofs/write_options.hpp>
#include <erofs_oci/testing/generators.hpp>

namespace erofs_oci::erofs::test {

/// What can be seen of one path of a mounted file system.
struct Seen {
  unsigned mode = 0;
  std::uint64_t uid = 0, gid = 0;
  std::int64_t seconds = 0;
  std::uint32_t nanoseconds = 0;
  std::uint64_t links = 0;
  std::uint64_t size = 0;  // 0 for directories
  std::uint32_t major = 0, minor = 0;
  std::string target;
  std::map<std::string, std::string> xattrs;
  std::string first_name;  // the first path of the same inode
  std::string content;     // the bytes at `probes`

  friend bool operator==(Seen const&, Seen const&) = default;

  friend std::ostream& operator<<(std::ostream& out, Seen const& s) {
    out << std::oct << s.mode << std::dec << ' ' << s.uid << ':' << s.gid << ' ' << s.seconds << '.'
        << s.nanoseconds << " links " << s.links << " size " << s.size << " dev " << s.major << ':'
        << s.minor << " target " << s.target.size() << " content "
        << std::hash<std::string>{}(s.content) << " first " << hex(as_bytes(s.first_name));
    for (auto const& [name, value] : s.xattrs) out << ' ' << name << '=' << value.size();
    return out;
  }
};

using SeenTree = std::map<std::string, Seen>;

/// Where to look at a file: all of a small one, the borders of a large one.
inline std::vector<std::pair<std::uint64_t, std::uint64_t>> probes(Regular const& file) {
  if (file.size <= 1 << 20) return {{0, file.size}};
  std::set<std::uint64_t> places{0, file.size};
  for (auto const& extent : file.extents) {
    places.insert(extent.file_offset);
    places.insert(extent.file_offset + extent.length);
  }
  std::vector<std::pair<std::uint64_t, std::uint64_t>> list;
  for (auto const place : places) {
    auto const begin = place < 32 ? 0 : place - 32;
    list.emplace_back(begin, std::min<std::uint64_t>(64, file.size - begin));
  }
  return list;
}

/// The bytes [offset, offset + length) of a file, put together the dull way.
inline std::string bytes_of(Regular const& file, std::vector<Bytes> const& devices,
                            std::uint64_t offset, std::uint64_t length) {
  std::string bytes(static_cast<std::size_t>(length), '\0');
  for (auto const& extent : file.extents) {
    for (auto at = std::max(offset, extent.file_offset);
         at < std::min(offset + length, extent.file_offset + extent.length); ++at) {
      auto const& device = extent.device == 0 ? file.stored : devices[extent.device - 1];
      bytes[static_cast<std::size_t>(at - offset)] = static_cast<char>(
          device[static_cast<std::size_t>(extent.device_offset + (at - extent.file_offset))]);
    }
  }
  return bytes;
}

inline unsigned st_type(Kind kind) {
  switch (kind) {
    case Kind::regular: return mode::regular;
    case Kind::directory: return mode::directory;
    case Kind::symlink: return mode::symlink;
    case Kind::block_device: return mode::block_device;
    case Kind::fifo: return mode::fifo;
    case Kind::socket: return mode::socket;
    case Kind::char_device:
    case Kind::whiteout: break;
  }
  return mode::char_device;
}

/// What a mount of the tree must show.
class Oracle {
 public:
  Oracle(Tree const& tree, std::vector<Bytes> const& devices, Marks marks)
      : tree_(tree), devices_(devices), marks_(marks) {
    add("", root_id);
    for (auto& [path, seen] : all_) {
      if ((seen.mode & mode::type_mask) != mode::directory) seen.links = names_[ids_[path]];
    }
  }

  [[nodiscard]] SeenTree const& all() const { return all_; }

 private:
  void add(std::string const& path, NodeId id) {
    auto const& node = tree_[id];
    ++names_[id];
    ids_[path] = id;
    first_.emplace(id, path);
    auto& s = all_[path];
    s.mode = st_type(node.kind) | node.permissions;
    s.uid = node.uid;
    s.gid = node.gid;
    s.seconds = node.mtime.seconds;
    s.nanoseconds = node.mtime.nanoseconds;
    s.first_name = first_[id];
    for (auto const& xattr : node.xattrs) {
      if (split_name(xattr.name)) s.xattrs[xattr.name] = as_text(xattr.value);
    }
    if (auto const* const link = node.symlink()) {
      s.target = link->target;
      s.size = s.target.size();
    }
    if (auto const* const device = node.device()) {
      s.major = device->major;
      s.minor = device->minor;
    }
    if (auto const* const file = node.regular()) {
      s.size = file->size;
      for (auto const& [offset, length] : probes(*file)) {
        s.content += bytes_of(*file, devices_, offset, length);
      }
    }
    if (auto const* const directory = node.directory()) add_directory(path, *directory, s);
  }

  void add_directory(std::string const& path, Directory const& directory, Seen& s) {
    s.links = 2;
    auto const prefix = marks_ == Marks::user ? "user.overlay." : "trusted.overlay.";
    if (directory.opaque && marks_ != Marks::drop) s.xattrs[prefix + std::string("opaque")] = "y";
    for (auto const& [name, child] : directory.children) {
      auto const kind = tree_[child].kind;
      if (kind == Kind::whiteout) {
        if (marks_ == Marks::drop) continue;
        s.xattrs[prefix + std::string("origin")] = "";
      }
      if (kind == Kind::directory) ++s.links;
      add(path + "/" + name, child);
    }
  }

  Tree const& tree_;
  std::vector<Bytes> const& devices_;
  Marks marks_;
  SeenTree all_;
  std::map<NodeId, std::uint64_t> names_;
  std::map<NodeId, std::string> first_;
  std::map<std::string, NodeId> ids_;
};

/// A generated tree and the devices that its files lie on.
struct Made {
  Tree tree;
  std::vector<Bytes> bytes;
  std::vector<Device> devices;
};

/// Makes trees from a seed, the awkward cases among them.
class TreeMaker {
 public:
  TreeMaker(std::uint64_t seed, std::size_t entries) : random_(seed), entries_(entries) {}

  Made make() {
    for (std::size_t i = 0; i < 3; ++i) {
      auto const blocks = 1 + below(40);
      made_.bytes.push_back(testing::patterned_bytes(static_cast<std::size_t>(blocks * 512), i));
      made_.devices.push_back({blocks, i == 0 ? "" : std::string(64, static_cast<char>('a' + i))});
    }
    decorate(made_.tree.root());
    made_.tree.root().directory()->implied = chance(2);
    std::vector<NodeId> directories{root_id};
    for (std::size_t i = 0; i < entries_; ++i) {
      // A quarter of the entries goes to the newest directory, so that there are deep ones.
      auto const parent = chance(4) ? directories.back() : directories[below(directories.size())];
      if (!others_.empty() && chance(8)) {
        made_.tree.link(parent, fresh_name(parent), others_[below(others_.size())]);
        continue;
      }
      auto const id = made_.tree.add(parent, fresh_name(parent), node());
      (made_.tree[id].directory() != nullptr ? directories : others_).push_back(id);
    }
    return std::move(made_);
  }

 private:
  std::uint64_t below(std::uint64_t limit) { return random_() % limit; }
  bool chance(std::uint64_t one_in) { return below(one_in) == 0; }

  std::string fresh_name(NodeId parent) {
    for (;;) {
      auto const length = chance(20) ? 255 : chance(4) ? 1 + below(255) : 1 + below(12);
      std::string name;
      auto const plain = !chance(3);
      while (name.size() < length) {
        auto const c = static_cast<char>(plain ? 'a' + below(26) : 1 + below(255));
        if (c != '/') name += c;
      }
      if (name != "." && name != ".." && made_.tree.find(parent, name) == nullptr) return name;
    }
  }

  Time time() {
    switch (below(8)) {
      case 0: return {1'700'000'000, static_cast<std::uint32_t>(1 + below(999'999'999))};
      case 1: return {-static_cast<std::int64_t>(below(1u << 31)), 750'000'000};
      case 2: return {static_cast<std::int64_t>(1 + below(std::uint64_t{1} << 33)), 0};
      default: return {1'700'000'000, 0};
    }
  }

  /// Attributes that overlayfs knows, whatever they are of.
  void lookalikes(Node& node, std::set<std::string>& names) {
    // Linux knows user xattrs only on files and directories.
    auto const linked = node.regular() == nullptr && node.directory() == nullptr;
    std::string const space = linked || chance(2) ? "trusted." : "user.";
    for (auto const* const name : {"overlay.opaque", "overlay.origin", "overlay.redirect"}) {
      static constexpr std::array<char const*, 4> values{"", "y", "x", "/some/where"};
      if (chance(2)) continue;
      names.insert(space + name);
      node.xattrs.push_back({space + name, to_bytes(values[below(values.size())])});
    }
  }

  void decorate(Node& node) {
    node.permissions = static_cast<std::uint16_t>(below(010000));
    node.uid = chance(6) ? static_cast<std::uint32_t>(below(0xFFFFFFFF)) : 0;
    node.gid = chance(6) ? static_cast<std::uint32_t>(below(70000)) : 0;
    node.mtime = time();
    std::set<std::string> names;
    if (chance(4)) lookalikes(node, names);
    if (!chance(4)) return;
    for (auto i = below(4) + 1; i > 0; --i) {
      static constexpr std::array<char const*, 3> spaces{"user.", "trusted.", "security."};
      auto const length = chance(10) ? 200 : 1 + below(20);
      std::string name = spaces[below(spaces.size())];
      // Linux knows user xattrs only on files and directories.
      if (node.regular() == nullptr && node.directory() == nullptr) name = "trusted.";
      for (std::uint64_t k = 0; k < length; ++k) name += static_cast<char>('a' + below(26));
      if (!names.insert(name).second) continue;
      auto const size = chance(30) ? 60000 : chance(5) ? below(700) : below(30);
      node.xattrs.push_back({name, testing::patterned_bytes(static_cast<std::size_t>(size), size)});
    }
  }

  Node node() {
    static constexpr std::array kinds{Kind::regular,     Kind::regular,      Kind::regular,
                                      Kind::directory,   Kind::directory,    Kind::symlink,
                                      Kind::char_device, Kind::block_device, Kind::fifo,
                                      Kind::socket,      Kind::whiteout};
    auto made = make_node(kinds[below(kinds.size())]);
    decorate(made);
    if (auto* const directory = made.directory()) {
      directory->implied = chance(3);
      directory->opaque = chance(5);
    }
    if (made.kind == Kind::symlink) {
      auto const length = chance(5) ? 1 + below(4095) : 1 + below(40);
      made.content = Symlink{std::string(static_cast<std::size_t>(length), 't')};
      made.permissions = 0777;
    }
    if (made.device() != nullptr) {
      auto const zero = chance(4);  // as a whiteout has it
      made.content = DeviceNumber{zero ? 0 : static_cast<std::uint32_t>(1 + below(0xfff)),
                                  zero ? 0 : static_cast<std::uint32_t>(below(0x100000))};
    }
    if (auto* const file = made.regular()) *file = regular();
    return made;
  }

  [[nodiscard]] std::uint64_t blocks_of(std::uint64_t device) const {
    return made_.devices[static_cast<std::size_t>(device - 1)].blocks;
  }

  Regular regular() {
    Regular file;
    auto at = chance(3) ? below(64) * 512 : 0;
    for (auto left = chance(4) ? below(4) : 1; left > 0; --left) {
      auto const device = below(made_.devices.size() + 1);  // 0: the image itself
      auto const first = device == 0 ? file.stored.size() / 512 : below(blocks_of(device));
      auto const length = (1 + below(device == 0 ? 5 : blocks_of(device) - first)) * 512;
      file.extents.push_back({at, length, static_cast<std::uint32_t>(device), first * 512});
      for (auto i = device == 0 ? length : 0; i > 0; --i) {
        file.stored.push_back(static_cast<std::byte>(below(256)));
      }
      at += length;
      if (left > 1) at += below(8) * 512;
    }
    if (file.extents.empty()) {
      file.size = below(5000);
    } else if (chance(2)) {
      auto& last = file.extents.back();
      auto const cut = below(512);
      last.length -= cut;
      file.size = at - cut;
      if (last.device == 0) std::fill_n(file.stored.rbegin(), cut, std::byte{0});
    } else {
      file.size = at + (chance(4) ? below(1u << 20) : 0);
    }
    return file;
  }

  std::mt19937_64 random_;
  std::size_t entries_;
  Made made_;
  std::vector<NodeId> others_;
};

}  // namespace erofs_oci::erofs::test
