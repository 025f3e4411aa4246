// SPDX-License-Identifier: Apache-2.0
/// @file
/// Instrumented: tells a sink about every request; Metrics is a sink that counts.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <system_error>
#include <utility>

#include <erofs_oci/core/clock.hpp>
#include <erofs_oci/core/source.hpp>

namespace erofs_oci {

/// The result of one request to a source. A whole stream is one request.
struct RequestRecord {
  /// How the source was asked.
  enum class Kind { read, stream };

  Kind kind = Kind::read;
  std::uint64_t offset = 0;
  std::uint64_t wanted = 0;                    ///< bytes asked for
  std::uint64_t bytes = 0;                     ///< bytes that came
  std::chrono::steady_clock::duration took{};  ///< until the last byte, the sink's time included
  std::error_code error{};                     ///< zero for a success
};

/// Takes records, from any thread at once.
template <class S>
concept RecordSink = std::movable<S> && std::invocable<S const&, RequestRecord const&>;

/// Counts requests. The reader of the counters owns it; a RecordTo passes records to it.
///
/// @par Thread safety
/// All members, from any thread. The counters are each exact, but not of one moment.
class Metrics {
 public:
  /// Buckets of latency: bucket i counts the requests that took less than 2^i microseconds, and
  /// not less than the bucket before; the last one counts all that took longer.
  static constexpr std::size_t buckets = 26;

  /// The counters at some moment.
  struct Counts {
    std::uint64_t reads = 0;
    std::uint64_t streams = 0;
    std::uint64_t errors = 0;  ///< of both kinds
    std::uint64_t bytes = 0;   ///< that came
    std::array<std::uint64_t, buckets> latency{};
  };

  void record(RequestRecord const& record) noexcept {
    auto& kind = record.kind == RequestRecord::Kind::read ? reads_ : streams_;
    kind.fetch_add(1, std::memory_order_relaxed);
    if (record.error) errors_.fetch_add(1, std::memory_order_relaxed);
    bytes_.fetch_add(record.bytes, std::memory_order_relaxed);
    latency_[bucket_of(record.took)].fetch_add(1, std::memory_order_relaxed);
  }

  [[nodiscard]] Counts counts() const noexcept {
    Counts counts{reads_.load(), streams_.load(), errors_.load(), bytes_.load(), {}};
    for (std::size_t i = 0; i < buckets; ++i) counts.latency[i] = latency_[i].load();
    return counts;
  }

  /// The bucket of a latency.
  [[nodiscard]] static std::size_t bucket_of(std::chrono::steady_clock::duration took) noexcept {
    auto const us = std::chrono::duration_cast<std::chrono::microseconds>(took).count();
    auto const width = std::bit_width(static_cast<std::uint64_t>(std::max<std::int64_t>(us, 0)));
    return std::min(static_cast<std::size_t>(width), buckets - 1);
  }

 private:
  std::atomic<std::uint64_t> reads_{0};
  std::atomic<std::uint64_t> streams_{0};
  std::atomic<std::uint64_t> errors_{0};
  std::atomic<std::uint64_t> bytes_{0};
  std::array<std::atomic<std::uint64_t>, buckets> latency_{};
};

/// A RecordSink that borrows a Metrics, which must outlive it.
class RecordTo {
 public:
  explicit RecordTo(Metrics& metrics) noexcept : metrics_(&metrics) {}
  void operator()(RequestRecord const& record) const noexcept { metrics_->record(record); }

 private:
  Metrics* metrics_;
};

/// Reads as `Inner` and tells `Sink` about each request. Costs two looks at the clock a request.
///
/// @par Thread safety
/// All const members, from any thread.
template <RandomAccessSource Inner, RecordSink Sink, Clock Time = SteadyClock>
class Instrumented {
 public:
  /// Owns all three.
  Instrumented(Inner inner, Sink sink, Time time = {})
      : inner_(std::move(inner)), sink_(std::move(sink)), time_(std::move(time)) {}

  /// @name RandomAccessSource
  /// @{

  /// As `Inner`.
  [[nodiscard]] std::uint64_t size() const noexcept { return inner_.size(); }

  [[nodiscard]] Result<std::size_t> read_at(std::uint64_t offset, std::span<std::byte> out) const {
    auto const begin = time_.now();
    auto n = inner_.read_at(offset, out);
    sink_(RequestRecord{RequestRecord::Kind::read, offset, out.size(), n.value_or(0),
                        time_.now() - begin, n ? std::error_code{} : n.error().code});
    return n;
  }

  [[nodiscard]] Result<void> stream(std::uint64_t offset, std::uint64_t length,
                                    ByteSink sink) const {
    auto const begin = time_.now();
    std::uint64_t bytes = 0;
    auto const count = [&](std::span<std::byte const> piece) {
      bytes += piece.size();
      return sink(piece);
    };
    auto ok = erofs_oci::stream(inner_, offset, length, count);
    sink_(RequestRecord{RequestRecord::Kind::stream, offset, length, bytes, time_.now() - begin,
                        ok ? std::error_code{} : ok.error().code});
    return ok;
  }
  /// @}

  /// The layer below.
  [[nodiscard]] Inner const& inner() const noexcept { return inner_; }

 private:
  Inner inner_;
  [[no_unique_address]] Sink sink_;
  [[no_unique_address]] Time time_;
};

}  // namespace erofs_oci
