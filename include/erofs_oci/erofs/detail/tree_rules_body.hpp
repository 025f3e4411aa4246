// SPDX-License-Identifier: Apache-2.0
/// @file
/// What erofs/tree_rules.hpp only declares.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <erofs_oci/core/arithmetic.hpp>
#include <erofs_oci/core/config.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/erofs/format.hpp>
#include <erofs_oci/erofs/tree.hpp>
#include <erofs_oci/erofs/tree_rules.hpp>
#include <erofs_oci/erofs/xattr.hpp>

namespace erofs_oci::erofs {
namespace detail {

[[nodiscard]] inline Result<void> check_extent(Regular const& file, Extent const& extent,
                                               std::uint64_t previous_end,
                                               std::span<Device const> devices) {
  auto const where = "extent at " + std::to_string(extent.file_offset);
  if (extent.length == 0 || extent.file_offset < previous_end || extent.file_offset > file.size ||
      extent.length > file.size - extent.file_offset) {
    return fail(Errc::invalid_argument, where + " is empty, out of order, or leaves the file");
  }
  if (extent.device > devices.size()) {
    return fail(Errc::invalid_argument, where + " is on device " + std::to_string(extent.device));
  }
  auto const room = extent.device == 0 ? std::optional<std::uint64_t>(file.stored.size())
                                       : checked_mul(devices[extent.device - 1].blocks, block_size);
  if (!room || extent.device_offset > *room || extent.length > *room - extent.device_offset) {
    return fail(Errc::invalid_argument, where + " leaves its device");
  }
  auto const end = extent.file_offset + extent.length;
  auto const cut = end != file.size && end % block_size != 0;
  if (extent.file_offset % block_size != 0 || extent.device_offset % block_size != 0 || cut) {
    return fail(Errc::unsupported, where + " does not fill blocks of 512 bytes");
  }
  return {};
}

[[nodiscard]] inline Result<void> check_regular(Regular const& file,
                                                std::span<Device const> devices) {
  if (file.size >> 63 != 0) return fail(Errc::invalid_argument, "size of 2^63 or more");
  if (file.stored.size() % block_size != 0) {
    return fail(Errc::invalid_argument, "stored bytes that are no whole blocks");
  }
  std::uint64_t end = 0;
  for (auto const& extent : file.extents) {
    if (auto const ok = check_extent(file, extent, end, devices); !ok) return ok;
    end = extent.file_offset + extent.length;
  }
  return {};
}

EROFS_OCI_BODY Result<void> check_xattrs(std::vector<Xattr> const& xattrs) {
  std::vector<std::string_view> names;
  std::size_t area = XattrHeader::on_disk_size;
  for (auto const& xattr : xattrs) {
    auto const stored = split_name(xattr.name);
    if (!stored) continue;  // left out
    if (stored->rest.size() > max_xattr_name || xattr.value.size() > max_xattr_value ||
        xattr.name.find('\0') != std::string::npos) {
      return fail(Errc::invalid_argument, "xattr '" + xattr.name.substr(0, 300) + "' of " +
                                              std::to_string(xattr.value.size()) +
                                              " bytes is too large, or holds NUL");
    }
    names.push_back(xattr.name);
    area += (XattrEntry::on_disk_size + stored->rest.size() + xattr.value.size() + 3) / 4 * 4;
  }
  if (area > max_xattr_area) {
    return fail(Errc::invalid_argument, "xattrs of more than 262148 bytes together");
  }
  std::ranges::sort(names);
  auto const twice = std::ranges::adjacent_find(names);
  if (twice == names.end()) return {};
  return fail(Errc::invalid_argument, "two xattrs '" + std::string(*twice) + "'");
}

}  // namespace detail

EROFS_OCI_BODY Result<void> check_node(Node const& node, std::span<Device const> devices) {
  auto const refuse = [](char const* why) { return fail(Errc::invalid_argument, why); };
  if (node.content.index() != make_node(node.kind).content.index()) {
    return refuse("kind and content differ");
  }
  if (node.permissions > 07777) return refuse("permissions above 07777");
  if (node.mtime.nanoseconds >= 1'000'000'000) return refuse("nanoseconds of a second or more");
  if (auto const* const link = node.symlink(); link != nullptr && !is_valid_target(link->target)) {
    return refuse("a link's target is empty, longer than 4095 bytes, or holds NUL");
  }
  if (auto const* const number = node.device();
      number != nullptr && (number->major > 0xfff || number->minor > 0xfffff)) {
    return refuse("device number above 4095:1048575");
  }
  if (auto const* const file = node.regular()) {
    if (auto const ok = detail::check_regular(*file, devices); !ok) return ok;
  }
  return node.xattrs.empty() ? Result<void>() : detail::check_xattrs(node.xattrs);
}

}  // namespace erofs_oci::erofs
