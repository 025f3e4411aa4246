// SPDX-License-Identifier: Apache-2.0
/// @file
/// Tree: a file system as a value. A tar, a merge or an image makes one; the Writer takes it.
#pragma once

#include <cassert>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include <erofs_oci/core/bytes.hpp>

namespace erofs_oci::erofs {

/// A point in time: `seconds` since 1970, rounded down, and `nanoseconds` in [0, 1e9) after that.
struct Time {
  std::int64_t seconds = 0;
  std::uint32_t nanoseconds = 0;

  friend auto operator<=>(Time const&, Time const&) = default;
};

/// An extended attribute: full name ("user.x"), raw value.
struct Xattr {
  std::string name;
  Bytes value;

  friend bool operator==(Xattr const&, Xattr const&) = default;
};

/// A run of a file's content. What no extent covers is a hole and reads as zeros.
struct Extent {
  std::uint64_t file_offset = 0;    ///< where the run lies in the file, in bytes
  std::uint64_t length = 0;         ///< bytes, never 0
  std::uint32_t device = 0;         ///< 1 = first device; 0 = the image itself
  std::uint64_t device_offset = 0;  ///< where it lies on that device; if 0, in Regular::stored

  friend bool operator==(Extent const&, Extent const&) = default;
};

/// What a node is.
enum class Kind : std::uint8_t {
  regular,
  directory,
  symlink,
  char_device,
  block_device,
  fifo,
  socket,
  whiteout,  ///< hides the name in lower layers; no file of its own
};

/// Names a node of one Tree; the root is 0. Two entries with one id are hard links.
using NodeId = std::uint32_t;

/// The root's id, in every tree.
inline constexpr NodeId root_id = 0;

/// Entries of a directory: unsigned byte order, which is what std::string compares by.
using Children = std::map<std::string, NodeId, std::less<>>;

/// A directory.
struct Directory {
  Children children;     ///< without "." and ".."
  bool implied = false;  ///< no member described it: it is only the parent of another one
  bool opaque = false;   ///< hides what lower layers have under its name

  friend bool operator==(Directory const&, Directory const&) = default;
};

/// A regular file.
struct Regular {
  std::uint64_t size = 0;       ///< bytes, holes included; at most 2^63 - 1
  std::vector<Extent> extents;  ///< ascending in the file, apart from each other, within `size`
  Bytes stored;                 ///< what the image itself holds of the content, in whole blocks

  friend bool operator==(Regular const&, Regular const&) = default;
};

/// A symbolic link.
struct Symlink {
  std::string target;  ///< 1 to 4095 bytes, no NUL

  friend bool operator==(Symlink const&, Symlink const&) = default;
};

/// A character or block device.
struct DeviceNumber {
  std::uint32_t major = 0;  ///< at most 0xfff: what the on-disk form holds
  std::uint32_t minor = 0;  ///< at most 0xfffff

  friend bool operator==(DeviceNumber const&, DeviceNumber const&) = default;
};

/// A file of any kind, without its names.
///
/// `content` fits `kind`: Regular, Directory and Symlink for those; DeviceNumber for both kinds of
/// device; none for the rest.
struct Node {
  using Content = std::variant<std::monostate, Regular, Directory, Symlink, DeviceNumber>;

  Kind kind = Kind::directory;
  std::uint16_t permissions = 0755;  ///< the low 12 bits of st_mode
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  Time mtime;
  std::vector<Xattr> xattrs;  ///< unique names, any order
  Content content = Directory{};

  /// @name The content, if it is of that kind; else null.
  /// @{

  [[nodiscard]] Directory* directory() noexcept { return std::get_if<Directory>(&content); }
  [[nodiscard]] Directory const* directory() const noexcept {
    return std::get_if<Directory>(&content);
  }
  [[nodiscard]] Regular* regular() noexcept { return std::get_if<Regular>(&content); }
  [[nodiscard]] Regular const* regular() const noexcept { return std::get_if<Regular>(&content); }
  [[nodiscard]] Symlink const* symlink() const noexcept { return std::get_if<Symlink>(&content); }
  [[nodiscard]] DeviceNumber const* device() const noexcept {
    return std::get_if<DeviceNumber>(&content);
  }
  /// @}

  friend bool operator==(Node const&, Node const&) = default;
};

/// About how many bytes a node takes besides its own size and a directory's children: attributes,
/// link target, extents.
[[nodiscard]] std::uint64_t heap_size(Node const& node) noexcept;

/// About how many bytes an entry of a directory takes.
[[nodiscard]] std::uint64_t entry_size(std::string_view name) noexcept;

/// An empty node of a kind, with content to match and permissions 0755 (directories) or 0644.
[[nodiscard]] Node make_node(Kind kind);

/// A directory tree with hard links: nodes by id, names in the directories' children.
///
/// Nodes are never freed: one that no entry reaches any more is not part of the tree, and the
/// Writer does not see it. Link counts are not kept: the Writer counts. The Writer also checks the
/// rules (names, one parent for each directory, no cycle), so that a tree may be built in any
/// order.
///
/// A new tree is one implied, empty root directory: 0755, 0:0, time 0.
///
/// @par Memory
/// About 130 bytes a node and 100 an entry on a 64-bit machine, besides long names, targets,
/// xattrs and extents.
class Tree {
 public:
  Tree() {
    add(make_node(Kind::directory));
    nodes_.front().directory()->implied = true;
  }

  /// The root directory.
  [[nodiscard]] Node& root() noexcept { return nodes_.front(); }
  [[nodiscard]] Node const& root() const noexcept { return nodes_.front(); }

  /// A node by id. References stay valid as nodes are added.
  [[nodiscard]] Node& operator[](NodeId id) noexcept {
    assert(id < nodes_.size());
    return nodes_[id];
  }
  [[nodiscard]] Node const& operator[](NodeId id) const noexcept {
    assert(id < nodes_.size());
    return nodes_[id];
  }

  /// Adds a node that has no name yet.
  NodeId add(Node node) {
    memory_ += sizeof(Node) + heap_size(node);
    nodes_.push_back(std::move(node));
    return static_cast<NodeId>(nodes_.size() - 1);
  }

  /// Adds a node and its first name; replaces an entry of that name.
  NodeId add(NodeId parent, std::string name, Node node);

  /// Gives a node a name; replaces an entry of that name. A second name makes a hard link.
  /// @param parent  a directory
  void link(NodeId parent, std::string name, NodeId id) {
    assert(nodes_[parent].directory() != nullptr && id < nodes_.size());
    memory_ += entry_size(name);
    nodes_[parent].directory()->children.insert_or_assign(std::move(name), id);
  }

  /// Removes a name; its node keeps its other names. Yields whether there was one.
  bool unlink(NodeId parent, std::string_view name);

  /// What `name` in `parent` names; null if there is no such entry or `parent` is no directory.
  [[nodiscard]] NodeId const* find(NodeId parent, std::string_view name) const;

  /// Nodes ever added, the root and the unreachable ones included; ids are below it.
  [[nodiscard]] std::size_t size() const noexcept { return nodes_.size(); }

  /// About how many bytes were ever added: what is removed or replaced still counts, and what nodes
  /// got later does not.
  [[nodiscard]] std::uint64_t memory() const noexcept { return memory_; }

 private:
  std::deque<Node> nodes_;  // a deque: references survive add()
  std::uint64_t memory_ = 0;
};

/// A source of file data behind an image: one layer's uncompressed tar.
struct Device {
  std::uint64_t blocks = 0;  ///< its length in units of 512 bytes, rounded up
  std::string tag;           ///< at most 64 bytes; by convention the digest in hexadecimal

  friend bool operator==(Device const&, Device const&) = default;
};

}  // namespace erofs_oci::erofs

#ifndef EROFS_OCI_COMPILED
#include <erofs_oci/erofs/detail/tree_body.hpp>
#endif
