// SPDX-License-Identifier: Apache-2.0
/// @file
/// What image/start_list.hpp only declares.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/config.hpp>
#include <erofs_oci/core/endian.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/digest/digest.hpp>
#include <erofs_oci/digest/sha256.hpp>
#include <erofs_oci/image/start_list.hpp>

namespace erofs_oci {
namespace detail {

inline constexpr std::array start_list_magic{std::byte{0x89}, std::byte{0x45}, std::byte{0x4f},
                                             std::byte{0x53}, std::byte{0x0d}, std::byte{0x0a},
                                             std::byte{0x1a}, std::byte{0x0a}};
inline constexpr std::uint32_t start_list_version = 1;
inline constexpr std::size_t start_list_header = 24;  // bytes
inline constexpr std::size_t start_list_range = 24;   // bytes

}  // namespace detail

EROFS_OCI_BODY std::vector<Digest> StartList::layers() const {
  std::vector<Digest> layers;
  for (auto const& range : ranges_) {
    if (std::ranges::find(layers, range.layer) == layers.end()) layers.push_back(range.layer);
  }
  return layers;
}

EROFS_OCI_BODY bool StartList::has_room_for(Digest const& layer) const {
  if (ranges_.size() >= most_ranges) return false;
  if (std::ranges::find(ranges_, layer, &StartRange::layer) != ranges_.end()) return true;
  return layers().size() < most_layers;
}

EROFS_OCI_BODY void StartList::append(StartRange range, Join join) {
  range.end = range.begin + std::min(range.end - range.begin, most_bytes - bytes_);
  if (range.begin == range.end) return;
  if (join == Join::yes) {
    auto const before = std::ranges::find_if(ranges_, [&](StartRange const& one) {
      return one.end == range.begin && one.age == range.age && one.layer == range.layer;
    });
    if (before != ranges_.end()) {
      before->end = range.end;
      bytes_ += range.end - range.begin;
      return;
    }
  }
  if (!has_room_for(range.layer)) return;
  bytes_ += range.end - range.begin;
  ranges_.push_back(range);
}

EROFS_OCI_BODY void StartList::put(StartRange const& range, Join join) {
  if (range.begin >= range.end || range.end > most_offset || range.age > most_age ||
      range.layer.algorithm() != DigestAlgorithm::sha256) {
    return;
  }
  std::vector<StartRange> there;  // what it overlaps, from its front on
  for (auto const& one : ranges_) {
    auto const overlaps = one.begin < range.end && range.begin < one.end;
    if (overlaps && one.layer == range.layer) there.push_back(one);
  }
  std::ranges::sort(there, {}, &StartRange::begin);
  auto rest = range;
  for (auto const& one : there) {
    if (rest.begin < one.begin) append({rest.layer, rest.begin, one.begin, rest.age}, join);
    rest.begin = std::max(rest.begin, one.end);
  }
  if (rest.begin < rest.end) append(rest, join);
}

EROFS_OCI_BODY std::uint64_t StartList::overlap(StartList const& other) const {
  std::uint64_t bytes = 0;
  for (auto const& a : ranges_) {
    for (auto const& b : other.ranges_) {
      auto const begin = std::max(a.begin, b.begin);
      auto const end = std::min(a.end, b.end);
      if (begin < end && a.layer == b.layer) bytes += end - begin;
    }
  }
  return bytes;
}

EROFS_OCI_BODY StartList StartList::merge(StartList const& older, StartList const& newer) {
  auto merged = newer;
  for (auto range : older.ranges_) {
    ++range.age;
    merged.put(range, Join::no);
  }
  return merged;
}

EROFS_OCI_BODY Bytes StartList::encode() const {
  auto const named = layers();
  Bytes file(detail::start_list_magic.begin(), detail::start_list_magic.end());
  append_le(file, detail::start_list_version, 4);
  append_le(file, named.size(), 4);
  append_le(file, ranges_.size(), 4);
  append_le(file, 0, 4);
  for (auto const& layer : named) {
    file.insert(file.end(), layer.bytes().begin(), layer.bytes().end());
  }
  for (auto const& range : ranges_) {
    auto const layer = std::ranges::find(named, range.layer) - named.begin();
    append_le(file, static_cast<std::uint64_t>(layer), 4);
    append_le(file, range.age, 4);
    append_le(file, range.begin, 8);
    append_le(file, range.end, 8);
  }
  auto const digest = digest_of(file);
  file.insert(file.end(), digest.bytes().begin(), digest.bytes().end());
  return file;
}

EROFS_OCI_BODY Result<StartList> StartList::decode(std::span<std::byte const> file) {
  auto const bad = [](std::string const& what) {
    return fail(Errc::corrupt, "start list: " + what);
  };
  if (file.size() < detail::start_list_header + sha256_size ||
      !std::ranges::equal(file.first<8>(), detail::start_list_magic)) {
    return bad("not one, or cut short");
  }
  auto const version = load_le<std::uint32_t>(file.subspan<8, 4>());
  if (version != detail::start_list_version) {
    return fail(Errc::unsupported, "start list: version " + std::to_string(version));
  }
  std::size_t const layer_count = load_le<std::uint32_t>(file.subspan<12, 4>());
  std::size_t const range_count = load_le<std::uint32_t>(file.subspan<16, 4>());
  if (layer_count > most_layers || range_count > most_ranges) return bad("too long");
  auto const size = detail::start_list_header + layer_count * sha256_size +
                    range_count * detail::start_list_range + sha256_size;
  if (file.size() != size) return bad(std::to_string(file.size()) + " bytes");
  auto const content = file.first(size - sha256_size);
  if (!std::ranges::equal(digest_of(content).bytes(), file.last(sha256_size))) {
    return bad("not what was written");
  }

  std::vector<Digest> named;
  for (std::size_t i = 0; i < layer_count; ++i) {
    auto const raw = file.subspan(detail::start_list_header + i * sha256_size, sha256_size);
    EROFS_OCI_TRY_ASSIGN(named.emplace_back(), Digest::make(DigestAlgorithm::sha256, raw));
  }
  StartList list;
  auto rest = content.subspan(detail::start_list_header + layer_count * sha256_size);
  for (; !rest.empty(); rest = rest.subspan(detail::start_list_range)) {
    std::size_t const layer = load_le<std::uint32_t>(rest.first<4>());
    if (layer >= named.size()) return bad("no layer " + std::to_string(layer));
    StartRange const range{named[layer], load_le<std::uint64_t>(rest.subspan<8, 8>()),
                           load_le<std::uint64_t>(rest.subspan<16, 8>()),
                           load_le<std::uint32_t>(rest.subspan<4, 4>())};
    list.put(range, Join::no);
  }
  // Whatever breaks a rule has been left out or cut.
  if (!std::ranges::equal(list.encode(), file)) return bad("ranges that break its rules");
  return list;
}

}  // namespace erofs_oci
