// SPDX-License-Identifier: Apache-2.0
/// @file
/// What image/start_list.hpp only declares.
#pragma once

#include <algorithm>
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
#include <erofs_oci/digest/sealed_file.hpp>
#include <erofs_oci/digest/sha256.hpp>
#include <erofs_oci/image/start_list.hpp>

namespace erofs_oci {
namespace detail {

inline constexpr SealedForm start_list_form{
    .name = "start list",
    .magic = {std::byte{0x89}, std::byte{0x45}, std::byte{0x4f}, std::byte{0x53}, std::byte{0x0d},
              std::byte{0x0a}, std::byte{0x1a}, std::byte{0x0a}},
    .version = 1,
    .header = 24};
inline constexpr std::size_t start_list_range = 24;  // bytes

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
  auto file = detail::start_list_form.begin();
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
  detail::start_list_form.seal(file);
  return file;
}

EROFS_OCI_BODY Result<StartList> StartList::decode(std::span<std::byte const> file) {
  constexpr auto const& form = detail::start_list_form;
  EROFS_OCI_TRY_ASSIGN(auto const content, form.open(file));
  std::size_t const layer_count = load_le<std::uint32_t>(content.subspan<12, 4>());
  std::size_t const range_count = load_le<std::uint32_t>(content.subspan<16, 4>());
  if (layer_count > most_layers || range_count > most_ranges) return form.bad("too long");
  auto const size =
      form.header + layer_count * sha256_size + range_count * detail::start_list_range;
  if (content.size() != size) return form.bad(std::to_string(file.size()) + " bytes");

  std::vector<Digest> named;
  for (std::size_t i = 0; i < layer_count; ++i) {
    auto const raw = file.subspan(form.header + i * sha256_size, sha256_size);
    EROFS_OCI_TRY_ASSIGN(named.emplace_back(), Digest::make(DigestAlgorithm::sha256, raw));
  }
  StartList list;
  auto rest = content.subspan(form.header + layer_count * sha256_size);
  for (; !rest.empty(); rest = rest.subspan(detail::start_list_range)) {
    std::size_t const layer = load_le<std::uint32_t>(rest.first<4>());
    if (layer >= named.size()) return form.bad("no layer " + std::to_string(layer));
    StartRange const range{named[layer], load_le<std::uint64_t>(rest.subspan<8, 8>()),
                           load_le<std::uint64_t>(rest.subspan<16, 8>()),
                           load_le<std::uint32_t>(rest.subspan<4, 4>())};
    list.put(range, Join::no);
  }
  // Whatever breaks a rule has been left out or cut.
  if (!std::ranges::equal(list.encode(), file)) return form.bad("ranges that break its rules");
  return list;
}

}  // namespace erofs_oci
