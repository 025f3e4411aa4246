// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/mount/worker_process.hpp>  // first: proves that the header stands alone

#include <cerrno>
#include <string>

#include <fcntl.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch.hpp>

#include <erofs_oci/recovery/process.hpp>

#include <child.hpp>

namespace erofs_oci {
namespace worker_process_test {

/// Work that a signal ends.
int wait_for_the_end(WorkerSeat const&) {
  return ::pause();
}

enum Outcome { good, no_worker, not_reaped, no_such_number, hit };

/// Forks until the kernel gives the child this number; -1 if it does not.
pid_t fork_as(pid_t number, UniqueFd const& ends) {
  for (int i = 0; i < 1000; ++i) {
    UniqueFd const last(::open("/proc/sys/kernel/ns_last_pid", O_WRONLY | O_CLOEXEC));
    auto const text = std::to_string(number - 1);
    if (!last || ::write(last.get(), text.data(), text.size()) < 0) return -1;
    auto const child = ::fork();
    if (child == 0) {
      char byte = 0;
      ::_exit(::read(ends.get(), &byte, 1) == 1 ? 7 : 8);
    }
    if (child == number) return child;
    end_child(child);
  }
  return -1;
}

/// Whether signals for a worker that is reaped hit who has got its number.
Outcome signal_after_its_end() {
  auto worker = WorkerProcess::make();
  if (!worker) return no_worker;
  auto const started = worker->start(wait_for_the_end);
  if (!started) return no_worker;
  auto const pidfd = open_pidfd(started->pid);
  if (!pidfd) return no_worker;
  worker->kill();
  pollfd wait{pidfd->get(), POLLIN, 0};
  if (::poll(&wait, 1, 20'000) != 1) return not_reaped;
  auto const exit = reap(*pidfd);
  if (!exit || !*exit) return not_reaped;
  worker->note_end(**exit);

  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return no_such_number;
  UniqueFd const read(ends[0]);
  UniqueFd const write(ends[1]);
  auto const other = fork_as(started->pid, read);
  if (other < 0) return no_such_number;
  worker->kill();
  worker->stop();
  int status = 0;
  if (::write(write.get(), "x", 1) != 1) return hit;
  if (::waitpid(other, &status, 0) != other) return hit;
  return WIFEXITED(status) && WEXITSTATUS(status) == 7 ? good : hit;
}

TEST_CASE("A signal for a worker that has ended hits nobody else", "[mount][worker_process]") {
  if (::access("/proc/sys/kernel/ns_last_pid", W_OK) != 0) {
    WARN("needs to choose the numbers of processes");
    return;
  }
  CHECK(test::in_a_child([] { return static_cast<int>(signal_after_its_end()); }) == good);
}

TEST_CASE("A worker is asked to end, and is reaped", "[mount][worker_process]") {
  auto const status = test::in_a_child([] {
    auto worker = WorkerProcess::make();
    if (!worker) return 1;
    auto const started = worker->start(wait_for_the_end);
    if (!started) return 2;
    worker->stop();
    worker->stop();
    return ::waitpid(-1, nullptr, WNOHANG) == -1 && errno == ECHILD ? 0 : 3;
  });
  CHECK(status == 0);
}

}  // namespace worker_process_test
}  // namespace erofs_oci
