// SPDX-License-Identifier: Apache-2.0
/// @file
/// What image/checkpoints_file.hpp only declares.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/config.hpp>
#include <erofs_oci/core/endian.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/digest/sha256.hpp>
#include <erofs_oci/gzip/checkpoint.hpp>
#include <erofs_oci/gzip/extra_checkpoints.hpp>
#include <erofs_oci/image/checkpoints_file.hpp>

namespace erofs_oci {
namespace detail {

inline constexpr std::array checkpoints_file_magic{
    std::byte{0x89}, std::byte{0x45}, std::byte{0x4f}, std::byte{0x43},
    std::byte{0x0d}, std::byte{0x0a}, std::byte{0x1a}, std::byte{0x0a}};
inline constexpr std::uint32_t checkpoints_file_version = 1;
inline constexpr std::size_t checkpoints_file_header = 16;  // bytes
inline constexpr std::size_t checkpoints_file_record = 24;  // bytes

}  // namespace detail

EROFS_OCI_BODY Bytes encode_checkpoints(ExtraCheckpoints const& extra) {
  auto const points = extra.points();
  Bytes file(detail::checkpoints_file_magic.begin(), detail::checkpoints_file_magic.end());
  append_le(file, detail::checkpoints_file_version, 4);
  append_le(file, points.size(), 4);
  for (auto const& point : points) {
    append_le(file, point.start.in, 8);
    append_le(file, point.start.out, 8);
    append_le(file, point.start.bits, 4);
    append_le(file, point.packed_window.size(), 4);
  }
  for (auto const& point : points) {
    file.insert(file.end(), point.packed_window.begin(), point.packed_window.end());
  }
  auto const digest = digest_of(file);
  file.insert(file.end(), digest.bytes().begin(), digest.bytes().end());
  return file;
}

EROFS_OCI_BODY Result<ExtraCheckpoints> decode_checkpoints(std::span<std::byte const> file) {
  auto const bad = [](std::string const& what) {
    return fail(Errc::corrupt, "extra checkpoints: " + what);
  };
  if (file.size() < detail::checkpoints_file_header + sha256_size ||
      !std::ranges::equal(file.first<8>(), detail::checkpoints_file_magic)) {
    return bad("not the file, or cut short");
  }
  auto const version = load_le<std::uint32_t>(file.subspan<8, 4>());
  if (version != detail::checkpoints_file_version) {
    return fail(Errc::unsupported, "extra checkpoints: version " + std::to_string(version));
  }
  std::size_t const count = load_le<std::uint32_t>(file.subspan<12, 4>());
  auto const content = file.first(file.size() - sha256_size);
  if (count > ExtraCheckpoints::most ||
      content.size() < detail::checkpoints_file_header + count * detail::checkpoints_file_record) {
    return bad("too long, or cut short");
  }
  if (!std::ranges::equal(digest_of(content).bytes(), file.last(sha256_size))) {
    return bad("not what was written");
  }
  auto records = content.subspan(detail::checkpoints_file_header);
  auto windows = records.subspan(count * detail::checkpoints_file_record);
  ExtraCheckpoints extra;
  for (std::size_t i = 0; i < count; ++i) {
    std::size_t const size = load_le<std::uint32_t>(records.subspan<20, 4>());
    auto const bits = load_le<std::uint32_t>(records.subspan<16, 4>());
    if (size > windows.size() || bits > 7) return bad("checkpoint " + std::to_string(i));
    Checkpoint const start{load_le<std::uint64_t>(records.subspan<0, 8>()),
                           load_le<std::uint64_t>(records.subspan<8, 8>()),
                           static_cast<std::uint8_t>(bits)};
    extra.add({start, to_bytes(windows.first(size))});
    records = records.subspan(detail::checkpoints_file_record);
    windows = windows.subspan(size);
  }
  // Whatever breaks a rule has been left out.
  if (!std::ranges::equal(encode_checkpoints(extra), file))
    return bad("checkpoints that break its rules");
  return extra;
}

}  // namespace erofs_oci
