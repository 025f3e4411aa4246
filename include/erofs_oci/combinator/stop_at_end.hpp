// SPDX-License-Identifier: Apache-2.0
/// @file
/// StopAtEnd: asks for a stop before the layer below ends.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <stop_token>
#include <string>
#include <utility>

#include <erofs_oci/core/result.hpp>
#include <erofs_oci/core/source.hpp>

namespace erofs_oci {

/// Reads as `Inner`. Its end asks for a stop and then ends `Inner`, so that one which fetches ahead
/// does not wait for a slow server: see HttplibOptions::stop.
///
/// @par Thread safety
/// All const members, from any thread, if `Inner` allows it.
template <RandomAccessSource Inner>
class StopAtEnd {
 public:
  /// @param inner  owned from here on
  /// @param stop   whose token ends what `inner` waits for
  StopAtEnd(Inner inner, std::stop_source stop)
      : inner_(std::move(inner)), stop_(std::make_unique<Stop>(std::move(stop))) {}

  StopAtEnd(StopAtEnd&&) = default;
  StopAtEnd& operator=(StopAtEnd&& other) noexcept {
    stop_.reset();
    inner_ = std::move(other.inner_);
    stop_ = std::move(other.stop_);
    return *this;
  }

  /// @name RandomAccessSource
  /// @{

  /// @error{as Inner, as there}
  [[nodiscard]] std::uint64_t size() const noexcept { return inner_.size(); }

  [[nodiscard]] Result<std::size_t> read_at(std::uint64_t offset, std::span<std::byte> out) const {
    return inner_.read_at(offset, out);
  }

  [[nodiscard]] Result<void> stream(std::uint64_t offset, std::uint64_t length,
                                    ByteSink sink) const {
    return erofs_oci::stream(inner_, offset, length, sink);
  }

  /// As the layer below.
  [[nodiscard]] bool is_remote() const noexcept { return erofs_oci::is_remote(inner_); }
  /// @}

  /// The layer below.
  [[nodiscard]] Inner const& inner() const noexcept { return inner_; }

  /// As the layer below.
  [[nodiscard]] std::string describe() const { return erofs_oci::describe(inner_); }

 private:
  struct Stop {
    explicit Stop(std::stop_source one) noexcept : source(std::move(one)) {}
    Stop(Stop const&) = delete;
    Stop& operator=(Stop const&) = delete;
    ~Stop() { source.request_stop(); }
    std::stop_source source;
  };

  Inner inner_;
  std::unique_ptr<Stop> stop_;  // last: ends first; null once moved from
};

}  // namespace erofs_oci
