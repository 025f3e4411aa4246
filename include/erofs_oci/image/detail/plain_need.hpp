// SPDX-License-Identifier: Apache-2.0
/// @file
/// PlainNeed: tells what reads need of a plain layer, and fetches parts of it ahead.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <stop_token>
#include <utility>

#include <erofs_oci/core/result.hpp>
#include <erofs_oci/core/source.hpp>
#include <erofs_oci/gzip/demand_gate.hpp>
#include <erofs_oci/gzip/gzran_pool.hpp>

namespace erofs_oci::detail {

/// Reads as `Inner`, which keeps chunks of a remote blob in memory.
///
/// @par Thread safety
/// All const members, from any thread.
template <RandomAccessSource Inner>
class PlainNeed {
 public:
  /// @param chunk    bytes of a chunk of `inner`
  /// @param pool     whose gate counts the reads
  /// @param on_need  as GzranOptions::on_need, for whole chunks; may be empty
  PlainNeed(Inner inner, std::uint64_t chunk, std::shared_ptr<GzranPool> pool,
            std::function<void(std::uint64_t, std::uint64_t)> on_need)
      : inner_(std::move(inner)),
        chunk_(chunk),
        pool_(std::move(pool)),
        on_need_(std::move(on_need)) {}

  /// @name RandomAccessSource
  /// @{

  /// @error{as Inner, as there}
  [[nodiscard]] std::uint64_t size() const noexcept { return inner_.size(); }

  [[nodiscard]] Result<std::size_t> read_at(std::uint64_t offset, std::span<std::byte> out) const {
    auto const demand = pool_->gate().enter();
    auto done = inner_.read_at(offset, out);
    if (done && *done > 0 && on_need_) {
      on_need_(offset / chunk_ * chunk_, next_chunk(offset + *done));
    }
    return done;
  }
  /// @}

  /// The layer below.
  [[nodiscard]] Inner const& inner() const noexcept { return inner_; }

  /// Where the next chunk begins, at byte `at` or behind it; size() if none does.
  [[nodiscard]] std::uint64_t next_chunk(std::uint64_t at) const noexcept {
    auto const whole = at / chunk_ * chunk_;
    if (whole == at || at >= size()) return std::min(at, size());
    return std::min(whole + std::min(chunk_, size() - whole), size());
  }

  /// As Gzran::fetch(), for whole chunks; a chunk that reads wait for meanwhile is fetched once,
  /// with one outcome for all.
  [[nodiscard]] Result<std::uint64_t> fetch(std::uint64_t begin, std::uint64_t end,
                                            std::stop_token const& stop) const {
    auto const from = begin / chunk_ * chunk_;
    auto const to = next_chunk(end);
    for (auto at = from; at < to; at = next_chunk(at + 1)) {
      if (!pool_->gate().wait(stop)) return fail(Errc::stopping, describe(inner_));
      std::array<std::byte, 1> byte{};
      EROFS_OCI_TRY(inner_.read_at(at, byte));
    }
    return from < to ? to - from : 0;
  }

 private:
  Inner inner_;
  std::uint64_t chunk_;
  std::shared_ptr<GzranPool> pool_;
  std::function<void(std::uint64_t, std::uint64_t)> on_need_;
};

}  // namespace erofs_oci::detail
