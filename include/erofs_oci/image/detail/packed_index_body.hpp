// SPDX-License-Identifier: Apache-2.0
/// @file
/// What image/packed_index.hpp only declares.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <erofs_oci/core/any_source.hpp>
#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/config.hpp>
#include <erofs_oci/core/endian.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/digest/sha256.hpp>
#include <erofs_oci/gzip/decoder.hpp>
#include <erofs_oci/gzip/inflater.hpp>
#include <erofs_oci/image/packed_index.hpp>
#include <erofs_oci/source/memory.hpp>
#include <erofs_oci/tarindex/index_file.hpp>
#include <erofs_oci/tarindex/links_file.hpp>

namespace erofs_oci {
namespace detail {

/// All that a gzip file holds.
[[nodiscard]] inline Result<Bytes> gunzip(std::span<std::byte const> packed, std::uint64_t most) {
  GzipDecoder<> decoder;
  Bytes out;
  std::size_t filled = 0;
  for (auto more = true; more && !decoder.ended();) {
    if (filled == out.size()) {
      if (filled > most) {
        return fail(Errc::unsupported, "more than " + std::to_string(most) + " bytes, unpacked");
      }
      // One byte more than may be, to notice what is too long.
      auto const grown = std::max<std::uint64_t>(2 * filled, 64 * 1024);
      out.resize(static_cast<std::size_t>(std::min(grown, most + 1)));
    }
    EROFS_OCI_TRY_ASSIGN(auto const step, decoder.decode(packed, std::span(out).subspan(filled)));
    packed = packed.subspan(step.consumed);
    filled += step.produced;
    more = step.consumed > 0 || step.produced > 0;
  }
  if (!packed.empty() || decoder.ended() || !decoder.may_end()) {
    return fail(Errc::corrupt, "not one whole gzip file");
  }
  out.resize(filled);
  return out;
}

/// One gzip member, without a name and a time.
[[nodiscard]] inline Bytes gzip(std::span<std::byte const> bytes) {
  constexpr std::array<std::uint8_t, 10> head{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff};
  Bytes out(head.size());
  std::ranges::transform(head, out.begin(), [](auto value) { return std::byte{value}; });
  auto const data = deflate_bytes(bytes);
  out.insert(out.end(), data.begin(), data.end());
  std::array<std::byte, 8> trailer{};
  store_le(ZlibInflater::crc32(0, bytes), std::span(trailer).first<4>());
  store_le(static_cast<std::uint32_t>(bytes.size()), std::span(trailer).last<4>());
  out.insert(out.end(), trailer.begin(), trailer.end());
  return out;
}

}  // namespace detail

EROFS_OCI_BODY Result<Bytes> pack_index(IndexFiles const& files) {
  constexpr std::uint64_t most = std::uint64_t{2} << 30;  // zlib counts 32 bits
  auto const parts = {&files.index, &files.tarindex, &files.links};
  std::uint64_t size = 0;
  for (auto const* const part : parts) size += part->size();
  if (size > most) {
    return fail(Errc::unsupported, std::to_string(size) + " bytes of indexes for one layer");
  }
  Bytes all;
  all.reserve(static_cast<std::size_t>(size));
  for (auto const* const part : parts) all.insert(all.end(), part->begin(), part->end());
  return detail::gzip(all);
}

EROFS_OCI_BODY Result<IndexFiles> unpack_index(std::span<std::byte const> packed,
                                               std::uint64_t most) {
  EROFS_OCI_TRY_ASSIGN(auto const all, detail::gunzip(packed, most), "packed index");
  if (all.size() < index_header_size) return fail(Errc::corrupt, "packed index: too short");
  auto rest = std::span(all);
  IndexFiles files;
  auto const take = [&](std::uint64_t size, Bytes& into) {
    if (size > rest.size()) return false;
    auto const part = rest.first(static_cast<std::size_t>(size));
    into.assign(part.begin(), part.end());
    rest = rest.subspan(part.size());
    return true;
  };
  constexpr std::size_t own_size = 16;
  constexpr std::size_t tarindex_size = 144;
  auto const index = load_le<std::uint64_t>(rest.subspan<own_size, 8>());
  auto const tarindex = load_le<std::uint64_t>(rest.subspan<tarindex_size, 8>());
  if (!take(index, files.index) || !take(tarindex, files.tarindex)) {
    return fail(Errc::corrupt, "packed index: shorter than its parts");
  }
  files.links.assign(rest.begin(), rest.end());
  return files;
}

EROFS_OCI_BODY Result<StoredLayer> open_index(IndexFiles files, Descriptor const& layer) {
  auto const name = digest_of(files.index);
  EROFS_OCI_TRY_ASSIGN(auto opened, read_index_file(AnySource(Memory(std::move(files.index)))));
  auto const& index = opened.index;
  if (index.blob_size != layer.size ||
      (layer.digest.algorithm() == DigestAlgorithm::sha256 && index.blob != layer.digest)) {
    return fail(Errc::mismatch, "an index of another blob");
  }
  if (index.tarindex_size != files.tarindex.size() || index.tarindex != digest_of(files.tarindex)) {
    return fail(Errc::digest_mismatch, "tarindex");
  }
  if (index.links != (files.links.empty() ? Digest() : digest_of(files.links))) {
    return fail(Errc::digest_mismatch, "links");
  }
  std::vector<tarindex::DanglingLink> dangling;
  if (!files.links.empty()) {
    EROFS_OCI_TRY_ASSIGN(dangling, tarindex::decode_links(files.links), "links");
  }
  return StoredLayer{std::move(opened),
                     AnySource(Memory(std::move(files.tarindex))),
                     std::move(dangling),
                     {},
                     {},
                     name};
}

}  // namespace erofs_oci
