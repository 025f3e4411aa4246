// SPDX-License-Identifier: Apache-2.0
/// @file
/// ProcessIdentity: a process, told apart from later ones of its number; pidfds, and how a
/// process ended.
#pragma once

#include <cerrno>
#include <csignal>
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
#include <erofs_oci/core/text.hpp>
#include <erofs_oci/posix/text_file.hpp>

namespace erofs_oci {

/// Identifies a process by more than its number, which the kernel uses again.
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
  auto const start_time = take_number<std::uint64_t>(rest);
  if (!start_time) return fail(Errc::corrupt, "stat: start time");
  stat.start_time = *start_time;
  return stat;
}

/// Identifies a living process.
/// @error{an errno, as open(2) on /proc: it does not live}
[[nodiscard]] inline Result<ProcessIdentity> identify_process(std::uint32_t pid) {
  EROFS_OCI_TRY_ASSIGN(auto const line, read_text_value("/proc/" + std::to_string(pid) + "/stat"));
  EROFS_OCI_TRY_ASSIGN(auto const stat, parse_process_stat(line), "process " + std::to_string(pid));
  EROFS_OCI_TRY_ASSIGN(auto boot, read_text_value("/proc/sys/kernel/random/boot_id"));
  return ProcessIdentity{pid, stat.start_time, std::move(boot)};
}

/// Identifies the calling process. A child needs a new call after fork(2).
/// @error{an errno, as identify_process()}
[[nodiscard]] inline Result<ProcessIdentity> this_process() {
  return identify_process(static_cast<std::uint32_t>(::getpid()));
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

/// Ends a child with SIGKILL and reaps it; blocks until it has ended. Nothing may have reaped it
/// before.
inline void end_child(pid_t pid) noexcept {
  ::kill(pid, SIGKILL);
  while (::waitpid(pid, nullptr, 0) < 0 && errno == EINTR) {}
}

/// A descriptor that becomes readable when the child ends. Close-on-exec.
/// @error{an errno, as pidfd_open(2)}
[[nodiscard]] inline Result<UniqueFd> open_pidfd(pid_t pid) {
  UniqueFd fd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  if (!fd) return fail_errno(errno, "pidfd_open " + std::to_string(pid));
  return fd;
}

/// The same for a child that has just been forked, which is ended if that fails.
/// @error{an errno, as open_pidfd()}
[[nodiscard]] inline Result<UniqueFd> open_pidfd_or_end(pid_t pid) {
  auto pidfd = open_pidfd(pid);
  if (!pidfd) end_child(pid);
  return pidfd;
}

/// P_PIDFD, which glibc < 2.36 lacks.
inline constexpr auto by_pidfd = static_cast<idtype_t>(3);

/// Reaps a child that has ended; empty if it lives.
/// @error{an errno, as waitid(2)}
[[nodiscard]] inline Result<std::optional<ProcessExit>> reap(UniqueFd const& pidfd) {
  siginfo_t info{};
  while (::waitid(by_pidfd, static_cast<id_t>(pidfd.get()), &info, WEXITED | WNOHANG) != 0) {
    if (errno != EINTR) return fail_errno(errno, "waitid");
  }
  if (info.si_pid == 0) return std::optional<ProcessExit>();
  ProcessExit exit;
  (info.si_code == CLD_EXITED ? exit.status : exit.signal) = info.si_status;
  return std::optional(exit);
}

/// Whether a signal has stopped a child since the last call.
[[nodiscard]] inline bool is_stopped(UniqueFd const& pidfd) noexcept {
  siginfo_t info{};
  return ::waitid(by_pidfd, static_cast<id_t>(pidfd.get()), &info, WSTOPPED | WNOHANG) == 0 &&
         info.si_pid != 0;
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
