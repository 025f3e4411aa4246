// SPDX-License-Identifier: Apache-2.0
/// @file
/// The index of a layer: LayerIndexBuilder takes a blob if and only if zlib does, decodes the same
/// bytes, and Gzran reads the same bytes by the index at any offset.
///
/// Input: a byte of choices (bit 0: what follows is raw deflate data, to be put into right members;
/// the rest: how long the pieces are), a byte for the length of a span, then the blob.
#include <algorithm>
#include <cstdint>
#include <optional>
#include <span>
#include <utility>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/gzip/decoder.hpp>
#include <erofs_oci/image/open_layers.hpp>
#include <erofs_oci/source/memory.hpp>
#include <erofs_oci/tarindex/layer_index_builder.hpp>

#include "input.hpp"

using namespace erofs_oci;

namespace {

constexpr std::size_t most_content = 1 << 20;

void append(Bytes& to, std::span<std::byte const> bytes) {
  to.insert(to.end(), bytes.begin(), bytes.end());
}

/// Puts each stream of raw deflate data into a member with the CRC and length that it needs.
Bytes as_members(std::span<std::byte const> deflate) {
  Bytes blob;
  Bytes out(most_content);
  while (!deflate.empty()) {
    ZlibInflater inflater;
    fuzz::require(inflater.start(0, std::byte{0}, {}).has_value());
    auto const step = inflater.inflate(deflate, out);
    bool const whole = step && step->end;
    auto const taken = whole ? deflate.first(step->consumed) : deflate;
    append(blob, to_bytes(std::string_view("\x1f\x8b\x08\0\0\0\0\0\0\xff", 10)));
    append(blob, taken);
    deflate = deflate.subspan(taken.size());
    if (!whole) break;
    Bytes end(8);
    auto const content = std::span(out).first(step->produced);
    store_le(ZlibInflater::crc32(0, content), std::span(end).first<4>());
    store_le(static_cast<std::uint32_t>(content.size()), std::span(end).last<4>());
    append(blob, end);
  }
  return blob;
}

/// What zlib makes of a blob; empty if it is none, or too long.
std::optional<Bytes> decoded_by_zlib(std::span<std::byte const> blob) {
  GzipDecoder<ZlibInflater> decoder;
  Bytes content(most_content + 1);
  std::size_t size = 0;
  while (size < content.size()) {
    auto const step = decoder.decode(blob, std::span(content).subspan(size));
    if (!step) return std::nullopt;
    blob = blob.subspan(step->consumed);
    size += step->produced;
    if (blob.empty() && step->produced == 0) break;
  }
  if (!decoder.may_end() || !blob.empty()) return std::nullopt;
  content.resize(size);
  return content;
}

/// Whether zlib decodes more than we look at.
bool is_bomb(std::span<std::byte const> blob) {
  GzipDecoder<ZlibInflater> decoder;
  Bytes out(most_content + 1);
  auto const step = decoder.decode(blob, out);
  return step && step->produced == out.size();
}

void read_anywhere(Bytes const& blob, LayerIndex index, Bytes const& content) {
  tarindex::BuiltLayer built;
  built.index = std::move(index);
  auto const opened = opened_layer(std::move(built));
  fuzz::require(opened.has_value());
  auto const tar = open_contents({{}, AnySource(Memory(blob))}, *opened,
                                 {.cache_bytes = 1 << 18, .connections = 1});
  fuzz::require(tar.has_value() && tar->size() == content.size());
  Bytes out(5000);
  auto at = content.size() * 2 / 3;
  for (int i = 0; i < 4; ++i, at = (at + 40009) % (content.size() + 1)) {
    auto const n = tar->read_at(at, out);
    fuzz::require(n.has_value() && *n == readable(content.size(), at, out.size()));
    fuzz::require(std::equal(out.begin(), out.begin() + static_cast<std::ptrdiff_t>(*n),
                             content.begin() + static_cast<std::ptrdiff_t>(at)));
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  fuzz::Input input(data, size);
  auto const choice = input.byte();
  auto const span_size = std::uint64_t{input.byte()} * 512 + 4096;
  auto const blob = (choice & 1) != 0 ? as_members(input.rest()) : to_bytes(input.rest());
  if (is_bomb(blob)) return 0;

  Bytes content;
  LayerIndexBuilder<> builder({.span_size = span_size}, [&](auto bytes) -> Result<void> {
    append(content, bytes);
    return {};
  });
  Result<void> taken;
  auto const piece = std::size_t{choice} * 30 + 1;
  for (auto rest = std::span(blob); taken && !rest.empty();) {
    auto const n = std::min(piece, rest.size());
    taken = builder.push(rest.first(n));
    rest = rest.subspan(n);
  }
  auto const expected = decoded_by_zlib(blob);
  if (!taken) {
    fuzz::require(!expected.has_value());
    return 0;
  }
  auto index = builder.finish();
  fuzz::require(index.has_value() == expected.has_value());
  if (!index) return 0;
  fuzz::require(content == *expected && index->decoded_size == content.size());
  fuzz::require(index->blob == digest_of(blob) && index->diff_id == digest_of(content));
  read_anywhere(blob, *std::move(index), content);
  return 0;
}
