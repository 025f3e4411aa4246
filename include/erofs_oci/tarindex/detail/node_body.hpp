// SPDX-License-Identifier: Apache-2.0
/// @file
/// What tarindex/node.hpp only declares.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>

#include <erofs_oci/core/config.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/erofs/tree.hpp>
#include <erofs_oci/erofs/xattr.hpp>
#include <erofs_oci/tar/entry.hpp>
#include <erofs_oci/tarindex/node.hpp>

namespace erofs_oci::tarindex {
namespace detail {

inline void set_xattrs(erofs::Node& node, tar::Entry&& entry, tar::Reports& reports) {
  auto area = erofs::XattrHeader::on_disk_size;
  for (auto& [name, value] : entry.xattrs) {
    auto const stored = erofs::split_name(name);
    auto const rest = stored ? stored->rest.size() : 0;
    auto const size = (erofs::XattrEntry::on_disk_size + rest + value.size() + 3) / 4 * 4;
    if (!stored || rest > erofs::max_xattr_name || value.size() > erofs::max_xattr_value ||
        size > erofs::max_xattr_area - area) {
      reports.add(entry.header_offset, "member " + tar::printable(entry.path) + ": attribute " +
                                           tar::printable(name) + " of " +
                                           std::to_string(value.size()) +
                                           " bytes, which no image can hold, left out");
      continue;
    }
    area += size;
    node.xattrs.push_back({std::move(name), std::move(value)});
  }
}

/// The member's extents on `device`, but where there are copies of them.
inline void set_content(erofs::Regular& file, tar::Entry const& entry, std::uint32_t device) {
  file.size = entry.size;
  file.extents.reserve(entry.extents.size() + entry.copies.size());
  auto copy = entry.copies.begin();
  for (auto const& [file_offset, tar_offset, length] : entry.extents) {
    auto const end = file_offset + length;
    for (auto at = file_offset; at < end;) {
      while (copy != entry.copies.end() && copy->file_offset + copy->bytes.size() <= at) ++copy;
      auto const next = copy != entry.copies.end() ? copy->file_offset : end;
      if (next <= at) {
        at = next + copy->bytes.size();
        continue;
      }
      auto const stop = std::min(end, next);
      file.extents.push_back({at, stop - at, device, tar_offset + (at - file_offset)});
      at = stop;
    }
  }
  for (auto const& [file_offset, bytes] : entry.copies) {
    auto const length = std::min<std::uint64_t>(bytes.size(), file.size - file_offset);
    file.extents.push_back({file_offset, length, 0, file.stored.size()});
    file.stored.insert(file.stored.end(), bytes.begin(), bytes.end());
  }
  std::ranges::sort(file.extents, {}, &erofs::Extent::file_offset);
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

EROFS_OCI_BODY Result<erofs::Node> node_of(tar::Entry&& entry, std::uint32_t device,
                                           tar::Reports& reports) {
  auto node = erofs::make_node(detail::kind_of(entry.type));
  node.permissions = static_cast<std::uint16_t>(entry.mode & 07777);
  node.uid = entry.uid;
  node.gid = entry.gid;
  node.mtime = {entry.mtime.seconds, entry.mtime.nanoseconds};
  if (auto* const file = node.regular()) detail::set_content(*file, entry, device);
  if (node.kind == erofs::Kind::symlink) node.content = erofs::Symlink{entry.link};
  if (node.device() != nullptr) {
    if (entry.dev_major > 0xfff || entry.dev_minor > 0xfffff) {
      return fail(Errc::unsupported, "device number " + std::to_string(entry.dev_major) + ":" +
                                         std::to_string(entry.dev_minor));
    }
    node.content = erofs::DeviceNumber{entry.dev_major, entry.dev_minor};
  }
  detail::set_xattrs(node, std::move(entry), reports);
  return node;
}

}  // namespace erofs_oci::tarindex
