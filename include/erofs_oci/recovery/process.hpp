// SPDX-License-Identifier: Apache-2.0
/// @file
/// ProcessIdentity: a process that no later one can be taken for; pidfds and how a process ended.
#pragma once

#include <cerrno>
#include <charconv>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>

#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <erofs_oci/core/fd.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/core/text_file.hpp>

namespace erofs_oci {

/// A process by more than its number, which the next one may get.
struct ProcessIdentity {
  std::uint32_t pid = 0;         ///< 0: none
  std::uint64_t start_time = 0;  ///< clock ticks between boot and its start
  std::string boot_id{};         ///< of the boot that `start_time` counts from

  friend bool operator==(ProcessIdentity const&, ProcessIdentity const&) = default;
};

/// The two fields of /proc/PID/stat that matter here.
struct ProcessStat {
  char state = '?';              ///< 'Z' and 'X' are dead
  std::uint64_t start_time = 0;  ///< clock ticks since boot
};

/// Reads a /proc/PID/stat line. The program's name in it may hold spaces and parentheses.
/// @spec{proc(5), fields 2, 3 and 22}
/// @error{Errc::corrupt, it is no such line}
[[nodiscard]] inline Result<ProcessStat> parse_process_stat(std::string_view line) {
  auto const name_end = line.rfind(')');
  if (name_end == line.npos || line.size() < name_end + 4) return fail(Errc::corrupt, "stat");
  auto rest = line.substr(name_end + 2);
  ProcessStat stat;
  stat.state = rest.front();
  for (int field = 3; field < 22; ++field) {
    auto const space = rest.find(' ');
    if (space == rest.npos) return fail(Errc::corrupt, "stat: fewer than 22 fields");
    rest.remove_prefix(space + 1);
  }
  auto const [end, error] =
      std::from_chars(rest.data(), rest.data() + rest.size(), stat.start_time);
  if (error != std::errc() || end == rest.data()) return fail(Errc::corrupt, "stat: start time");
  return stat;
}

/// Identifies a living process.
/// @error{an errno, as open(2) on /proc: it does not live}
[[nodiscard]] inline Result<ProcessIdentity> identify_process(std::uint32_t pid) {
  auto const line = read_text_value("/proc/" + std::to_string(pid) + "/stat");
  if (!line) return fail(line.error());
  auto const stat = parse_process_stat(*line);
  if (!stat) return fail(stat.error(), "process " + std::to_string(pid));
  auto boot = read_text_value("/proc/sys/kernel/random/boot_id");
  if (!boot) return fail(std::move(boot).error());
  return ProcessIdentity{pid, stat->start_time, *std::move(boot)};
}

/// Identifies the calling process. After fork(2) ask again: a child is another one.
/// @error{an errno, as identify_process()}
[[nodiscard]] inline Result<ProcessIdentity> this_process() {
  return identify_process(static_cast<std::uint32_t>(::getpid()));
}

/// Whether that very process lives: not another one of its number, and not a zombie. False too if
/// /proc cannot be read. For messages; what decides who may serve is the journal's lock.
[[nodiscard]] inline bool is_alive(ProcessIdentity const& process) {
  if (process.pid == 0) return false;
  auto const now = identify_process(process.pid);
  if (!now || *now != process) return false;
  auto const line = read_text_value("/proc/" + std::to_string(process.pid) + "/stat");
  auto const stat = line ? parse_process_stat(*line) : fail(line.error());
  return stat && stat->state != 'Z' && stat->state != 'X';
}

/// How a process ended: exactly one of the two is set.
struct ProcessExit {
  std::optional<int> status{};  ///< that it gave to exit(3)
  std::optional<int> signal{};  ///< that ended it

  /// "exited with status 1", "killed by signal 9".
  [[nodiscard]] std::string to_string() const {
    if (signal) return "killed by signal " + std::to_string(*signal);
    return "exited with status " + std::to_string(status.value_or(0));
  }

  friend bool operator==(ProcessExit const&, ProcessExit const&) = default;
};

/// A descriptor that becomes readable the moment that the child ends. Close-on-exec.
/// @error{an errno, as pidfd_open(2)}
[[nodiscard]] inline Result<UniqueFd> open_pidfd(pid_t pid) {
  UniqueFd fd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  if (!fd) return fail_errno(errno, "pidfd_open " + std::to_string(pid));
  return fd;
}

/// Reaps a child that has ended; empty if it lives.
/// @error{an errno, as waitid(2)}
[[nodiscard]] inline Result<std::optional<ProcessExit>> reap(UniqueFd const& pidfd) {
  siginfo_t info{};
  constexpr auto by_pidfd = static_cast<idtype_t>(3);  // P_PIDFD, which glibc < 2.36 lacks
  while (::waitid(by_pidfd, static_cast<id_t>(pidfd.get()), &info, WEXITED | WNOHANG) != 0) {
    if (errno != EINTR) return fail_errno(errno, "waitid");
  }
  if (info.si_pid == 0) return std::optional<ProcessExit>();
  ProcessExit exit;
  (info.si_code == CLD_EXITED ? exit.status : exit.signal) = info.si_status;
  return std::optional(exit);
}

/// Sends a signal; one to a process that has ended is not an error.
/// @error{an errno, as pidfd_send_signal(2)}
[[nodiscard]] inline Result<void> send_signal(UniqueFd const& pidfd, int signal) {
  if (::syscall(SYS_pidfd_send_signal, pidfd.get(), signal, nullptr, 0) != 0 && errno != ESRCH) {
    return fail_errno(errno, "pidfd_send_signal " + std::to_string(signal));
  }
  return {};
}

}  // namespace erofs_oci
