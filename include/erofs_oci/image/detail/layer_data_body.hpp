// SPDX-License-Identifier: Apache-2.0
/// @file
/// What image/detail/layer_data.hpp only declares.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <utility>
#include <vector>

#include <erofs_oci/combinator/cached.hpp>
#include <erofs_oci/combinator/concat_list.hpp>
#include <erofs_oci/combinator/fail_fast.hpp>
#include <erofs_oci/combinator/padded.hpp>
#include <erofs_oci/combinator/proved.hpp>
#include <erofs_oci/combinator/ref.hpp>
#include <erofs_oci/combinator/slice.hpp>
#include <erofs_oci/combinator/verified.hpp>
#include <erofs_oci/core/any_source.hpp>
#include <erofs_oci/core/config.hpp>
#include <erofs_oci/core/memory_budget.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/digest/sha256.hpp>
#include <erofs_oci/digest/source_digest.hpp>
#include <erofs_oci/gzip/extra_checkpoints.hpp>
#include <erofs_oci/gzip/find_checkpoints.hpp>
#include <erofs_oci/gzip/gzran.hpp>
#include <erofs_oci/gzip/gzran_pool.hpp>
#include <erofs_oci/image/detail/layer_data.hpp>
#include <erofs_oci/image/detail/plain_need.hpp>
#include <erofs_oci/image/held_memory.hpp>

namespace erofs_oci::detail {

EROFS_OCI_BODY Result<void> check_spans(std::span<VerifiedChunk const> spans, std::uint64_t most) {
  for (auto const& span : spans) {
    if (span.end - span.begin <= most) continue;
    return fail(Errc::unsupported,
                "a span of " + std::to_string(span.end - span.begin) + " bytes at offset " +
                    std::to_string(span.begin) + " can only be read as a whole, and more than " +
                    std::to_string(most) + " are too many" + ImageMemory::advice);
  }
  return {};
}

/// What a shared Cached holds.
template <class Cache>
[[nodiscard]] HeldMemory::Part held_by(Cache const& cache) {
  auto const bytes = [cache] { return cache.inner().stats().bytes; };
  return {bytes, bytes, [cache](std::uint64_t most) { cache.inner().shrink_to(most); }};
}

/// Reads as the blob of each of `layers`, plain ones of one span size, through one cache of
/// `options.capacity` bytes. In it each begins at a whole chunk: no chunk holds bytes of two.
inline Result<HeldMemory::Part> cache_together(std::vector<AnySource*> const& layers,
                                               CacheOptions const& options) {
  if (layers.size() == 1) {
    Shared<Cached<AnySource>> const cache(Cached<AnySource>(std::move(*layers[0]), options));
    *layers[0] = AnySource(cache);
    return held_by(cache);
  }
  using Cache = Shared<Cached<ConcatList<AnySource>>>;
  std::vector<AnySource> parts;
  std::vector<std::uint64_t> sizes;
  for (auto* const layer : layers) {
    sizes.push_back(layer->size());
    EROFS_OCI_TRY_ASSIGN(auto padded,
                         Padded<AnySource>::to_block(std::move(*layer), options.chunk));
    parts.push_back(AnySource(std::move(padded)));
  }
  std::vector<std::uint64_t> begins{0};
  for (auto const& part : parts) begins.push_back(begins.back() + part.size());
  EROFS_OCI_TRY_ASSIGN(auto all, ConcatList<AnySource>::make(std::move(parts)));
  Cache const cache(Cached<ConcatList<AnySource>>(std::move(all), options));
  for (std::size_t i = 0; i < layers.size(); ++i) {
    EROFS_OCI_TRY_ASSIGN(auto slice, Slice<Cache>::make(cache, begins[i], sizes[i]));
    *layers[i] = AnySource(std::move(slice));
  }
  return held_by(cache);
}

/// ImageReadOptions::on_need or on_read for one layer; empty: nobody is told.
[[nodiscard]] inline std::function<void(std::uint64_t, std::uint64_t)> telling_of(
    LayerData const& layer, decltype(ImageReadOptions::on_need) const& told) {
  if (!layer.digest || !told) return {};
  return [digest = *layer.digest, told](std::uint64_t begin, std::uint64_t end) {
    told(digest, begin, end);
  };
}

/// find_checkpoints(), and what the rests of the pieces hash to in which it finds some.
/// @param piece  bytes of a piece of the index
inline Result<FoundCheckpoints> find_with_rests(AnySource const& blob, GzipIndex const& index,
                                                std::span<ByteRange const> read,
                                                std::uint64_t piece) {
  EROFS_OCI_TRY_ASSIGN(auto found, find_checkpoints(blob, index, read, {.piece = piece}));
  for (std::size_t i = 0; i < found.points.size(); ++i) {
    auto const begin = found.points[i].start.first_byte();
    EROFS_OCI_TRY_ASSIGN(found.points[i].rest,
                         digest_of_source(blob, begin, found.piece_ends[i] - begin));
  }
  return found;
}

/// Decodes a layer in place of its blob.
inline Result<void> decode_layer(LayerData& layer, std::shared_ptr<GzranPool> const& pool,
                                 ImageReadOptions const& options) {
  using Decoded = Gzran<AnySource>;
  auto const remote = is_remote(layer.blob);
  auto const blob_size = layer.blob.size();
  EROFS_OCI_TRY_ASSIGN(auto decoded,
                       Decoded::make(std::move(layer.blob), *std::move(layer.gzip),
                                     {.deadline = options.deadline,
                                      .granule = layer.granule,
                                      .size = layer.decoded_size,
                                      .pool = pool,
                                      .on_need = telling_of(layer, options.on_need),
                                      .on_read = telling_of(layer, options.on_read)}),
                       layer.name);
  Shared<Decoded> const shared(std::move(decoded));
  layer.blob = AnySource(shared);
  if (!layer.digest || !remote) return {};
  layer.start = StartLayer{
      *layer.digest,
      blob_size,
      [shared](std::uint64_t at) { return shared.inner().next_span(at); },
      [shared](std::uint64_t begin, std::uint64_t end, std::stop_token const& stop) {
        return shared.inner().fetch(begin, end, stop);
      },
      [shared, piece = layer.granule](AnySource const& blob, std::span<ByteRange const> read) {
        return find_with_rests(blob, shared.inner().index(), read, piece);
      },
      std::move(layer.extra),
      std::move(layer.entry)};
  return {};
}

/// Lets parts of a plain layer, which is kept in chunks already, be fetched ahead.
inline void fetch_plain_ahead(LayerData& layer, std::shared_ptr<GzranPool> const& pool,
                              ImageReadOptions const& options) {
  if (!layer.digest || !is_remote(layer.blob)) return;
  Shared<PlainNeed<AnySource>> const shared(
      PlainNeed<AnySource>(std::move(layer.blob), std::max<std::uint64_t>(layer.span_size, 1), pool,
                           telling_of(layer, options.on_need)));
  layer.blob = AnySource(shared);
  layer.start =
      StartLayer{*layer.digest,
                 shared.size(),
                 [shared](std::uint64_t at) { return shared.inner().next_chunk(at); },
                 [shared](std::uint64_t begin, std::uint64_t end, std::stop_token const& stop) {
                   return shared.inner().fetch(begin, end, stop);
                 },
                 {},
                 {},
                 {}};
}

EROFS_OCI_BODY Result<LayerData> stored_data(AnySource blob, StoredLayer const& stored,
                                             std::string name) {
  auto const& index = stored.index.index;
  if (blob.size() != index.blob_size) {
    return fail(Errc::mismatch, describe(blob) + ": " + std::to_string(blob.size()) +
                                    " bytes, its index is for " + std::to_string(index.blob_size));
  }
  LayerData data{.name = std::move(name), .blob = std::move(blob)};
  data.digests = add_rests(index.chunks(), stored.extra);
  data.granule = index.piece_size;
  data.decoded_size = index.decoded_size;
  data.span_size = index.span_size;
  if (index.blob != Digest()) data.digest = index.blob;
  data.entry = stored.entry;
  if (index.encoding != BlobEncoding::plain) {
    data.gzip = add_checkpoints(stored.index.gzip(), stored.extra);
    data.extra = stored.extra;
  }
  return data;
}

EROFS_OCI_BODY Result<HeldMemory> open_layer_data(std::span<LayerData> layers,
                                                  ImageReadOptions const& options) {
  std::map<std::uint64_t, std::vector<AnySource*>> plain;  // by span size
  for (auto& layer : layers) {
    auto const kept = layer.digests || layer.proof || is_remote(layer.blob);
    if (layer.digests) {
      EROFS_OCI_TRY(check_spans(*layer.digests, options.max_span), layer.name);
      EROFS_OCI_TRY_ASSIGN(
          auto checked,
          (Verified<AnySource, Sha256>::make(std::move(layer.blob), *std::move(layer.digests))),
          layer.name);
      layer.blob = AnySource(std::move(checked));
    }
    if (kept && !layer.gzip) {
      plain[std::max<std::uint64_t>(layer.span_size, 1)].push_back(&layer.blob);
    }
  }

  auto const any_gzip =
      std::ranges::any_of(layers, [](auto const& layer) { return layer.gzip.has_value(); });
  auto const for_plain = plain.empty() ? 0 : options.cache_bytes / (any_gzip ? 4 : 1);
  auto const pool = std::make_shared<GzranPool>(options.cache_bytes - for_plain,
                                                std::max(options.connections, 1U));
  std::vector<HeldMemory::Part> caches;
  caches.push_back({[pool] { return pool->used(); }, [pool] { return pool->held(); },
                    [pool](std::uint64_t bytes) { pool->shrink_to(bytes); }});
  for (auto const& [span_size, blobs] : plain) {
    EROFS_OCI_TRY_ASSIGN(auto held, cache_together(blobs, {.capacity = for_plain / plain.size(),
                                                           .chunk = span_size,
                                                           .wait = options.deadline}));
    caches.push_back(std::move(held));
  }
  for (auto& layer : layers) {
    if (!layer.gzip) {
      fetch_plain_ahead(layer, pool, options);
      continue;
    }
    EROFS_OCI_TRY(decode_layer(layer, pool, options));
  }
  for (auto& layer : layers) {
    if (is_remote(layer.blob)) layer.blob = AnySource(FailFast(std::move(layer.blob)));
    if (layer.proof) layer.blob = AnySource(Guarded(std::move(layer.blob), layer.proof));
  }
  return HeldMemory(std::move(caches));
}

}  // namespace erofs_oci::detail
