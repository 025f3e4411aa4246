// SPDX-License-Identifier: Apache-2.0
/// @file
/// HangCheck: tells a process that hangs from one that has only not got a processor.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include <sys/types.h>

#include <erofs_oci/core/result.hpp>
#include <erofs_oci/core/text.hpp>
#include <erofs_oci/posix/text_file.hpp>
#include <erofs_oci/recovery/process.hpp>

namespace erofs_oci {

/// The state of a process whose main thread should give signs.
struct ProcessView {
  char state = '?';                ///< of the main thread, as in /proc/PID/stat
  std::chrono::nanoseconds ran{};  ///< processor time of the main thread
  bool others_run = false;         ///< another thread wants a processor, or waits for a disk
};

/// Reads the first number of a /proc/PID/schedstat line: time on a processor.
/// @spec{Linux Documentation/scheduler/sched-stats.rst}
/// @error{Errc::corrupt, it is no such line}
[[nodiscard]] inline Result<std::chrono::nanoseconds> parse_run_time(std::string_view line) {
  auto const number = take_number<std::uint64_t>(line);
  if (!number || !std::in_range<std::chrono::nanoseconds::rep>(*number)) {
    return fail(Errc::corrupt, "schedstat");
  }
  return std::chrono::nanoseconds(*number);
}

/// Reads the state of a process from /proc.
/// @error{Errc::corrupt, procfs is not understood}
/// @error{an errno, as open(2) on /proc: it does not live\, or the kernel keeps no such statistics}
[[nodiscard]] inline Result<ProcessView> view_process(pid_t pid) {
  auto const state_of = [](std::string const& directory) -> Result<char> {
    EROFS_OCI_TRY_ASSIGN(auto const line, read_text_value(directory + "/stat"));
    EROFS_OCI_TRY_ASSIGN(auto const stat, parse_process_stat(line), directory);
    return stat.state;
  };
  auto const name = std::to_string(pid);
  auto const tasks = "/proc/" + name + "/task";
  EROFS_OCI_TRY_ASSIGN(auto const state, state_of(tasks + "/" + name));
  EROFS_OCI_TRY_ASSIGN(auto const line, read_text_value(tasks + "/" + name + "/schedstat"));
  EROFS_OCI_TRY_ASSIGN(auto const ran, parse_run_time(line), tasks);
  ProcessView view{state, ran, false};
  std::error_code error;
  for (std::filesystem::directory_iterator task(tasks, error), end; !error && task != end;
       task.increment(error)) {
    if (task->path().filename() == name) continue;
    auto const other = state_of(task->path().string());  // may have ended meanwhile
    view.others_run = view.others_run || (other && (*other == 'R' || *other == 'D'));
  }
  return view;
}

/// Examines one process that gives no sign, repeatedly. It decides by the processor time and states
/// of the process and not by the clock alone, so a busy machine does not make a healthy process
/// look hung.
///
/// @par Thread safety
/// None.
class HangCheck {
 public:
  /// Processor time that cannot pass between two signs of a healthy process.
  static constexpr std::chrono::milliseconds longest_run{50};
  /// A process is hung if it is asleep in so many examinations in a row. One is not enough: a host
  /// may stop a virtual machine's processor for longer than the time between two.
  static constexpr int most_asleep = 3;

  /// Takes the next examination into account; the first one after reset() is the base.
  /// @return the reason if the process hangs; else empty
  [[nodiscard]] std::optional<std::string> look(ProcessView const& view) {
    if (!began_) began_ = view.ran;
    if (view.state == 'T') return "it was stopped by a signal";
    asleep_ = view.state == 'S' && !view.others_run ? asleep_ + 1 : 0;
    if (asleep_ == most_asleep) return "its main thread is blocked";
    if (view.state == 'R' && view.ran - *began_ >= longest_run)
      return "its main thread is spinning";
    return std::nullopt;
  }

  /// To be called when the process has given a sign.
  void reset() noexcept { *this = HangCheck(); }

 private:
  std::optional<std::chrono::nanoseconds> began_{};
  int asleep_ = 0;  // looks in a row
};

}  // namespace erofs_oci
