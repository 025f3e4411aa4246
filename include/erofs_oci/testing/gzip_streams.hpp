// SPDX-License-Identifier: Apache-2.0
/// @file
/// Gzip blobs and their checkpoints, made in the dullest way with zlib: an oracle for Gzran.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/gzip/checkpoint.hpp>
#include <erofs_oci/gzip/inflater.hpp>

namespace erofs_oci::testing {

/// Bytes of any size that deflate packs into literals and, behind the first 30,000, into matches
/// from nearly a whole window before; the same for the same seed.
[[nodiscard]] inline Bytes compressible_bytes(std::size_t size, std::uint32_t seed) {
  Bytes content(size);
  auto x = seed;
  for (std::size_t i = 0; i < size; ++i) {
    x = x * 1664525U + 1013904223U;
    bool const repeat = i > 30000 && (x >> 29) > 2;
    content[i] = repeat ? content[i - 29989] : std::byte(x >> 26);
  }
  return content;
}

/// How one member is compressed.
struct MemberRecipe {
  Bytes content;                ///< decoded bytes; may be empty
  int level = 6;                ///< zlib's, 0 to 9
  int strategy = 0;             ///< zlib's, Z_DEFAULT_STRATEGY to Z_FIXED
  std::size_t flush_every = 0;  ///< begin a new deflate block after so many bytes; 0: zlib's choice
  std::string name{};           ///< FNAME, if not empty
  Bytes extra{};                ///< FEXTRA, if not empty
  bool header_crc = false;      ///< FHCRC
};

/// One gzip member.
[[nodiscard]] inline Bytes gzip_member(MemberRecipe const& recipe) {
  z_stream z{};
  if (deflateInit2(&z, recipe.level, Z_DEFLATED, 16 + MAX_WBITS, 8, recipe.strategy) != Z_OK) {
    throw std::runtime_error("deflateInit2");
  }
  gz_header header{};
  auto extra = recipe.extra;
  auto name = recipe.name;
  if (!name.empty()) header.name = reinterpret_cast<Bytef*>(name.data());
  if (!extra.empty()) {
    header.extra = reinterpret_cast<Bytef*>(extra.data());
    header.extra_len = static_cast<uInt>(extra.size());
  }
  header.hcrc = recipe.header_crc ? 1 : 0;
  deflateSetHeader(&z, &header);

  Bytes blob;
  auto rest = std::span(recipe.content);
  int code = Z_OK;
  while (code != Z_STREAM_END) {
    auto const step =
        recipe.flush_every == 0 ? rest.size() : std::min(rest.size(), recipe.flush_every);
    z.next_in = const_cast<Bytef*>(reinterpret_cast<Bytef const*>(rest.data()));
    z.avail_in = static_cast<uInt>(step);
    rest = rest.subspan(step);
    do {
      std::array<std::byte, 4096> out{};
      z.next_out = reinterpret_cast<Bytef*>(out.data());
      z.avail_out = static_cast<uInt>(out.size());
      code = deflate(&z, rest.empty() ? Z_FINISH : Z_BLOCK);
      blob.insert(blob.end(), out.begin(),
                  out.begin() + static_cast<std::ptrdiff_t>(out.size() - z.avail_out));
    } while (z.avail_out == 0 && code != Z_STREAM_END);
  }
  deflateEnd(&z);
  return blob;
}

/// A blob and all that is known about it.
struct GzipBlob {
  Bytes blob;                           ///< compressed
  Bytes content;                        ///< decoded
  std::vector<Checkpoint> checkpoints;  ///< at every block start, unless spaced
  std::vector<Bytes> windows;           ///< 32 KiB each

  /// As read_zinfo() would give it.
  [[nodiscard]] GzipIndex index() const {
    auto const shared = std::make_shared<std::vector<Bytes> const>(windows);
    return {checkpoints,
            [shared](std::size_t i, std::span<std::byte, gzip_window_size> window) -> Result<void> {
              std::ranges::copy(shared->at(i), window.begin());
              return {};
            },
            false};
  }

  /// Keeps the first checkpoint and, of the others, those more than `span` decoded bytes or twice
  /// as many compressed ones after the last one kept.
  [[nodiscard]] GzipBlob spaced(std::uint64_t span) const {
    GzipBlob kept{blob, content, {}, {}};
    for (std::size_t i = 0; i < checkpoints.size(); ++i) {
      auto const& point = checkpoints[i];
      if (i > 0 && point.out - kept.checkpoints.back().out <= span &&
          point.in - kept.checkpoints.back().in <= 2 * span) {
        continue;
      }
      kept.checkpoints.push_back(checkpoints[i]);
      kept.windows.push_back(windows[i]);
    }
    return kept;
  }
};

/// Compresses the members one after another, adds `trailing`, and notes every deflate block that is
/// not a member's last: what builders choose checkpoints from.
[[nodiscard]] inline GzipBlob gzip_blob(std::vector<MemberRecipe> const& members,
                                        Bytes const& trailing = {}) {
  GzipBlob made;
  for (auto const& member : members) {
    auto const at = made.blob.size();
    auto const packed = gzip_member(member);
    made.blob.insert(made.blob.end(), packed.begin(), packed.end());

    z_stream z{};
    if (inflateInit2(&z, 16 + MAX_WBITS) != Z_OK) throw std::runtime_error("inflateInit2");
    z.next_in = const_cast<Bytef*>(reinterpret_cast<Bytef const*>(packed.data()));
    z.avail_in = static_cast<uInt>(packed.size());
    auto const member_start = made.content.size();
    int code = Z_OK;
    while (code != Z_STREAM_END) {
      std::array<std::byte, 512> out{};
      z.next_out = reinterpret_cast<Bytef*>(out.data());
      z.avail_out = static_cast<uInt>(out.size());
      code = inflate(&z, Z_BLOCK);
      if (code != Z_OK && code != Z_STREAM_END) throw std::runtime_error("inflate");
      made.content.insert(made.content.end(), out.begin(),
                          out.begin() + static_cast<std::ptrdiff_t>(out.size() - z.avail_out));
      bool const at_block = (z.data_type & 128) != 0 && (z.data_type & 64) == 0;
      if (!at_block || code == Z_STREAM_END) continue;
      Checkpoint const point{at + packed.size() - z.avail_in, made.content.size(),
                             static_cast<std::uint8_t>(z.data_type & 7)};
      if (!made.checkpoints.empty() && made.checkpoints.back() == point) continue;
      Bytes window(gzip_window_size);
      auto const known = std::min(made.content.size() - member_start, gzip_window_size);
      std::copy_n(made.content.end() - static_cast<std::ptrdiff_t>(known), known,
                  window.end() - static_cast<std::ptrdiff_t>(known));
      made.checkpoints.push_back(point);
      made.windows.push_back(std::move(window));
    }
    inflateEnd(&z);
  }
  made.blob.insert(made.blob.end(), trailing.begin(), trailing.end());
  return made;
}

}  // namespace erofs_oci::testing
