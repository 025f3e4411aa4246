// SPDX-License-Identifier: Apache-2.0
/// @file
/// What erofs/tree.hpp only declares.
#pragma once

#include <cassert>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

#include <erofs_oci/core/config.hpp>
#include <erofs_oci/erofs/tree.hpp>

namespace erofs_oci::erofs {

namespace detail {

/// What an allocation takes besides its bytes.
inline constexpr std::uint64_t allocation = 16;

/// What a text takes besides its own size: short ones lie in the object.
[[nodiscard]] inline std::uint64_t text_heap_size(std::string_view text) noexcept {
  return text.size() < sizeof(std::string) / 2 ? 0 : text.size() + allocation;
}

}  // namespace detail

EROFS_OCI_BODY std::uint64_t heap_size(Node const& node) noexcept {
  std::uint64_t bytes = 0;
  for (auto const& [name, value] : node.xattrs) {
    bytes += sizeof(Xattr) + detail::text_heap_size(name) + value.size() + detail::allocation;
  }
  if (auto const* const link = node.symlink()) bytes += detail::text_heap_size(link->target);
  if (auto const* const file = node.regular(); file != nullptr && !file->extents.empty()) {
    bytes += 2 * detail::allocation + sizeof(Extent) * file->extents.size() + file->stored.size();
  }
  return bytes;
}

EROFS_OCI_BODY std::uint64_t entry_size(std::string_view name) noexcept {
  constexpr std::uint64_t links = 32;  // of a node of std::map
  return detail::allocation + links + sizeof(Children::value_type) + detail::text_heap_size(name);
}

EROFS_OCI_BODY Node make_node(Kind kind) {
  Node node;
  node.kind = kind;
  if (kind != Kind::directory) node.permissions = 0644;
  switch (kind) {
    case Kind::regular: node.content = Regular{}; break;
    case Kind::directory: node.content = Directory{}; break;
    case Kind::symlink: node.content = Symlink{}; break;
    case Kind::char_device:
    case Kind::block_device: node.content = DeviceNumber{}; break;
    case Kind::fifo:
    case Kind::socket:
    case Kind::whiteout: node.content = std::monostate{}; break;
  }
  return node;
}

EROFS_OCI_BODY NodeId Tree::add(NodeId parent, std::string name, Node node) {
  auto const id = add(std::move(node));
  link(parent, std::move(name), id);
  return id;
}

EROFS_OCI_BODY bool Tree::unlink(NodeId parent, std::string_view name) {
  assert(nodes_[parent].directory() != nullptr);
  return nodes_[parent].directory()->children.erase(std::string(name)) != 0;
}

EROFS_OCI_BODY NodeId const* Tree::find(NodeId parent, std::string_view name) const {
  auto const* const directory = nodes_[parent].directory();
  if (directory == nullptr) return nullptr;
  auto const found = directory->children.find(name);
  return found == directory->children.end() ? nullptr : &found->second;
}

}  // namespace erofs_oci::erofs
