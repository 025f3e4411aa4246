// SPDX-License-Identifier: Apache-2.0
/// @file
/// What image/checkpoints_file.hpp only declares.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/config.hpp>
#include <erofs_oci/core/endian.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/digest/sealed_file.hpp>
#include <erofs_oci/gzip/checkpoint.hpp>
#include <erofs_oci/gzip/extra_checkpoints.hpp>
#include <erofs_oci/image/checkpoints_file.hpp>

namespace erofs_oci {
namespace detail {

inline constexpr SealedForm checkpoints_form{
    .name = "extra checkpoints",
    .magic = {std::byte{0x89}, std::byte{0x45}, std::byte{0x4f}, std::byte{0x43}, std::byte{0x0d},
              std::byte{0x0a}, std::byte{0x1a}, std::byte{0x0a}},
    .version = 2,
    .header = 16};
inline constexpr std::size_t checkpoints_record = 56;  // bytes

}  // namespace detail

EROFS_OCI_BODY Bytes encode_checkpoints(ExtraCheckpoints const& extra) {
  auto const points = extra.points();
  auto file = detail::checkpoints_form.begin();
  append_le(file, points.size(), 4);
  for (auto const& point : points) {
    append_le(file, point.start.in, 8);
    append_le(file, point.start.out, 8);
    append_le(file, point.start.bits, 4);
    append_le(file, point.packed_window.size(), 4);
    file.insert(file.end(), point.rest.bytes().begin(), point.rest.bytes().end());
  }
  for (auto const& point : points) {
    file.insert(file.end(), point.packed_window.begin(), point.packed_window.end());
  }
  detail::checkpoints_form.seal(file);
  return file;
}

EROFS_OCI_BODY Result<ExtraCheckpoints> decode_checkpoints(std::span<std::byte const> file) {
  constexpr auto const& form = detail::checkpoints_form;
  EROFS_OCI_TRY_ASSIGN(auto const content, form.open(file));
  std::size_t const count = load_le<std::uint32_t>(content.subspan<12, 4>());
  if (count > ExtraCheckpoints::most ||
      content.size() < form.header + count * detail::checkpoints_record) {
    return form.bad("too long, or cut short");
  }
  auto records = content.subspan(form.header);
  auto windows = records.subspan(count * detail::checkpoints_record);
  ExtraCheckpoints extra;
  for (std::size_t i = 0; i < count; ++i) {
    std::size_t const size = load_le<std::uint32_t>(records.subspan<20, 4>());
    auto const bits = load_le<std::uint32_t>(records.subspan<16, 4>());
    if (size > windows.size() || bits > 7) return form.bad("checkpoint " + std::to_string(i));
    Checkpoint const start{load_le<std::uint64_t>(records.subspan<0, 8>()),
                           load_le<std::uint64_t>(records.subspan<8, 8>()),
                           static_cast<std::uint8_t>(bits)};
    extra.add({start, to_bytes(windows.first(size)),
               *Digest::make(DigestAlgorithm::sha256, records.subspan<24, 32>())});
    records = records.subspan(detail::checkpoints_record);
    windows = windows.subspan(size);
  }
  // Whatever breaks a rule has been left out.
  if (!std::ranges::equal(encode_checkpoints(extra), file))
    return form.bad("checkpoints that break its rules");
  return extra;
}

}  // namespace erofs_oci
