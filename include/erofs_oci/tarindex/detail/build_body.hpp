// SPDX-License-Identifier: Apache-2.0
/// @file
/// What tarindex/build.hpp only declares.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>

#include <erofs_oci/core/any_source.hpp>
#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/config.hpp>
#include <erofs_oci/core/function_ref.hpp>
#include <erofs_oci/core/memory_budget.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/core/source.hpp>
#include <erofs_oci/digest/digest.hpp>
#include <erofs_oci/digest/sha256.hpp>
#include <erofs_oci/erofs/tree.hpp>
#include <erofs_oci/erofs/write_options.hpp>
#include <erofs_oci/erofs/writer.hpp>
#include <erofs_oci/gzip/layer_index.hpp>
#include <erofs_oci/gzip/magic.hpp>
#include <erofs_oci/tar/decoder.hpp>
#include <erofs_oci/tar/entry.hpp>
#include <erofs_oci/tarindex/build.hpp>
#include <erofs_oci/tarindex/layer.hpp>
#include <erofs_oci/tarindex/layer_index_builder.hpp>

namespace erofs_oci::tarindex {

EROFS_OCI_BODY std::string data_name(LayerIndex const& index) {
  return (index.diff_id != Digest() ? index.diff_id : index.blob).hex();
}

EROFS_OCI_BODY erofs::Device device_of(LayerIndex const& index) {
  constexpr std::uint64_t block = 512;
  return {index.decoded_size / block + (index.decoded_size % block != 0 ? 1 : 0), data_name(index)};
}

EROFS_OCI_BODY Result<void> write_tarindex(BuiltLayer& built, erofs::Addressing addressing) {
  // The kernel reads whole pages: one with metadata and data could be read only if both are right.
  EROFS_OCI_TRY_ASSIGN(auto const writer,
                       erofs::Writer::make(built.layer.tree, {device_of(built.index)},
                                           {addressing, erofs::Marks::trusted, erofs::Implied::keep,
                                            erofs::page_size}));
  built.tarindex = writer.to_bytes();
  built.dropped_xattrs = writer.dropped_xattr_count();
  built.index.tarindex = digest_of(built.tarindex);
  built.index.tarindex_size = built.tarindex.size();
  return {};
}

namespace detail {

EROFS_OCI_BODY Result<BlobEncoding> encoding_of(std::span<std::byte const> start) {
  switch (compression_of(start)) {
    case Compression::none: return BlobEncoding::plain;
    case Compression::gzip: return BlobEncoding::gzip;
    case Compression::zstd: break;
  }
  return fail(Errc::unsupported, "offset 0: a zstd layer, which cannot be read at random");
}

EROFS_OCI_BODY Result<void> read_through(
    AnySource const& blob, BuildOptions const& options,
    FunctionRef<Result<void>(std::span<std::byte const> piece)> take) {
  std::uint64_t done = 0;
  Result<void> taken;
  auto const ok = stream(blob, 0, blob.size(), [&](std::span<std::byte const> piece) {
    done += piece.size();
    options.layer.memory->came(piece.size());
    if (options.stop.stop_requested()) {
      taken = fail(Errc::stopping, "index");
    } else if (std::chrono::steady_clock::now() >= options.deadline) {
      taken =
          fail(Errc::timed_out, "not indexed in the time there is: set a longer oci.index_time");
    } else {
      taken = take(piece);
    }
    if (taken && options.progress) options.progress(done);
    return taken.has_value();
  });
  return taken ? ok : taken;
}

EROFS_OCI_BODY Result<BuiltLayer> build_layer_of(AnySource const& blob, BuildOptions const& given) {
  constexpr std::uint64_t usual_decoded = std::uint64_t{64} << 30;
  constexpr std::uint64_t usual_ratio = 64;
  auto options = given;
  if (!options.layer.memory) options.layer.memory = std::make_shared<ImageMemory>();
  auto const name = describe(blob);
  std::uint64_t came = 0;
  std::uint64_t decoded = 0;
  LayerBuilder builder(options.layer);
  tar::Decoder tar;
  auto const visit = [&](tar::Entry&& entry) { return builder.apply(std::move(entry)); };
  std::optional<LayerIndexBuilder<>> pass;  // last: its thread ends first
  auto const begin = [&](BlobEncoding encoding) {
    auto const span_size = (encoding == BlobEncoding::plain ? 4 : 1) * options.span_size;
    pass.emplace(LayerIndexOptions{encoding, span_size, options.layer.memory},
                 [&](std::span<std::byte const> bytes) -> Result<void> {
                   decoded += bytes.size();
                   auto const most =
                       options.max_decoded.value_or(std::max(usual_decoded, usual_ratio * came));
                   if (decoded <= most) return tar.push(bytes, visit);
                   return fail(Errc::unsupported,
                               "decodes to more than " + std::to_string(most) +
                                   " bytes: if you trust the layer, set a larger oci.index_size");
                 });
  };
  Bytes start;  // until there are enough bytes to tell the encoding from
  auto const take = [&](std::span<std::byte const> piece) -> Result<void> {
    came += piece.size();
    if (pass) return pass->push(piece);
    start.insert(start.end(), piece.begin(), piece.end());
    if (start.size() < 4 && start.size() < blob.size()) return {};
    EROFS_OCI_TRY_ASSIGN(auto const encoding, encoding_of(start));
    begin(encoding);
    return pass->push(start);
  };
  EROFS_OCI_TRY(read_through(blob, options, take), name);
  if (!pass) begin(BlobEncoding::plain);

  BuiltLayer built;
  EROFS_OCI_TRY_ASSIGN(built.index, pass->finish(), name);
  EROFS_OCI_TRY(tar.finish(visit), name + ": tar");
  built.layer = std::move(builder).finish();
  for (auto const& report : tar.reports().list()) {
    built.layer.reports.add(report.offset, report.text);
  }
  EROFS_OCI_TRY(write_tarindex(built, options.addressing), name);
  return built;
}

}  // namespace detail
}  // namespace erofs_oci::tarindex
