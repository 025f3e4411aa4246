// SPDX-License-Identifier: Apache-2.0
/// @file
/// Proof: what is known so far of whether a source's bytes are those that its digest names.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <utility>

#include <erofs_oci/core/result.hpp>

namespace erofs_oci {

/// When bytes are proved of which somebody else than the layer's digest says what they are.
enum class Verify : std::uint8_t {
  off,         ///< not at all
  lazy,        ///< once reads have brought every byte
  background,  ///< the same, and a thread reads what nobody has asked for
  before,      ///< before a byte is handed on; where a library cannot wait, as `background`
};

/// The state of a Proved source, for those above it and for reports. It goes from open to proved or
/// to refuted, and from proved nowhere.
///
/// @par Thread safety
/// All members, from any thread.
class Proof {
 public:
  /// @param total  bytes of the source
  explicit Proof(std::uint64_t total) noexcept : total_(total) {}

  /// Bytes of the source.
  [[nodiscard]] std::uint64_t total() const noexcept { return total_; }

  /// Bytes that have been read at least once; whole pieces count.
  [[nodiscard]] std::uint64_t seen() const noexcept { return seen_; }

  /// Whether all bytes together have the right digest.
  [[nodiscard]] bool proved() const noexcept { return state_ == State::proved; }

  /// @error{Errc::digest_mismatch\, or what refute() was given, the bytes are not the right ones}
  [[nodiscard]] Result<void> check() const {
    if (state_ != State::refuted) return {};
    std::lock_guard const lock(mutex_);
    return fail(*error_);
  }

  /// Calls `told` when the bytes are refuted, once, at once if they are already, from any thread.
  /// It must not use the proof or read the source. Another call replaces the function.
  void on_refuted(std::function<void(Error const&)> told) {
    std::lock_guard const lock(mutex_);
    told_ = std::move(told);
    if (error_ && told_) told_(*error_);
  }

  /// Makes check() fail from now on; only the first error counts, and none after the proof.
  void refute(Error error) {
    std::lock_guard const lock(mutex_);
    if (state_ != State::open) return;
    error_ = std::move(error);
    state_ = State::refuted;
    if (told_) told_(*error_);
  }

  /// For the source whose state this is.
  /// @{
  void saw(std::uint64_t bytes) noexcept { seen_ += bytes; }
  void prove() {
    std::lock_guard const lock(mutex_);
    if (state_ == State::open) state_ = State::proved;
  }
  /// @}

 private:
  enum class State : std::uint8_t { open, proved, refuted };

  std::uint64_t const total_;
  std::atomic<std::uint64_t> seen_{0};
  std::atomic<State> state_{State::open};  // changes under the lock
  mutable std::mutex mutex_;
  std::optional<Error> error_;
  std::function<void(Error const&)> told_;
};

}  // namespace erofs_oci
