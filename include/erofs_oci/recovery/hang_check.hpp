// SPDX-License-Identifier: Apache-2.0
/// @file
/// HangCheck: whether a process that gives no sign hangs or has only not had its turn.
#pragma once

#include <charconv>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>

#include <sys/types.h>

#include <erofs_oci/core/result.hpp>
#include <erofs_oci/core/text_file.hpp>
#include <erofs_oci/recovery/process.hpp>

namespace erofs_oci {

/// What a process is doing that ought to give signs of life from its main thread.
struct ProcessView {
  char state = '?';                ///< of the main thread, as in /proc/PID/stat
  std::chrono::nanoseconds ran{};  ///< processor time of the main thread
  bool others_run = false;         ///< another thread wants a processor, or waits for a disk
};

/// Reads the first number of a /proc/PID/schedstat line: time on a processor.
/// @spec{Linux Documentation/scheduler/sched-stats.rst}
/// @error{Errc::corrupt, it is no such line}
[[nodiscard]] inline Result<std::chrono::nanoseconds> parse_run_time(std::string_view line) {
  std::chrono::nanoseconds::rep nanoseconds = 0;
  auto const [end, error] = std::from_chars(line.data(), line.data() + line.size(), nanoseconds);
  if (error != std::errc() || end == line.data()) return fail(Errc::corrupt, "schedstat");
  return std::chrono::nanoseconds(nanoseconds);
}

/// What the process is doing now.
/// @error{Errc::corrupt, procfs is not understood}
/// @error{an errno, as open(2) on /proc: it does not live\, or the kernel keeps no such statistics}
[[nodiscard]] inline Result<ProcessView> view_process(pid_t pid) {
  auto const state_of = [](std::string const& directory) -> Result<char> {
    auto const line = read_text_value(directory + "/stat");
    if (!line) return fail(line.error());
    auto const stat = parse_process_stat(*line);
    if (!stat) return fail(stat.error(), directory);
    return stat->state;
  };
  auto const name = std::to_string(pid);
  auto const tasks = "/proc/" + name + "/task";
  auto const state = state_of(tasks + "/" + name);
  if (!state) return fail(state.error());
  auto const line = read_text_value(tasks + "/" + name + "/schedstat");
  if (!line) return fail(line.error());
  auto const ran = parse_run_time(*line);
  if (!ran) return fail(ran.error(), tasks);
  ProcessView view{*state, *ran, false};
  std::error_code error;
  for (std::filesystem::directory_iterator task(tasks, error), end; !error && task != end;
       task.increment(error)) {
    if (task->path().filename() == name) continue;
    auto const other = state_of(task->path().string());  // may have ended meanwhile
    view.others_run = view.others_run || (other && (*other == 'R' || *other == 'D'));
  }
  return view;
}

/// Looks at one silent process again and again. A hang is told by what the process did with its
/// time and not by the clock alone, so that a machine which is busy elsewhere is no reason to end a
/// healthy process.
///
/// @par Thread safety
/// None.
class HangCheck {
 public:
  /// Processor time that cannot pass between two signs of a healthy process.
  static constexpr std::chrono::milliseconds longest_run{50};
  /// So many looks in a row find only a hung process asleep: a virtual machine's processor may be
  /// taken away for longer than from one look to the next.
  static constexpr int most_asleep = 3;

  /// Takes one more look; with the silence's first one it begins.
  /// @return why the process hangs; empty if it may not
  [[nodiscard]] std::optional<std::string> look(ProcessView const& view) {
    if (!began_) began_ = view.ran;
    if (view.state == 'T') return "it was stopped by a signal";
    asleep_ = view.state == 'S' && !view.others_run ? asleep_ + 1 : 0;
    if (asleep_ == most_asleep) return "its main thread waits for what does not come";
    if (view.state == 'R' && view.ran - *began_ >= longest_run) return "its main thread goes round";
    return std::nullopt;
  }

  /// It has given a sign.
  void reset() noexcept { *this = HangCheck(); }

 private:
  std::optional<std::chrono::nanoseconds> began_{};
  int asleep_ = 0;  // looks in a row
};

}  // namespace erofs_oci
