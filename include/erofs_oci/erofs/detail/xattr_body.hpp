// SPDX-License-Identifier: Apache-2.0
/// @file
/// What erofs/xattr.hpp only declares.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/config.hpp>
#include <erofs_oci/core/endian.hpp>
#include <erofs_oci/core/function_ref.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/erofs/xattr.hpp>

namespace erofs_oci::erofs {

EROFS_OCI_BODY Result<void> for_each_xattr(std::span<std::byte const> area,
                                           FunctionRef<bool(std::uint32_t)> shared,
                                           FunctionRef<bool(XattrView)> entry) {
  if (area.size() < XattrHeader::on_disk_size) return fail(Errc::corrupt, "xattr area too short");
  auto const header = XattrHeader::decode(area.first<XattrHeader::on_disk_size>());
  std::size_t at = XattrHeader::on_disk_size + std::size_t{4} * header.shared;
  if (at > area.size()) return fail(Errc::corrupt, "shared xattr ids leave their area");
  for (std::size_t i = 0; i < header.shared; ++i) {
    auto const id = area.subspan(XattrHeader::on_disk_size + 4 * i).first<4>();
    if (!shared(load_le<std::uint32_t>(id))) return {};
  }
  while (at < area.size()) {
    auto const rest = area.subspan(at);
    if (rest.size() < XattrEntry::on_disk_size) {
      return fail(Errc::corrupt, "xattr entries end inside their area, at " + std::to_string(at));
    }
    auto const head = XattrEntry::decode(rest.first<XattrEntry::on_disk_size>());
    if (head.padded_size() > rest.size()) {
      return fail(Errc::corrupt, "xattr entry at " + std::to_string(at) + " leaves its area");
    }
    auto const name = rest.subspan(XattrEntry::on_disk_size, head.name_size);
    auto const value = rest.subspan(XattrEntry::on_disk_size + head.name_size, head.value_size);
    if (!entry({head.prefix, as_text(name), value})) return {};
    at += head.padded_size();
  }
  return {};
}

}  // namespace erofs_oci::erofs
