// SPDX-License-Identifier: Apache-2.0
// A process of its own for a test that changes what a process has only once.
#pragma once

#include <cerrno>
#include <csignal>
#include <functional>

#include <sys/wait.h>
#include <unistd.h>

namespace erofs_oci::test {

/// Runs `life` in a child; the status that it yields, or -1 if a signal ended it.
inline int in_a_child(std::function<int()> const& life) {
  auto const child = ::fork();
  if (child == 0) {
    ::signal(SIGTERM, SIG_DFL);  // the test framework's handler would report it
    ::_exit(life());
  }
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {}
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

}  // namespace erofs_oci::test
