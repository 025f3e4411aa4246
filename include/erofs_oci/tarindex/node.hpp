// SPDX-License-Identifier: Apache-2.0
/// @file
/// node_of: a tar member as a node of a tree, and what EROFS cannot hold of it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include <erofs_oci/core/result.hpp>
#include <erofs_oci/erofs/tree.hpp>
#include <erofs_oci/tar/entry.hpp>

namespace erofs_oci::tarindex {

/// Largest value of an extended attribute, in bytes.
inline constexpr std::size_t max_xattr_value = 65535;

/// Most bytes that the attributes of one file take in an image.
/// @spec{tarindex image format, Extended attributes}
inline constexpr std::size_t max_xattr_area = 262148;

namespace detail {

/// The name behind the namespace's prefix. Empty optional: no namespace that an image can hold.
[[nodiscard]] inline std::optional<std::string_view> xattr_suffix(std::string_view name) noexcept {
  if (name == "system.posix_acl_access" || name == "system.posix_acl_default") return "";
  for (std::string_view const prefix : {"user.", "trusted.", "security."}) {
    if (name.starts_with(prefix) && name.size() > prefix.size()) return name.substr(prefix.size());
  }
  return std::nullopt;
}

[[nodiscard]] inline Result<void> set_xattrs(erofs::Node& node, tar::Entry&& entry,
                                             tar::Reports& reports) {
  std::size_t area = 12;
  for (auto& [name, value] : entry.xattrs) {
    auto const suffix = xattr_suffix(name);
    if (!suffix) {
      reports.add(entry.header_offset, "member " + tar::printable(entry.path) +
                                           ": attribute left out: " + tar::printable(name));
      continue;
    }
    if (suffix->size() > 255 || value.size() > max_xattr_value) {
      return fail(Errc::unsupported, "attribute " + tar::printable(name) + " of " +
                                         std::to_string(value.size()) + " bytes");
    }
    area += (4 + suffix->size() + value.size() + 3) / 4 * 4;
    node.xattrs.push_back({std::move(name), std::move(value)});
  }
  if (area > max_xattr_area) {
    return fail(Errc::unsupported, "attributes of " + std::to_string(area) + " bytes in all");
  }
  return {};
}

/// An image addresses data in blocks of 512 bytes: a run must begin on one in the file and in the
/// archive, and may end inside one only where the file ends or the rest of the block is zeros.
[[nodiscard]] inline Result<void> set_extents(erofs::Regular& file, tar::Entry const& entry,
                                              std::uint32_t device) {
  file.size = entry.size;
  file.clean_padding = entry.clean_padding;
  for (auto const& [file_offset, tar_offset, length] : entry.extents) {
    auto const last = &entry.extents.back().length == &length;
    auto const may_end_inside = last && (file_offset + length == entry.size || entry.clean_padding);
    if (file_offset % tar::block_size != 0 || tar_offset % tar::block_size != 0 ||
        (length % tar::block_size != 0 && !may_end_inside)) {
      return fail(Errc::unsupported, "sparse segment of " + std::to_string(length) + " bytes at " +
                                         std::to_string(file_offset) +
                                         ": not in whole blocks of 512");
    }
    file.extents.push_back({file_offset, length, device, tar_offset});
  }
  return {};
}

[[nodiscard]] constexpr erofs::Kind kind_of(tar::Type type) noexcept {
  switch (type) {
    case tar::Type::directory: return erofs::Kind::directory;
    case tar::Type::symlink: return erofs::Kind::symlink;
    case tar::Type::char_device: return erofs::Kind::char_device;
    case tar::Type::block_device: return erofs::Kind::block_device;
    case tar::Type::fifo: return erofs::Kind::fifo;
    case tar::Type::regular:
    case tar::Type::hard_link: break;
  }
  return erofs::Kind::regular;
}

}  // namespace detail

/// The node that a member, other than a hard link, describes.
/// @param device   where its data are: the number for its extents
/// @param reports  takes attributes that are left out, because no image can hold their namespace
/// @error{Errc::unsupported, an attribute\, device number or sparse segment that no image can hold}
[[nodiscard]] inline Result<erofs::Node> node_of(tar::Entry&& entry, std::uint32_t device,
                                                 tar::Reports& reports) {
  auto node = erofs::make_node(detail::kind_of(entry.type));
  node.permissions = static_cast<std::uint16_t>(entry.mode & 07777);
  node.uid = entry.uid;
  node.gid = entry.gid;
  node.mtime = {entry.mtime.seconds, entry.mtime.nanoseconds};
  if (auto* const file = node.regular()) {
    if (auto ok = detail::set_extents(*file, entry, device); !ok) return fail(ok.error());
  }
  if (node.kind == erofs::Kind::symlink) node.content = erofs::Symlink{entry.link};
  if (node.device() != nullptr) {
    if (entry.dev_major > 0xfff || entry.dev_minor > 0xfffff) {
      return fail(Errc::unsupported, "device number " + std::to_string(entry.dev_major) + ":" +
                                         std::to_string(entry.dev_minor));
    }
    node.content = erofs::DeviceNumber{entry.dev_major, entry.dev_minor};
  }
  if (auto ok = detail::set_xattrs(node, std::move(entry), reports); !ok) return fail(ok.error());
  return node;
}

}  // namespace erofs_oci::tarindex
