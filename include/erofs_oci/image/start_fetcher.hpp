// SPDX-License-Identifier: Apache-2.0
/// @file
/// StartFetcher: fetches what a StartList names, before reads ask for it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include <erofs_oci/core/any_source.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/digest/digest.hpp>
#include <erofs_oci/gzip/extra_checkpoints.hpp>
#include <erofs_oci/gzip/find_checkpoints.hpp>
#include <erofs_oci/image/start_list.hpp>

namespace erofs_oci {

/// A layer of an open image, of which parts can be fetched before they are read.
struct StartLayer {
  Digest digest;           ///< SHA-256 of the blob
  std::uint64_t size = 0;  ///< of the blob, in bytes
  /// The first place at a byte of the blob or behind it where a fetch can begin; `size` if there is
  /// none. From any thread.
  std::function<std::uint64_t(std::uint64_t at)> next_begin;
  /// Fetches bytes [begin, end) of the blob to where reads find them, in the calling thread, when
  /// no read waits for the registry. Yields how many came. From any thread.
  std::function<Result<std::uint64_t>(std::uint64_t begin, std::uint64_t end,
                                      std::stop_token const& stop)>
      fetch;
  /// find_checkpoints() for ranges of its decoded stream that were read; empty: it is no gzip.
  /// `blob` has what was fetched of it, and an error in place of the rest.
  std::function<Result<FoundCheckpoints>(AnySource const& blob, std::span<ByteRange const> read)>
      find_checkpoints{};
  ExtraCheckpoints extra{};  ///< that it is read by
  std::string entry{};       ///< as StoredLayer::entry
};

/// How a StartFetcher fetches.
struct StartFetchOptions {
  unsigned threads = 4;                 ///< ranges at the same time. Range: 1 to 64. Default: 4
  std::uint64_t most_bytes = 32 << 20;  ///< of all together. Default: 32 MiB
  std::uint64_t request = 1 << 20;      ///< one range has about so many bytes. Default: 1 MiB
  std::uint64_t gap = 64 << 10;         ///< bytes that cost less than a request. Default: 64 KiB
  std::function<void(Error const&)> on_failure{};  ///< told what ended it early, by any thread
};

/// One range to fetch.
struct PlannedFetch {
  std::size_t layer = 0;  ///< which of the layers
  std::uint64_t begin = 0;
  std::uint64_t end = 0;

  friend bool operator==(PlannedFetch const&, PlannedFetch const&) = default;
};

/// What is fetched for a list, in order: ranges that lie closer together than `gap` are one, in the
/// place of the first of them; a long one is cut where a fetch can begin; and it ends with the
/// range that reaches `most_bytes`. Layers that the list does not know, and ranges of layers that
/// are not there, are left out.
[[nodiscard]] std::vector<PlannedFetch> plan_start(StartList const& list,
                                                   std::vector<StartLayer> const& layers,
                                                   StartFetchOptions const& options = {});

/// Fetches a plan, each range once, by some threads, from its construction on. The first error ends
/// it, as does its end, or a stop.
///
/// @par Thread safety
/// fetched(), from any thread.
class StartFetcher {
 public:
  /// Never fails: without memory or threads, less is fetched or nothing.
  /// @param plan    of `layers`, as plan_start() makes it
  /// @param stop    ends it, too
  StartFetcher(std::vector<PlannedFetch> plan, std::vector<StartLayer> layers,
               StartFetchOptions const& options, std::stop_token stop = {});

  StartFetcher(StartFetcher const&) = delete;
  StartFetcher& operator=(StartFetcher const&) = delete;
  /// Asks for a stop and waits for the threads.
  ~StartFetcher();

  /// How much has come.
  struct Fetched {
    std::uint64_t bytes = 0;  ///< from the registry or from disk
    StartList list;           ///< the ranges that have come in full
    bool done = false;        ///< nothing more comes
  };
  [[nodiscard]] Fetched fetched() const;

 private:
  void run() noexcept;
  [[nodiscard]] std::optional<PlannedFetch> next();
  void note(PlannedFetch const& piece, Result<std::uint64_t> const& came);

  std::vector<PlannedFetch> const plan_;
  std::vector<StartLayer> const layers_;
  std::function<void(Error const&)> const on_failure_;
  std::stop_source stop_;
  std::optional<std::stop_callback<std::function<void()>>> at_stop_;

  mutable std::mutex mutex_;
  std::size_t next_ = 0;
  std::size_t running_ = 0;
  Fetched fetched_;  // but for `done`

  std::vector<std::jthread> threads_;  // last: joined first
};

}  // namespace erofs_oci

#ifndef EROFS_OCI_COMPILED
#include <erofs_oci/image/detail/start_fetcher_body.hpp>
#endif
