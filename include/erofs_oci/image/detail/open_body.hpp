// SPDX-License-Identifier: Apache-2.0
/// @file
/// What image/open.hpp only declares.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include <erofs_oci/combinator/concat.hpp>
#include <erofs_oci/combinator/padded.hpp>
#include <erofs_oci/combinator/proved.hpp>
#include <erofs_oci/combinator/slice.hpp>
#include <erofs_oci/core/any_source.hpp>
#include <erofs_oci/core/arithmetic.hpp>
#include <erofs_oci/core/config.hpp>
#include <erofs_oci/digest/sha256.hpp>
#include <erofs_oci/erofs/format.hpp>
#include <erofs_oci/erofs/superblock.hpp>
#include <erofs_oci/gzip/magic.hpp>
#include <erofs_oci/gzip/zinfo.hpp>
#include <erofs_oci/image/detail/layer_data.hpp>
#include <erofs_oci/image/open.hpp>
#include <erofs_oci/oci/descriptor.hpp>
#include <erofs_oci/tar/header.hpp>

namespace erofs_oci {
namespace detail {

/// Refuses, by its first bytes and media type, a blob that cannot be used in this form.
inline Result<void> check_blob_format(AnySource const& blob, std::string const& media_type,
                                      bool decompressed) {
  auto const name = describe(blob) + (media_type.empty() ? "" : " (" + media_type + ")");
  if (layer_format(media_type) == LayerFormat::zstd) {
    return fail(Errc::unsupported, name + ": layers in zstd cannot be read at random");
  }
  std::array<std::byte, 4> start{};
  EROFS_OCI_TRY_ASSIGN(auto const n, blob.read_at(0, start));
  auto const compression = compression_of(std::span(start).first(n));
  if (compression == Compression::zstd) {
    return fail(Errc::unsupported, name + ": offset 0: zstd, which cannot be read at random");
  }
  auto const gzip = compression == Compression::gzip;
  if (decompressed && !gzip) {
    return fail(Errc::mismatch, name + ": offset 0: not gzip, but a zinfo is given for it");
  }
  if (!decompressed && gzip) {
    return fail(Errc::unsupported,
                name + ": offset 0: gzip; give the zinfo that `mkfs.erofs --gzinfo` makes");
  }
  return {};
}

/// Puts a source in place of the blob that compares all its bytes together with that digest.
template <class H>
Result<std::shared_ptr<Proof>> prove(AnySource& blob, Digest const& digest, Verify verify) {
  using Source = Proved<AnySource, H>;
  EROFS_OCI_TRY_ASSIGN(auto source, Source::make(std::move(blob), digest,
                                                 {.background = verify >= Verify::background}));
  auto proof = source.proof();
  blob = AnySource(std::move(source));
  return proof;
}

/// What is known of the layer's data.
/// @param proof  set if they are handed on before they are checked
inline Result<LayerData> data_of(LayerSources layer, ImageReadOptions const& options,
                                 std::shared_ptr<Proof>& proof) {
  auto const verify = options.verify;
  if (!layer.known && layer.digest && verify != Verify::off) {
    auto const make =
        layer.digest->algorithm() == DigestAlgorithm::sha512 ? prove<Sha512> : prove<Sha256>;
    EROFS_OCI_TRY_ASSIGN(proof, make(layer.blob, *layer.digest, verify));
  }
  if (options.try_data) {
    EROFS_OCI_TRY(check_blob_format(layer.blob, layer.media_type, layer.zinfo.has_value()));
  }
  std::optional<GzipIndex> gzip;
  auto const name = layer.zinfo ? describe(*layer.zinfo) : std::string();
  if (layer.zinfo) {
    EROFS_OCI_TRY_ASSIGN(gzip, read_zinfo(*std::move(layer.zinfo)));
  }
  if (layer.known) return stored_data(std::move(layer.blob), *layer.known, {});
  return LayerData{
      .name = name, .blob = std::move(layer.blob), .gzip = std::move(gzip), .proof = proof};
}

/// Whether the bytes at the start could be a tar: a header with a right checksum, or an end mark.
inline Result<void> check_tar_start(AnySource const& contents) {
  std::array<std::byte, tar::block_size> block{};
  EROFS_OCI_TRY(read_exact(contents, 0, block));
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
    EROFS_OCI_TRY(read_exact(contents, end - mark, blocks));
    if (tar::is_zero(blocks)) return {};
  }
  return fail(Errc::mismatch, "the tar (" + describe(contents) + ") goes on at offset " +
                                  std::to_string(end) + ", where the tarindex ends it");
}

/// Where on the combined device the data of a tarindex lies, in bytes.
struct Placement {
  std::uint64_t begin = 0;       ///< the tarindex's own size
  std::uint64_t end = 0;         ///< the device's size; a multiple of the block size
  std::uint64_t block_size = 0;  ///< of the file system
};

/// Of the one device in the table.
/// @param superblock  of the same image
/// @error{Errc::corrupt, no place\, or one beyond 2^63}
inline Result<Placement> placement_of(erofs::Superblock const& superblock,
                                      erofs::DeviceSlot const& slot) {
  std::uint64_t blocks = slot.blocks_low;
  std::uint64_t first = slot.first_block_low;
  if (superblock.has(erofs::incompat::wide_addresses)) {
    blocks |= std::uint64_t{slot.blocks_high} << 32;
    first |= std::uint64_t{slot.first_block_high} << 32;
  }
  if (first == 0) return fail(Errc::corrupt, "device 1 has no address (uniaddr is 0)");
  auto const block_size = std::uint64_t{1} << superblock.block_bits;
  auto const end = checked_mul(first + blocks, block_size);  // a sum of two numbers of 48 bits
  if (!end || *end > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) {
    return fail(Errc::corrupt, "device 1 ends at block " + std::to_string(first + blocks) +
                                   ", where no device can end");
  }
  return Placement{first * block_size, *end, block_size};
}

/// Reads where a tarindex wants its tar, and checks that this is right behind it.
/// @error{Errc::mismatch, no tarindex: not EROFS\, not exactly one device\, or cut short}
/// @error{Errc::corrupt, as erofs::read_superblock() and placement_of()}
inline Result<Placement> read_placement(AnySource const& tarindex) {
  EROFS_OCI_TRY_ASSIGN(auto const superblock, erofs::read_superblock(tarindex));
  auto const devices = superblock.has(erofs::incompat::device_table) ? superblock.extra_devices : 0;
  if (devices != 1) {
    return fail(Errc::mismatch, "an EROFS image with " + std::to_string(devices) +
                                    " extra devices; a tarindex of one layer has 1");
  }
  std::array<std::byte, erofs::DeviceSlot::on_disk_size> raw{};
  auto const at = std::uint64_t{superblock.device_table_slot} * raw.size();
  auto const where = "device table at offset " + std::to_string(at);
  EROFS_OCI_TRY(read_exact(tarindex, at, raw), where);
  EROFS_OCI_TRY_ASSIGN(auto const place, placement_of(superblock, erofs::DeviceSlot::decode(raw)),
                       where);
  if (place.begin != tarindex.size()) {
    return fail(Errc::mismatch, "it has " + std::to_string(tarindex.size()) +
                                    " bytes, but places its data at offset " +
                                    std::to_string(place.begin));
  }
  return place;
}

/// Cuts or fills the tar to what the tarindex describes.
/// @param try_data  as in ImageReadOptions
inline Result<DeviceImage> join(AnySource tarindex, AnySource tar, Placement const& place,
                                bool try_data) {
  auto const length = place.end - place.begin;
  auto const have = tar.size();
  if (have < length && length - have >= place.block_size) {
    return fail(Errc::mismatch, "the tar (" + describe(tar) + ") has " + std::to_string(have) +
                                    " bytes, the tarindex describes " + std::to_string(length));
  }
  if (try_data) EROFS_OCI_TRY(check_tar_start(tar));
  if (have < length) {
    EROFS_OCI_TRY_ASSIGN(auto padded, Padded<AnySource>::to_size(std::move(tar), length));
    return DeviceImage{
        AnySource(Concat<AnySource, Padded<AnySource>>(std::move(tarindex), std::move(padded))),
        place.begin + have};
  }
  if (have > length && try_data) EROFS_OCI_TRY(check_tar_end(tar, length));
  EROFS_OCI_TRY_ASSIGN(auto cut, Slice<AnySource>::make(std::move(tar), 0, length));
  return DeviceImage{
      AnySource(Concat<AnySource, Slice<AnySource>>(std::move(tarindex), std::move(cut))),
      place.end};
}

/// An EROFS image by itself, filled up to a sector.
inline Result<DeviceImage> open_native(AnySource contents) {
  auto const name = describe(contents);
  EROFS_OCI_TRY_ASSIGN(auto const superblock, erofs::read_superblock(contents),
                       name + ": no tarindex is given, so it must be an EROFS image");
  if (superblock.extra_devices != 0) {
    return fail(Errc::unsupported, name + ": an EROFS image whose data is on " +
                                       std::to_string(superblock.extra_devices) + " other devices");
  }
  auto const size = contents.size();
  EROFS_OCI_TRY_ASSIGN(auto padded, Padded<AnySource>::to_block(std::move(contents), 512), name);
  return DeviceImage{AnySource(std::move(padded)), size};
}

}  // namespace detail

EROFS_OCI_BODY Result<DeviceImage> open_image(LayerSources layer, ImageReadOptions const& options) {
  std::optional<detail::Placement> place;
  auto tarindex = std::move(layer.tarindex);
  auto const name = tarindex ? "tarindex " + describe(*tarindex) : std::string();
  if (tarindex) {
    EROFS_OCI_TRY_ASSIGN(place, detail::read_placement(*tarindex), name);
  }
  std::shared_ptr<Proof> proof;
  EROFS_OCI_TRY_ASSIGN(auto data, detail::data_of(std::move(layer), options, proof));
  EROFS_OCI_TRY_ASSIGN(auto held, detail::open_layer_data({&data, 1}, options));
  EROFS_OCI_TRY_ASSIGN(
      auto image,
      tarindex ? detail::join(*std::move(tarindex), std::move(data.blob), *place, options.try_data)
               : detail::open_native(std::move(data.blob)),
      name);
  image.held = std::move(held);
  image.proof = std::move(proof);
  if (data.start) image.starts.push_back(*std::move(data.start));
  return image;
}

}  // namespace erofs_oci
