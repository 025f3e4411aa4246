// SPDX-License-Identifier: Apache-2.0
/// @file
/// open_image: the recommended stack over one layer, checked for belonging together.
#pragma once

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include <erofs_oci/combinator/cached.hpp>
#include <erofs_oci/combinator/concat.hpp>
#include <erofs_oci/combinator/padded.hpp>
#include <erofs_oci/combinator/slice.hpp>
#include <erofs_oci/core/any_source.hpp>
#include <erofs_oci/gzip/gzran.hpp>
#include <erofs_oci/gzip/gzran_pool.hpp>
#include <erofs_oci/gzip/zinfo.hpp>
#include <erofs_oci/image/placement.hpp>
#include <erofs_oci/oci/descriptor.hpp>
#include <erofs_oci/tar/header.hpp>

namespace erofs_oci {

/// The sources that one layer is put together from.
struct LayerSources {
  AnySource blob;                       ///< as it is stored
  std::optional<AnySource> tarindex{};  ///< EROFS image of the metadata
  std::optional<AnySource> zinfo{};     ///< gzip checkpoint index of the blob
  std::string media_type{};             ///< of the blob; empty if nothing names one
};

/// How an image is read.
struct ImageReadOptions {
  std::uint64_t cache_bytes = 256u
                              << 20;  ///< memory for decoded or fetched bytes. Default: 256 MiB
  std::chrono::milliseconds deadline{30'000};  ///< longest that one read waits. Default: 30 s
  unsigned connections = 4;  ///< runs fetched at the same time, 1 to 64. Default: 4
};

/// The bytes of a device that Linux mounts as EROFS.
struct DeviceImage {
  AnySource source;
  /// Where the zeros begin that fill up the last block, in bytes; the size if there are none.
  std::uint64_t zeros_from = 0;
  /// Counts the bytes that are held in memory now, from any thread; empty: nothing is held here.
  std::function<std::uint64_t()> cached{};
};

/// Puts the bytes of a mountable device together: `[tarindex]` if there is one, then the blob,
/// decompressed if there is a zinfo. Parts that do not belong together are refused, as far as a few
/// reads can tell: the tarindex places its data right behind itself, the tar begins with a header,
/// it ends where the tarindex says, and the zinfo fits the blob.
///
/// @error{Errc::mismatch, the parts do not belong together\, or one is not what it should be}
/// @error{Errc::corrupt, a part breaks its format}
/// @error{Errc::unsupported, a blob that needs another form: compressed without zinfo\, zstd}
[[nodiscard]] Result<DeviceImage> open_image(LayerSources layer,
                                             ImageReadOptions const& options = {});

namespace detail {

/// Refuses, by its first bytes and media type, a blob that cannot be used in this form.
inline Result<void> check_blob_format(AnySource const& blob, std::string const& media_type,
                                      bool decompressed) {
  auto const name = describe(blob) + (media_type.empty() ? "" : " (" + media_type + ")");
  if (layer_format(media_type) == LayerFormat::zstd) {
    return fail(Errc::unsupported, name + ": layers in zstd cannot be read at random");
  }
  std::array<std::byte, 4> start{};
  auto const n = blob.read_at(0, start);
  if (!n) return fail(n.error());
  auto const begins_with = [&](auto... bytes) {
    std::array const magic{static_cast<std::byte>(bytes)...};
    return *n >= magic.size() && std::ranges::equal(magic, std::span(start).first(magic.size()));
  };
  if (begins_with(0x28, 0xb5, 0x2f, 0xfd)) {
    return fail(Errc::unsupported, name + ": offset 0: zstd, which cannot be read at random");
  }
  auto const gzip = begins_with(0x1f, 0x8b);
  if (decompressed && !gzip) {
    return fail(Errc::mismatch, name + ": offset 0: not gzip, but a zinfo is given for it");
  }
  if (!decompressed && gzip) {
    return fail(Errc::unsupported,
                name + ": offset 0: gzip; give the zinfo that `mkfs.erofs --gzinfo` makes");
  }
  return {};
}

/// The blob's contents: decompressed through the zinfo, or as they are.
inline Result<AnySource> open_contents(LayerSources layer, ImageReadOptions const& options,
                                       std::shared_ptr<GzranPool> const& pool) {
  auto const decompressed = layer.zinfo.has_value();
  if (auto const ok = check_blob_format(layer.blob, layer.media_type, decompressed); !ok) {
    return fail(ok.error());
  }
  if (decompressed) {
    auto const name = describe(*layer.zinfo);
    auto index = read_zinfo(*std::move(layer.zinfo));
    if (!index) return fail(std::move(index).error());
    auto decoded = Gzran<AnySource>::make(std::move(layer.blob), *std::move(index),
                                          {.deadline = options.deadline, .pool = pool});
    if (!decoded) return fail(std::move(decoded).error(), name);
    return AnySource(*std::move(decoded));
  }
  if (!is_remote(layer.blob)) return std::move(layer.blob);
  constexpr std::uint64_t chunk = 1 << 20;  // large: a chunk serves readers while it comes
  return AnySource(Cached<AnySource>(
      std::move(layer.blob),
      {.capacity = options.cache_bytes, .chunk = chunk, .wait = options.deadline}));
}

/// Whether the bytes at the start could be a tar: a header with a right checksum, or an end mark.
inline Result<void> check_tar_start(AnySource const& contents) {
  std::array<std::byte, tar::block_size> block{};
  if (auto const ok = read_exact(contents, 0, block); !ok) return fail(ok.error());
  if (tar::is_zero(block)) return {};
  if (auto const header = tar::decode_header(block); !header) {
    return fail(Errc::mismatch,
                describe(contents) + ": offset 0: not a tar (" + header.error().message() + ")");
  }
  return {};
}

/// Whether a tar that goes on behind `end` may be cut there: only what follows its end mark.
inline Result<void> check_tar_end(AnySource const& contents, std::uint64_t end) {
  constexpr std::uint64_t mark = 2 * tar::block_size;
  std::array<std::byte, mark> blocks{};
  if (end >= mark) {
    if (auto const ok = read_exact(contents, end - mark, blocks); !ok) return fail(ok.error());
    if (tar::is_zero(blocks)) return {};
  }
  return fail(Errc::mismatch, "the tar (" + describe(contents) + ") goes on at offset " +
                                  std::to_string(end) + ", where the tarindex ends it");
}

/// Cuts or fills the tar to what the tarindex describes.
inline Result<DeviceImage> join(AnySource tarindex, AnySource tar, Placement const& place) {
  auto const length = place.end - place.begin;
  auto const have = tar.size();
  if (have < length && length - have >= place.block_size) {
    return fail(Errc::mismatch, "the tar (" + describe(tar) + ") has " + std::to_string(have) +
                                    " bytes, the tarindex describes " + std::to_string(length));
  }
  if (auto const ok = check_tar_start(tar); !ok) return fail(ok.error());
  if (have < length) {
    auto padded = Padded<AnySource>::to_size(std::move(tar), length);
    if (!padded) return fail(std::move(padded).error());
    return DeviceImage{
        AnySource(Concat<AnySource, Padded<AnySource>>(std::move(tarindex), *std::move(padded))),
        place.begin + have};
  }
  if (have > length) {
    if (auto const ok = check_tar_end(tar, length); !ok) return fail(ok.error());
  }
  auto cut = Slice<AnySource>::make(std::move(tar), 0, length);
  if (!cut) return fail(std::move(cut).error());
  return DeviceImage{
      AnySource(Concat<AnySource, Slice<AnySource>>(std::move(tarindex), *std::move(cut))),
      place.end};
}

/// An EROFS image by itself, filled up to a sector.
inline Result<DeviceImage> open_native(AnySource contents) {
  auto const name = describe(contents);
  auto const superblock = read_superblock(contents);
  if (!superblock) {
    return fail(superblock.error(), name + ": no tarindex is given, so it must be an EROFS image");
  }
  if (superblock->extra_devices != 0) {
    return fail(Errc::unsupported, name + ": an EROFS image whose data is on " +
                                       std::to_string(superblock->extra_devices) +
                                       " other devices");
  }
  auto const size = contents.size();
  auto padded = Padded<AnySource>::to_block(std::move(contents), 512);
  if (!padded) return fail(std::move(padded).error(), name);
  return DeviceImage{AnySource(*std::move(padded)), size};
}

}  // namespace detail

inline Result<DeviceImage> open_image(LayerSources layer, ImageReadOptions const& options) {
  std::optional<Placement> place;
  auto tarindex = std::move(layer.tarindex);
  if (tarindex) {
    auto found = read_placement(*tarindex);
    if (!found) return fail(found.error(), "tarindex " + describe(*tarindex));
    place = *found;
  }
  auto const pool =
      std::make_shared<GzranPool>(options.cache_bytes, std::max(options.connections, 1U));
  auto const decodes = layer.zinfo.has_value();
  auto contents = detail::open_contents(std::move(layer), options, pool);
  if (!contents) return fail(std::move(contents).error());
  auto const name = tarindex ? "tarindex " + describe(*tarindex) : std::string();
  auto image = tarindex ? detail::join(*std::move(tarindex), *std::move(contents), *place)
                        : detail::open_native(*std::move(contents));
  if (!image) return fail(std::move(image).error(), name);
  if (decodes) image->cached = [pool] { return pool->used(); };
  return image;
}

}  // namespace erofs_oci
