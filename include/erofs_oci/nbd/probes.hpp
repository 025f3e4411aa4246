// SPDX-License-Identifier: Apache-2.0
/// @file
/// Probes: reads that a relay's owner, not the kernel, asks of an engine.
#pragma once

#include <cstddef>
#include <new>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <erofs_oci/core/result.hpp>
#include <erofs_oci/nbd/protocol.hpp>
#include <erofs_oci/nbd/read_table.hpp>

namespace erofs_oci::nbd {

/// Keeps ended probes until the relay may be used again, because their callbacks may use it.
///
/// @par Thread safety
/// None.
class Probes {
 public:
  /// One more has begun. Nothing changes if there is no memory.
  void begin() {
    ended_.reserve(ended_.size() + under_way_ + 1);
    ++under_way_;
  }

  /// One has ended.
  void end(PendingRead read, Errno error) noexcept {
    --under_way_;
    ended_.push_back({std::move(read), error});  // begin() has reserved its place
  }

  /// Calls back for those that have ended.
  /// @param arena    where their bytes are
  /// @param on_told  called with each probe after its callback has returned
  template <class OnTold>
  void tell(std::span<std::byte const> arena, OnTold const& on_told) {
    while (!ended_.empty()) {
      auto const ended = std::move(ended_.back());
      ended_.pop_back();
      Told<OnTold> const told{ended.read, on_told};
      auto const& read = ended.read;
      if (ended.error == Errno::none) {
        read.on_probe(arena.subspan(read.place, read.length));
      } else {
        auto const answered = ended.error == Errno::io;
        read.on_probe(fail(
            answered ? make_error_code(std::errc::io_error) : make_error_code(Errc::unavailable),
            "nbd relay: the engine cannot read at offset " + std::to_string(read.offset)));
      }
    }
  }

 private:
  struct Ended {
    PendingRead read;
    Errno error;
  };

  template <class OnTold>
  struct Told {
    PendingRead const& read;
    OnTold const& on_told;
    ~Told() { on_told(read); }
  };

  std::vector<Ended> ended_{};
  std::size_t under_way_ = 0;
};

}  // namespace erofs_oci::nbd
