// SPDX-License-Identifier: Apache-2.0
/// @file
/// What erofs/directory.hpp only declares.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/config.hpp>
#include <erofs_oci/core/endian.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/erofs/directory.hpp>
#include <erofs_oci/erofs/format.hpp>

namespace erofs_oci::erofs {

EROFS_OCI_BODY Result<DirBlock> DirBlock::parse(std::span<std::byte const> bytes) {
  if (bytes.size() < Dirent::on_disk_size) return fail(Errc::corrupt, "no room for an entry");
  auto const first = Dirent::decode(bytes.first<Dirent::on_disk_size>()).name_offset;
  if (first == 0 || first % Dirent::on_disk_size != 0 || first >= bytes.size()) {
    return fail(Errc::corrupt, "first name at offset " + std::to_string(first));
  }
  DirBlock const block(bytes, first / Dirent::on_disk_size);
  for (std::size_t i = 0; i < block.count(); ++i) {
    if (auto const why = block.problem(i); !why.empty()) {
      return fail(Errc::corrupt, "entry " + std::to_string(i) + ": " + std::string(why));
    }
  }
  return block;
}

EROFS_OCI_BODY std::size_t DirBlock::lower_bound(std::string_view name) const noexcept {
  std::size_t low = 0;
  std::size_t high = count_;
  while (low < high) {
    auto const middle = low + (high - low) / 2;
    if ((*this)[middle].name < name) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

EROFS_OCI_BODY std::size_t DirBlock::name_end(std::size_t i) const noexcept {
  if (i + 1 < count_) return raw(i + 1).name_offset;
  auto const start = raw(i).name_offset;
  if (start >= bytes_.size()) return bytes_.size();
  auto const rest = bytes_.subspan(start);
  return start + static_cast<std::size_t>(std::ranges::find(rest, std::byte{0}) - rest.begin());
}

EROFS_OCI_BODY std::string_view DirBlock::problem(std::size_t i) const noexcept {
  auto const start = raw(i).name_offset;
  auto const end = name_end(i);
  if (end > bytes_.size() || start >= bytes_.size()) return "its name leaves the block";
  if (start >= end) return "its name is empty or begins after the next one";
  if (end - start > max_name_length) return "its name is longer than 255 bytes";
  auto const name = as_text(bytes_.subspan(start, end - start));
  auto const whole = name.find('\0') == name.npos && name.find('/') == name.npos;
  return whole ? "" : "its name holds NUL or /";
}

}  // namespace erofs_oci::erofs
