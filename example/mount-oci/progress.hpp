// SPDX-License-Identifier: Apache-2.0
/// @file
/// Progress: how far indexing has come, for somebody who watches.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>

#include <erofs_oci/image/layers.hpp>

#include "process.hpp"

namespace mount_oci {

/// How far some work has come.
struct Advance {
  std::size_t layers_done = 0;
  std::size_t layers = 0;
  std::uint64_t done = 0;   ///< bytes
  std::uint64_t total = 0;  ///< bytes
  std::chrono::milliseconds elapsed{0};
};

/// A size for people: "980 B", "1.4 MB" (powers of 1000).
[[nodiscard]] std::string size_text(std::uint64_t bytes);

/// One line without its end: layers, bytes, rate, and the time that is left.
[[nodiscard]] std::string progress_text(Advance const& advance);

/// Shows how far it is: on a terminal in one line that is drawn again at most ten times a second,
/// else, if asked to say more, in a message for each layer.
///
/// @par Thread safety
/// All members, from any thread.
class Progress {
 public:
  /// @param layers  how many have to be read
  /// @param bytes   of them all
  Progress(Log const& log, std::size_t layers, std::uint64_t bytes);
  Progress(Progress const&) = delete;
  Progress& operator=(Progress const&) = delete;

  /// Takes the line away.
  ~Progress();

  void update(erofs_oci::LayerProgress const& layer);

  /// Says something without spoiling the line.
  void warn(std::string const& text);

 private:
  void draw();
  void erase();

  Log const& log_;
  bool terminal_;
  std::mutex mutex_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  std::chrono::steady_clock::time_point drawn_{};
  bool shown_ = false;
  Advance advance_;
  std::map<std::size_t, std::uint64_t> layers_;  // bytes done of each
};

}  // namespace mount_oci
