// SPDX-License-Identifier: Apache-2.0
/// @file
/// build_layer: a layer's tarindex and index file from one pass over its blob.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <utility>

#include <erofs_oci/core/any_source.hpp>
#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/digest/digest.hpp>
#include <erofs_oci/erofs/writer.hpp>
#include <erofs_oci/gzip/build_layer.hpp>
#include <erofs_oci/gzip/index_file.hpp>
#include <erofs_oci/tar/decoder.hpp>
#include <erofs_oci/tarindex/layer.hpp>

namespace erofs_oci::tarindex {

/// How to build a layer's indexes.
struct BuildOptions {
  std::uint64_t span_size = 4 << 20;  ///< decoded bytes between checkpoints. Range: 64 KiB or more
  LayerOptions layer{};
  erofs::Addressing addressing = erofs::Addressing::device_table;
  /// Told of the blob's bytes done so far, on the building thread. May be empty.
  std::function<void(std::uint64_t done)> progress{};
  std::stop_token stop{};  ///< ends the build early
};

/// A layer's indexes.
struct BuiltLayer {
  LayerIndex index;                  ///< names the tarindex by its digest
  Layer layer;                       ///< the tree; its data are on device 1
  Bytes tarindex;                    ///< EROFS image of the tree
  std::uint64_t dropped_xattrs = 0;  ///< attributes that no image can hold, and that are left out
};

/// What a layer's data are called in a device table: its diffID, or the blob's digest where that is
/// not known.
[[nodiscard]] inline std::string data_name(LayerIndex const& index) {
  return (index.diff_id != Digest() ? index.diff_id : index.blob).hex();
}

/// The blocks of a layer's tar: all of the stream, so that layers can simply follow each other.
[[nodiscard]] inline erofs::Device device_of(LayerIndex const& index) {
  constexpr std::uint64_t block = 512;
  return {index.decoded_size / block + (index.decoded_size % block != 0 ? 1 : 0), data_name(index)};
}

/// Writes the image of `built.layer`'s tree, with overlay marks, and names it in `built.index`,
/// whose sizes and digests are known by then.
/// @error{as erofs::Writer::make(), as there}
template <Hash H>
[[nodiscard]] Result<void> write_tarindex(
    BuiltLayer& built, erofs::Addressing addressing = erofs::Addressing::device_table) {
  erofs::WriteOptions options;
  options.addressing = addressing;
  options.marks = erofs::Marks::trusted;
  options.implied = erofs::Implied::keep;
  auto const writer =
      erofs::Writer::make(built.layer.tree, {device_of(built.index)}, std::move(options));
  if (!writer) return fail(writer.error());
  built.tarindex = writer->to_bytes();
  built.dropped_xattrs = writer->dropped_xattr_count();
  H hash;
  hash.update(built.tarindex);
  built.index.tarindex = hash.finish();
  built.index.tarindex_size = built.tarindex.size();
  return {};
}

namespace detail {

// What a blob's first bytes say.
[[nodiscard]] inline Result<BlobEncoding> encoding_of(std::span<std::byte const> start) {
  auto const begins_with = [&](auto... bytes) {
    std::array const magic{static_cast<std::byte>(bytes)...};
    return start.size() >= magic.size() && std::ranges::equal(magic, start.first(magic.size()));
  };
  if (begins_with(0x1f, 0x8b)) return BlobEncoding::gzip;
  if (begins_with(0x28, 0xb5, 0x2f, 0xfd)) {
    return fail(Errc::unsupported, "offset 0: a zstd layer, which cannot be read at random");
  }
  return BlobEncoding::plain;
}

// Both halves of the pass: the blob's index and the tar's tree.
template <Hash H>
class LayerPass {
 public:
  LayerPass(BlobEncoding encoding, BuildOptions const& options)
      : builder_(options.layer),
        index_({encoding, options.span_size},
               [this](std::span<std::byte const> bytes) { return tar_.push(bytes, visit()); }) {}

  [[nodiscard]] Result<void> push(std::span<std::byte const> piece) { return index_.push(piece); }

  [[nodiscard]] Result<BuiltLayer> finish(BuildOptions const& options) {
    BuiltLayer built;
    auto index = index_.finish();
    if (!index) return fail(index.error());
    if (auto const ok = tar_.finish(visit()); !ok) return fail(ok.error(), "tar");
    built.index = *std::move(index);
    built.layer = std::move(builder_).finish();
    for (auto const& report : tar_.reports().list()) {
      built.layer.reports.add(report.offset, report.text);
    }
    if (auto const ok = write_tarindex<H>(built, options.addressing); !ok) return fail(ok.error());
    return built;
  }

 private:
  // Held by the object, since FunctionRef only borrows.
  tar::Decoder::Visit visit() { return visit_; }

  struct Apply {
    LayerBuilder* builder;
    Result<void> operator()(tar::Entry&& entry) const { return builder->apply(std::move(entry)); }
  };

  LayerBuilder builder_;
  Apply visit_{&builder_};
  tar::Decoder tar_;
  LayerIndexBuilder<H> index_;
};

}  // namespace detail

/// Reads `blob` once, front to back, and makes its indexes. Gzip CRCs and lengths, the tar's
/// headers and its completeness are checked on the way; whether the digests are those that the
/// caller expects, the caller must look.
///
/// The same blob and options give the same bytes, on any machine.
/// @error{Errc::corrupt, no gzip\, or no tar; the text gives the offset}
/// @error{Errc::truncated, the blob ends inside a member of the gzip or of the tar}
/// @error{Errc::unsupported, zstd\, or a file that no image can hold; the text names it}
/// @error{Errc::stopping, a stop was asked for}
template <Hash H>
[[nodiscard]] Result<BuiltLayer> build_layer(RandomAccessSource auto const& blob,
                                             BuildOptions const& options = {}) {
  auto const name = describe(blob);
  std::unique_ptr<detail::LayerPass<H>> pass;
  Bytes start;  // until there are enough bytes to tell the encoding from
  std::uint64_t done = 0;
  Result<void> inside;
  auto const take = [&](std::span<std::byte const> piece) {
    if (options.stop.stop_requested()) {
      inside = fail(Errc::stopping, "index");
      return false;
    }
    done += piece.size();
    if (pass == nullptr) {
      start.insert(start.end(), piece.begin(), piece.end());
      if (start.size() < 4 && done < blob.size()) return true;
      auto const encoding = detail::encoding_of(start);
      if (!encoding) {
        inside = fail(encoding.error());
        return false;
      }
      pass = std::make_unique<detail::LayerPass<H>>(*encoding, options);
      inside = pass->push(start);
    } else {
      inside = pass->push(piece);
    }
    if (inside && options.progress) options.progress(done);
    return inside.has_value();
  };
  auto const ok = stream(blob, 0, blob.size(), take);
  if (!inside) return fail(inside.error(), name);
  if (!ok) return fail(ok.error(), name);
  if (pass == nullptr) pass = std::make_unique<detail::LayerPass<H>>(BlobEncoding::plain, options);
  auto built = pass->finish(options);
  if (!built) return fail(built.error(), name);
  return built;
}

}  // namespace erofs_oci::tarindex
