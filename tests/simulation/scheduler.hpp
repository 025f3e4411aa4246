// SPDX-License-Identifier: Apache-2.0
/// @file
/// Scheduler: runs the threads of this program one at a time, in an order and at a time that a seed
/// decides.
///
/// scheduler.cpp defines pthread_mutex_lock(3), clock_gettime(2), poll(2) and their kin. A
/// program's own definitions come before those of libc, for libstdc++ too, so the product's code,
/// locks, deadlines and threads are simulated as they are, without a hook in them.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

namespace simulation {

/// Numbers that depend on the seed alone.
class Random {
 public:
  explicit Random(std::uint64_t seed) noexcept : state_(seed) {}

  /// SplitMix64.
  std::uint64_t next() noexcept {
    auto x = state_ += 0x9E3779B97F4A7C15U;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9U;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBU;
    return x ^ (x >> 31);
  }

  /// A number from 0 to `end` - 1; `end` > 0.
  std::uint64_t below(std::uint64_t end) noexcept { return next() % end; }

  /// A number from `first` to `last`.
  std::uint64_t between(std::uint64_t first, std::uint64_t last) noexcept {
    return first + below(last - first + 1);
  }

  bool one_in(std::uint64_t n) noexcept { return below(n) == 0; }

 private:
  std::uint64_t state_;
};

/// What a program does to a file.
enum class DiskStep : std::uint8_t { make_directory, write, sync, rename };

/// What becomes of it.
enum class DiskFault : std::uint8_t {
  none,
  no_space,      ///< ENOSPC
  broken,        ///< EIO
  short_write,   ///< half of it is written
  crash_before,  ///< the process is killed before it
  crash_after,   ///< and after it
};

/// While one lives, all threads that its maker starts, and those that they start, are simulated.
/// A group of threads stands for a process: kill() stops it between two instructions, for good.
class Scheduler {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;

  /// The calling thread becomes the first one, of group 0.
  /// @param print  told of everything that note() is; may be empty
  Scheduler(std::uint64_t seed, std::function<void(std::string const&)> print);

  /// All other threads must have been joined.
  ~Scheduler();

  Scheduler(Scheduler const&) = delete;
  Scheduler& operator=(Scheduler const&) = delete;

  /// The one that lives; null: none.
  [[nodiscard]] static Scheduler* now_running() noexcept;

  /// The calling thread's number, from 0 in the order of starts, and its group.
  [[nodiscard]] static int thread() noexcept;
  [[nodiscard]] static int group() noexcept;

  /// The group of threads that the calling thread starts from now on.
  static void start_in_group(int group) noexcept;

  /// No thread of the group runs from now on, until thaw(): its memory stays as it is. If the
  /// calling thread is one, this returns after thaw().
  void kill(int group);

  /// The same without a death: a process that hangs.
  void hang(int group) { kill(group); }

  /// Lets killed threads go on, so that they can be joined. is_dead() stays true for them, and what
  /// they do to files fails.
  void thaw();

  [[nodiscard]] bool is_dead(int group) const;

  /// Called before each step on a regular file or a directory. May be empty.
  std::function<DiskFault(DiskStep)> on_disk{};

  /// Adds to the trace, with the time and the thread.
  void note(std::string_view what);

  /// A digest of all decisions and notes so far.
  [[nodiscard]] std::uint64_t trace() const noexcept;

  /// Passages from thread to thread, for a bound on them.
  [[nodiscard]] std::uint64_t switches() const noexcept;

  /// Called when no thread can ever run again, or time or switches have passed every bound. Must
  /// not return.
  std::function<void(std::string const& why)> on_stuck{};

  struct State;

 private:
  std::unique_ptr<State> state_;
};

}  // namespace simulation
