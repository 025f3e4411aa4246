// SPDX-License-Identifier: Apache-2.0
/// @file
/// Running a credential helper: a program, a line in, a text out, a deadline; no shell.
#pragma once

#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <erofs_oci/core/result.hpp>
#include <erofs_oci/posix/descriptor.hpp>
#include <erofs_oci/posix/program.hpp>
#include <erofs_oci/posix/wait.hpp>

namespace erofs_oci {

/// What a program said and how it ended.
struct HelperOutcome {
  int exit_status = 0;  ///< 128 + the signal's number if a signal ended it
  std::string output;   ///< of its standard output, at most 64 KiB
};

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
  EROFS_OCI_TRY_ASSIGN(auto ends, socket_pair(), program);
  auto& [ours, theirs] = ends;
  auto const deadline = std::chrono::steady_clock::now() + limit;
  EROFS_OCI_TRY_ASSIGN(
      auto child,
      ChildProgram::start({program, argument}, {.descriptors = {{theirs.get(), STDIN_FILENO},
                                                                {theirs.get(), STDOUT_FILENO}}}));
  theirs.reset();

  // `input` is a host's name, which any socket's buffer takes at once.
  (void)::send(ours.get(), input.data(), input.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  ::shutdown(ours.get(), SHUT_WR);

  HelperOutcome out;
  std::array<char, 4096> buffer{};
  for (;;) {
    pollfd entry{ours.get(), POLLIN, 0};
    EROFS_OCI_TRY_ASSIGN(auto const ready, poll_until({&entry, 1}, deadline), program);
    if (!ready) return fail(Errc::timed_out, program);
    auto const n = ::recv(ours.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
    if (n < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (n <= 0) break;
    out.output.append(buffer.data(), static_cast<std::size_t>(n));
    if (out.output.size() > longest) return fail(Errc::protocol, program + ": prints too much");
  }
  Result<std::optional<int>> status;
  auto const ended = [&] { return !(status = child.poll()) || status->has_value(); };
  auto const left =
      std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
  if (!wait_for(left, ended)) return fail(Errc::timed_out, program);
  // An error: somebody ignores SIGCHLD, and its output has to do.
  out.exit_status = status ? **status : 127;
  return out;
}

}  // namespace erofs_oci
