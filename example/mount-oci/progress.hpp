// SPDX-License-Identifier: Apache-2.0
/// @file
/// Progress: shows the progress of indexing.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <string_view>

#include <erofs_oci/image/index_layers.hpp>

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

/// "1 span", "2 spans": @p thing is the singular of a noun that takes an s.
[[nodiscard]] std::string counted(std::uint64_t count, std::string_view thing);

/// One line without its end: layers, bytes, rate, and the time that is left.
[[nodiscard]] std::string progress_text(Advance const& advance);

/// Shows the progress: on a terminal in one line that it draws at most ten times a second, else,
/// with -v, by a message for each layer.
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

  /// Erases the line.
  ~Progress();

  void update(erofs_oci::LayerProgress const& layer);

  /// Writes a message without breaking the line.
  void warn(std::string const& text);

 private:
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
