// SPDX-License-Identifier: Apache-2.0
/// @file
/// Running a credential helper: a program, a line in, a text out, a deadline; no shell.
#pragma once

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <erofs_oci/core/fd.hpp>
#include <erofs_oci/core/result.hpp>

namespace erofs_oci {

/// What a program said and how it ended.
struct HelperOutcome {
  int exit_status = 0;  ///< 128 + the signal's number if a signal ended it
  std::string output;   ///< of its standard output, at most 64 KiB
};

namespace detail {

/// A child process that does not outlive this object.
class Child {
 public:
  explicit Child(pid_t pid) noexcept : pid_(pid) {}
  Child(Child const&) = delete;
  Child& operator=(Child const&) = delete;

  ~Child() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    (void)reap(0);
  }

  /// Its exit status, or a negative number while it runs (WNOHANG) .
  int reap(int flags) {
    int status = 0;
    for (;;) {
      auto const got = ::waitpid(pid_, &status, flags);
      if (got < 0 && errno == EINTR) continue;
      if (got == 0) return -1;
      pid_ = 0;
      if (got < 0) return 127;  // somebody ignores SIGCHLD: its output has to do
      return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    }
  }

 private:
  pid_t pid_;
};

/// Starts `program argument` with `in` as its standard input and output, found by PATH.
inline Result<pid_t> spawn_helper(std::string const& program, std::string const& argument, int in) {
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, in, STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&actions, in, STDOUT_FILENO);
  auto name = program;
  auto word = argument;
  std::array<char*, 3> argv{name.data(), word.data(), nullptr};
  pid_t pid = -1;
  auto const error =
      ::posix_spawnp(&pid, program.c_str(), &actions, nullptr, argv.data(), ::environ);
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) return fail_errno(error, program);
  return pid;
}

}  // namespace detail

/// Runs `program argument`, gives it `input`, and takes what it prints until it ends.
/// @param program  a name that PATH finds
/// @error{Errc::timed_out, it is still running after `limit`; it is killed}
/// @error{Errc::protocol, it prints more than 64 KiB}
/// @error{an errno, it cannot be started}
[[nodiscard]] inline Result<HelperOutcome> run_helper(std::string const& program,
                                                      std::string const& argument,
                                                      std::string_view input,
                                                      std::chrono::milliseconds limit) {
  constexpr std::size_t longest = 64 * 1024;
  // A socket and not two pipes: writing to one that nobody reads need not raise SIGPIPE.
  std::array<int, 2> ends{};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0) {
    return fail_errno(errno, program);
  }
  UniqueFd const ours(ends[0]);
  UniqueFd theirs(ends[1]);
  auto const deadline = std::chrono::steady_clock::now() + limit;
  auto const pid = detail::spawn_helper(program, argument, theirs.get());
  if (!pid) return fail(pid.error());
  detail::Child child(*pid);
  theirs.reset();

  // `input` is a host's name, which any socket's buffer takes at once.
  (void)::send(ours.get(), input.data(), input.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  ::shutdown(ours.get(), SHUT_WR);

  HelperOutcome out;
  std::array<char, 4096> buffer{};
  for (;;) {
    auto const left =
        std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
    pollfd entry{ours.get(), POLLIN, 0};
    auto const ready = ::poll(&entry, 1, static_cast<int>(std::max<std::int64_t>(left.count(), 0)));
    if (ready < 0 && errno == EINTR) continue;
    if (ready <= 0) return fail(Errc::timed_out, program);
    auto const n = ::recv(ours.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
    if (n < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (n <= 0) break;
    out.output.append(buffer.data(), static_cast<std::size_t>(n));
    if (out.output.size() > longest) return fail(Errc::protocol, program + ": prints too much");
  }
  for (;;) {
    out.exit_status = child.reap(WNOHANG);
    if (out.exit_status >= 0) return out;
    if (std::chrono::steady_clock::now() >= deadline) return fail(Errc::timed_out, program);
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
}

}  // namespace erofs_oci
