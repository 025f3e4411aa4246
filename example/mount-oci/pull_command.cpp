// SPDX-License-Identifier: Apache-2.0
// pull: all of an image onto this machine, without unpacking it.
#include <algorithm>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <erofs_oci/core/source.hpp>
#include <erofs_oci/core/thread_pool.hpp>
#include <erofs_oci/digest/sha256.hpp>

#include "indexing.hpp"
#include "layer_cache.hpp"
#include "progress.hpp"
#include "reading.hpp"

namespace mount_oci {
namespace {

using erofs_oci::AnySource;
using erofs_oci::Digest;
using erofs_oci::fail;
using erofs_oci::Shared;

/// Reads a blob to its end, which fetches what is not kept, and compares it with its digest.
template <class Tell>
Result<void> read_through(Shared<AnySource> const& blob, Digest const& wanted,
                          std::stop_token const& stop, Tell const& tell) {
  erofs_oci::Hasher hash(wanted.algorithm());
  std::uint64_t done = 0;
  EROFS_OCI_TRY(blob.stream(0, blob.size(), [&](std::span<std::byte const> piece) {
    hash.update(piece);
    tell(done += piece.size());
    return !stop.stop_requested();
  }));
  if (stop.stop_requested()) return fail(Errc::stopping, "pull");
  if (auto const found = hash.finish(); found != wanted) {
    return fail(Errc::digest_mismatch,
                describe(blob) + ": its bytes are " + found.to_string() + ", not that");
  }
  return {};
}

/// read_through(); wrong bytes that were kept are fetched anew, once.
template <class Tell>
Result<void> fetch_blob(Shared<AnySource> const& blob, Digest const& wanted,
                        std::stop_token const& stop, Tell const& tell) {
  auto const is_wrong = [](auto const& done) {
    return !done && done.error().code == Errc::digest_mismatch;
  };
  return erofs_oci::read_past_kept(
      blob, [&] { return read_through(blob, wanted, stop, tell); }, is_wrong);
}

Result<void> fetch_layers(FoundImage const& found, Reading const& reading) {
  std::uint64_t bytes = 0;
  for (auto const& layer : found.layers) bytes += layer.blob.size();
  Progress progress(reading.log, found.layers.size(), bytes);
  auto const stop = reading.guard.stop_token();
  std::mutex mutex;
  Result<void> outcome;
  {
    erofs_oci::ThreadPool workers(reading.options.image.connections, found.layers.size() + 1);
    for (auto const& layer : found.layers) {
      workers.submit([&] {
        auto const total = layer.blob.size();
        auto const done = erofs_oci::without_throwing([&] {
          return fetch_blob(layer.blob, layer.descriptor.digest, stop, [&](std::uint64_t so_far) {
            progress.update({layer.number, so_far, total});
          });
        });
        std::lock_guard const lock(mutex);
        if (!done && outcome) {
          outcome = fail(done.error(), erofs_oci::layer_name(layer.number, layer.descriptor));
        }
      });
    }
  }
  return outcome;
}

}  // namespace

Result<Status> run_pull(Reading const& reading) {
  auto const& options = reading.options.image;
  if (has_own_index(options)) {
    return fail(Errc::invalid_argument,
                "pull: oci.tarindex and oci.zinfo cannot be set, pull makes such indexes");
  }
  auto const blobs = options.layer_cache->blobs(reading.log);
  if (!blobs) {
    return fail(Errc::invalid_argument,
                "pull: there is no directory to keep layers in; oci.cache_dir names one");
  }
  options.layer_cache->ask_anew();  // an index that has come there since
  EROFS_OCI_TRY_ASSIGN(auto found, find_image(options, reading.log));
  std::uint64_t bytes = 0;
  for (auto const& layer : found.layers) {
    if (!is_remote(layer.blob)) {
      return fail(Errc::invalid_argument, found.name + ": is on this machine already");
    }
    bytes += layer.blob.size();
  }
  if (bytes > blobs->limit()) {
    reading.log.say(Level::warning, found.name + " has " + size_text(bytes) + ", of which " +
                                        blobs->path() + " keeps at most " +
                                        size_text(blobs->limit()) + ": oci.cache_size allows more");
  }
  EROFS_OCI_TRY(index_image(found, options, reading.log, &reading.guard), found.name);
  {
    ExitOnSignal::Pause const pause(reading.guard);
    EROFS_OCI_TRY(fetch_layers(found, reading), found.name);
    if (found.config && found.config_at) {
      EROFS_OCI_TRY(fetch_blob(*found.config, found.config_at->digest, reading.guard.stop_token(),
                               [](std::uint64_t) {}),
                    found.name);
    }
  }
  auto const fetched = blobs->counts().missed_bytes;
  auto const is_complete = std::ranges::all_of(
      found.layers, [&](auto const& layer) { return options.layer_cache->has_all(layer); });
  auto const digest = found.digest ? found.digest->to_string() : std::string();
  if (reading.options.read.json) {
    EROFS_OCI_TRY(reading.output.put_json({{"image", found.name},
                                           {"digest", digest},
                                           {"layers", found.layers.size()},
                                           {"size", bytes},
                                           {"fetched", fetched},
                                           {"complete", is_complete}}));
  } else {
    EROFS_OCI_TRY(reading.output.put(reading.output.shown(found.name) + ": " + digest + ", " +
                                     counted(found.layers.size(), "layer") + ", " +
                                     size_text(bytes) + ", " + size_text(fetched) + " fetched" +
                                     (is_complete ? "" : ", not kept in full") + "\n"));
  }
  return is_complete ? 0 : 1;
}

}  // namespace mount_oci
