// SPDX-License-Identifier: Apache-2.0
/// @file
/// DiskCached: keeps chunks of a blob on disk, for all processes that read it.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <utility>

#include <erofs_oci/cache/cached_blob.hpp>
#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/clock.hpp>
#include <erofs_oci/core/source.hpp>
#include <erofs_oci/source/stream_exact.hpp>

namespace erofs_oci {

/// How a DiskCached source fetches.
struct DiskCachedOptions {
  /// Longest that a request waits, without a byte, for chunks that others fetch; then it fetches
  /// them, too. Default: 5 s.
  std::chrono::milliseconds patience{5'000};
};

/// Reads as `Inner`, from disk where it can, and keeps what it fetches there.
///
/// Fetches whole chunks: the missing ones side by side come in one stream of `Inner`, of which each
/// byte is handed on when it arrives. Chunks that another reader fetches, also in another process,
/// are waited for. A disk that fails, is full or read-only costs requests, and is never an error.
///
/// What is kept are the bytes that `Inner` gave. Put what checks them above: it tells by forget()
/// that they were wrong. No lock is held while `Inner` works or a sink is called, but for the
/// claims of the chunks that come.
///
/// @par Thread safety
/// All const members, from any thread.
template <RandomAccessSource Inner, BlobFiles Files = SystemFiles, Clock Time = SteadyClock>
class DiskCached {
 public:
  using Blob = BasicCachedBlob<Files>;

  /// Owns `inner`.
  /// @param blob  of the same size
  DiskCached(Inner inner, Blob blob, DiskCachedOptions options = {}, Time time = {})
      : inner_(std::move(inner)),
        blob_(std::move(blob)),
        patience_(options.patience),
        time_(std::move(time)) {}

  /// @name RandomAccessSource
  /// @{

  /// As `inner`; is_remote() and describe(), too.
  [[nodiscard]] std::uint64_t size() const noexcept { return inner_.size(); }

  [[nodiscard]] Result<std::size_t> read_at(std::uint64_t offset, std::span<std::byte> out) const {
    return read_by(size(), offset, out, [this](std::uint64_t at, std::uint64_t n, ByteSink sink) {
      return walk(at, n, sink);
    });
  }

  /// One inner stream for each run of missing chunks.
  [[nodiscard]] Result<void> stream(std::uint64_t offset, std::uint64_t length,
                                    ByteSink sink) const {
    return walk(offset, streamable(size(), offset, length), sink);
  }

  /// All chunks that hold one of these bytes.
  bool forget(std::uint64_t offset, std::uint64_t length) const {
    length = streamable(size(), offset, length);
    if (length == 0) return false;
    auto const kept = blob_.forget(offset / chunk(), (offset + length - 1) / chunk() + 1);
    return erofs_oci::forget(inner_, offset, length) || kept;
  }
  /// @}

  /// The layer below.
  [[nodiscard]] Inner const& inner() const noexcept { return inner_; }

  /// What is kept.
  [[nodiscard]] Blob const& blob() const noexcept { return blob_; }

 private:
  using Claim = typename Blob::Claim;

  static constexpr std::uint64_t most_claimed = 128;       // chunks that others wait for at a time
  static constexpr std::uint64_t most_streamed = 1 << 15;  // chunks in one request

  /// Where a request stands: the bytes [offset, end) are still wanted.
  struct Request {
    std::uint64_t offset;
    std::uint64_t end;
    ByteSink sink;
    // Of its waiting for a chunk of others; empty: it does not wait.
    std::optional<std::chrono::steady_clock::time_point> deadline{};
    Bytes buffer{};        // of one chunk
    bool stopped = false;  // by its sink

    [[nodiscard]] bool is_done() const noexcept { return stopped || offset >= end; }

    /// Hands on what is wanted of a piece at `at`, which does not begin behind `offset`.
    void emit(std::uint64_t at, std::span<std::byte const> piece) {
      auto const to = std::min(at + piece.size(), end);
      if (is_done() || to <= offset) return;
      auto const part = piece.subspan(static_cast<std::size_t>(offset - at),
                                      static_cast<std::size_t>(to - offset));
      offset = to;
      deadline.reset();
      stopped = !sink(part);
    }
  };

  [[nodiscard]] std::uint64_t chunk() const noexcept { return blob_.layout().chunk; }

  [[nodiscard]] Result<void> walk(std::uint64_t offset, std::uint64_t length, ByteSink sink) const {
    Request request{offset, offset + length, sink};
    while (!request.is_done()) {
      auto const index = request.offset / chunk();
      request.buffer.resize(blob_.layout().bytes_in(index));
      if (blob_.read(index, request.buffer)) {
        request.emit(index * chunk(), request.buffer);
        continue;
      }
      auto claim =
          blob_.claim(index, std::min(most_claimed, (request.end - 1) / chunk() + 1 - index));
      if (!claim && !request.deadline) request.deadline = time_.now() + patience_;
      if (!claim && time_.now() < *request.deadline) {
        blob_.wait();
        request.stopped = !request.sink({});
        continue;
      }
      // Somebody may have stored it between the two.
      if (claim && blob_.read(index, request.buffer)) {
        claim.reset();
        request.emit(index * chunk(), request.buffer);
        continue;
      }
      EROFS_OCI_TRY(fetch(index, request, std::move(claim)));
    }
    return {};
  }

  /// Fetches from chunk `index` on, until one comes that is there or that another reader fetches.
  [[nodiscard]] Result<void> fetch(std::uint64_t index, Request& request,
                                   std::optional<Claim> claim) const {
    auto const begin = index * chunk();
    auto const wanted = (request.end - 1) / chunk();
    auto const last =
        index + blob_.missing_run(index, std::min(wanted, index + most_streamed - 1)) - 1;
    auto stop = last + 1;  // what others have not stored meanwhile ends here
    auto at = begin;
    std::size_t filled = 0;
    auto const take = [&](std::span<std::byte const> piece) {
      if (piece.empty() && !request.is_done()) request.stopped = !request.sink({});
      while (!piece.empty() && !request.stopped) {
        auto const size = blob_.layout().bytes_in(index);
        request.buffer.resize(size);
        auto const part = piece.first(std::min(piece.size(), size - filled));
        std::ranges::copy(part, request.buffer.begin() + static_cast<std::ptrdiff_t>(filled));
        request.emit(at, part);
        at += part.size();
        filled += part.size();
        piece = piece.subspan(part.size());
        if (filled < size) continue;
        blob_.write(index++, request.buffer);
        filled = 0;
        if (!claim) continue;
        claim->pass(index);
        if (index <= last && index == claim->end()) {
          if (!claim->extend(std::min(most_claimed, last + 1 - index)) || blob_.has(index)) {
            return false;
          }
          auto const run = blob_.missing_run(index, claim->end() - 1);
          if (index + run < claim->end()) stop = index + run;
        }
        if (index == stop) return false;
      }
      return !request.stopped;
    };
    auto const end = last * chunk() + blob_.layout().bytes_in(last);
    auto streamed = stream_inside(inner_, begin, end - begin, take);
    if (request.is_done()) return {};  // what is missing was not asked for
    return std::move(streamed.status);
  }

  Inner inner_;
  Blob blob_;
  std::chrono::milliseconds patience_;
  Time time_;
};

}  // namespace erofs_oci
