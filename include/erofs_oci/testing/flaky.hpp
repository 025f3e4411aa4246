// SPDX-License-Identifier: Apache-2.0
/// @file
/// Sources that misbehave on purpose: Flaky, Slow, Torn; and Counting, which keeps a log.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <utility>
#include <vector>

#include <erofs_oci/core/clock.hpp>
#include <erofs_oci/core/source.hpp>

namespace erofs_oci::testing {

/// Which requests a Flaky source fails, and how.
struct FlakyPlan {
  unsigned first = 0;             ///< the first request that fails, counted from 0
  unsigned count = 1;             ///< how many in a row fail
  std::uint64_t bytes_first = 0;  ///< what a failing stream hands over before it fails, in bytes
  Error error{make_error_code(Errc::unavailable), "flaky", {}};  ///< what they fail with
};

/// Fails the requests that its plan names; a read is a request, and so is a whole stream.
///
/// A failed read leaves rubbish in the buffer, as law S5 allows.
/// @par Thread safety
/// All const members, from any thread.
template <RandomAccessSource Inner>
class Flaky {
 public:
  /// Owns `inner`.
  explicit Flaky(Inner inner, FlakyPlan plan = {})
      : inner_(std::move(inner)),
        plan_(std::move(plan)),
        requests_(std::make_unique<std::atomic<unsigned>>(0)) {}

  /// @name RandomAccessSource
  /// @{

  /// @error{that of the plan, when it is its turn}
  [[nodiscard]] std::uint64_t size() const noexcept { return inner_.size(); }

  [[nodiscard]] Result<std::size_t> read_at(std::uint64_t offset, std::span<std::byte> out) const {
    if (!fails_now()) return inner_.read_at(offset, out);
    std::ranges::fill(out, std::byte{0xEE});
    return fail(plan_.error);
  }

  [[nodiscard]] Result<void> stream(std::uint64_t offset, std::uint64_t length,
                                    ByteSink sink) const {
    if (!fails_now()) return erofs_oci::stream(inner_, offset, length, sink);
    bool stopped = false;
    auto const watch = [&](std::span<std::byte const> piece) {
      stopped = !sink(piece);
      return !stopped;
    };
    auto const part = std::min(length, plan_.bytes_first);
    if (auto const ok = erofs_oci::stream(inner_, offset, part, watch); !ok) return ok;
    if (stopped) return {};
    return fail(plan_.error);
  }
  /// @}

  /// The layer below.
  [[nodiscard]] Inner const& inner() const noexcept { return inner_; }

 private:
  [[nodiscard]] bool fails_now() const noexcept {
    auto const turn = requests_->fetch_add(1);
    return turn >= plan_.first && turn - plan_.first < plan_.count;
  }

  Inner inner_;
  FlakyPlan plan_;
  std::unique_ptr<std::atomic<unsigned>> requests_;
};

/// Sleeps for `pause` before each request.
template <RandomAccessSource Inner, Clock Time = SteadyClock>
class Slow {
 public:
  /// Owns `inner`.
  Slow(Inner inner, std::chrono::milliseconds pause, Time time = {})
      : inner_(std::move(inner)), pause_(pause), time_(std::move(time)) {}

  /// @name RandomAccessSource
  /// @{

  /// As `inner`, later.
  [[nodiscard]] std::uint64_t size() const noexcept { return inner_.size(); }

  [[nodiscard]] Result<std::size_t> read_at(std::uint64_t offset, std::span<std::byte> out) const {
    time_.sleep(pause_);
    return inner_.read_at(offset, out);
  }

  [[nodiscard]] Result<void> stream(std::uint64_t offset, std::uint64_t length,
                                    ByteSink sink) const {
    time_.sleep(pause_);
    return erofs_oci::stream(inner_, offset, length, sink);
  }
  /// @}

  /// The layer below.
  [[nodiscard]] Inner const& inner() const noexcept { return inner_; }

 private:
  Inner inner_;
  std::chrono::milliseconds pause_;
  [[no_unique_address]] Time time_;
};

/// The ways in which a Torn source breaks the laws.
enum class Tear {
  short_read,         ///< S1: a read of two bytes or more yields one too few
  short_at_cut,       ///< S1: a read never crosses a multiple of 8
  invented_end,       ///< S1: a read past the end yields zeros
  error_at_end,       ///< S1: a read at or past the end is an error
  wraps_around,       ///< S1: offsets are taken modulo 2^63
  unwritten,          ///< S1: the last byte of a read is counted but not written
  second_differs,     ///< S2: every other read has a wrong first byte
  long_differs,       ///< S3: a read of four bytes or more has a wrong last byte
  stream_shifts,      ///< a stream leaves its first byte out
  stream_repeats,     ///< a stream gives its last byte twice
  stream_deaf,        ///< a stream goes on after its sink has stopped it
  stream_stop_error,  ///< a stream that its sink has stopped is an error
};

/// Breaks one law on purpose, for tests of the law suite. Fails only where its Tear says so.
template <RandomAccessSource Inner>
class Torn {
 public:
  /// Owns `inner`.
  Torn(Inner inner, Tear tear)
      : inner_(std::move(inner)), tear_(tear), reads_(std::make_unique<std::atomic<unsigned>>(0)) {}

  /// @name RandomAccessSource
  /// @{

  /// Wrong, as `tear` says.
  [[nodiscard]] std::uint64_t size() const noexcept { return inner_.size(); }

  [[nodiscard]] Result<std::size_t> read_at(std::uint64_t offset, std::span<std::byte> out) const {
    if (tear_ == Tear::wraps_around) offset &= ~(std::uint64_t{1} << 63);
    if (tear_ == Tear::short_at_cut)
      out = out.first(std::min<std::size_t>(out.size(), 8 - offset % 8));
    if (tear_ == Tear::short_read && out.size() > 1) out = out.first(out.size() - 1);
    if (offset >= size() && !out.empty()) {
      if (tear_ == Tear::error_at_end) return fail(Errc::truncated, "torn");
      if (tear_ == Tear::invented_end) {
        std::ranges::fill(out, std::byte{});
        return out.size();
      }
    }
    auto const kept = out.empty() ? std::byte{} : out.back();
    auto const n = inner_.read_at(offset, out);
    if (!n || *n == 0) return n;
    if (tear_ == Tear::unwritten && *n == out.size()) out.back() = kept;
    if (tear_ == Tear::second_differs && reads_->fetch_add(1) % 2 == 1) out[0] ^= std::byte{1};
    if (tear_ == Tear::long_differs && *n >= 4) out[*n - 1] ^= std::byte{1};
    return n;
  }

  [[nodiscard]] Result<void> stream(std::uint64_t offset, std::uint64_t length,
                                    ByteSink sink) const {
    bool stopped = false;
    auto const drain = [&](std::span<std::byte const> bytes) {
      for (auto const& byte : bytes) {
        if (stopped && tear_ != Tear::stream_deaf) return false;
        if (!sink(std::span(&byte, 1))) stopped = true;
      }
      return !stopped || tear_ == Tear::stream_deaf;
    };
    if (tear_ == Tear::stream_shifts && length > 0 && offset < size()) ++offset;
    if (auto const ok = erofs_oci::stream(inner_, offset, length, drain); !ok) return ok;
    if (stopped && tear_ == Tear::stream_stop_error) return fail(Errc::stopping, "torn");
    if (tear_ == Tear::stream_repeats && !stopped && size() > 0) {
      return erofs_oci::stream(inner_, size() - 1, length, drain);
    }
    return {};
  }
  /// @}

 private:
  Inner inner_;
  Tear tear_;
  std::unique_ptr<std::atomic<unsigned>> reads_;
};

/// The requests to a Counting source, in order.
///
/// @par Thread safety
/// All members, from any thread.
class RequestLog {
 public:
  /// How a source was asked.
  enum class Kind { read, stream };

  /// One request.
  struct Request {
    Kind kind;
    std::uint64_t offset;
    std::uint64_t length;
    bool operator==(Request const&) const = default;
  };

  void add(Request request) {
    std::lock_guard const lock(mutex_);
    requests_.push_back(request);
  }

  /// All requests so far.
  [[nodiscard]] std::vector<Request> all() const {
    std::lock_guard const lock(mutex_);
    return requests_;
  }

  /// How many there were of a kind.
  [[nodiscard]] std::size_t count(Kind kind) const {
    auto const requests = all();
    return static_cast<std::size_t>(std::ranges::count(requests, kind, &Request::kind));
  }

  /// Reads and streams: what would cost a round trip each.
  [[nodiscard]] std::size_t fetches() const { return count(Kind::read) + count(Kind::stream); }

  void clear() {
    std::lock_guard const lock(mutex_);
    requests_.clear();
  }

 private:
  mutable std::mutex mutex_;
  std::vector<Request> requests_;
};

/// Writes each request into a log, which must outlive it.
template <RandomAccessSource Inner>
class Counting {
 public:
  /// Owns `inner`, borrows `log`.
  Counting(Inner inner, RequestLog& log) : inner_(std::move(inner)), log_(&log) {}

  /// @name RandomAccessSource
  /// @{

  /// As `inner`.
  [[nodiscard]] std::uint64_t size() const noexcept { return inner_.size(); }

  [[nodiscard]] Result<std::size_t> read_at(std::uint64_t offset, std::span<std::byte> out) const {
    log_->add({RequestLog::Kind::read, offset, out.size()});
    return inner_.read_at(offset, out);
  }

  [[nodiscard]] Result<void> stream(std::uint64_t offset, std::uint64_t length,
                                    ByteSink sink) const {
    log_->add({RequestLog::Kind::stream, offset, length});
    return erofs_oci::stream(inner_, offset, length, sink);
  }
  /// @}

  /// The layer below.
  [[nodiscard]] Inner const& inner() const noexcept { return inner_; }

 private:
  Inner inner_;
  RequestLog* log_;
};

}  // namespace erofs_oci::testing
