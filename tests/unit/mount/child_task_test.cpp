// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/mount/child_task.hpp>  // first: proves that the header stands alone

#include <cerrno>
#include <csignal>
#include <optional>

#include <fcntl.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch.hpp>

#include <erofs_oci/recovery/process.hpp>

#include <child.hpp>

namespace erofs_oci {
namespace child_task_test {

constexpr int patience = 20'000;  // milliseconds

struct Pipe {
  Pipe() {
    int fds[2];
    REQUIRE(::pipe2(fds, O_CLOEXEC) == 0);
    read = UniqueFd(fds[0]);
    write = UniqueFd(fds[1]);
  }
  /// Waits until nobody can write any more.
  [[nodiscard]] bool ends() {
    write.reset();
    pollfd wait{read.get(), POLLIN, 0};
    return ::poll(&wait, 1, patience) == 1;
  }
  UniqueFd read;
  UniqueFd write;
};

/// Waits for the outcome.
bool outcome(ChildTask& task, std::optional<bool> const& done) {
  pollfd wait{task.fd(), POLLIN, 0};
  REQUIRE(::poll(&wait, 1, patience) == 1);
  task.finish();
  CHECK(task.fd() == -1);
  return done.value();
}

TEST_CASE("The outcome of work is told", "[mount][child]") {
  for (auto const good : {true, false}) {
    ChildTask task;
    std::optional<bool> done;
    REQUIRE(task.begin([good] { return good; }, [&](bool ok) { done = ok; }).has_value());
    CHECK(outcome(task, done) == good);
  }
}

TEST_CASE("Work that waits for ever keeps nothing of ours open", "[mount][child]") {
  Pipe pipe;
  ChildTask task;
  std::optional<bool> done;
  auto const wait_for_ever = [] { return ::pause() == 0; };
  REQUIRE(task.begin(wait_for_ever, [&](bool ok) { done = ok; }).has_value());
  CHECK(pipe.ends());
  UniqueFd const pidfd(::dup(task.fd()));
  REQUIRE(send_signal(pidfd, SIGKILL).has_value());
  CHECK_FALSE(outcome(task, done));
}

TEST_CASE("Work ends with the process that wants it", "[mount][child]") {
  Pipe pipe;
  auto const status = test::in_a_child([&] {
    ::dup2(pipe.write.get(), STDOUT_FILENO);  // which the work has, too
    ChildTask task;
    return task.begin([] { return ::pause() == 0; }, [](bool) {}) ? 0 : 1;
  });
  CHECK(status == 0);
  CHECK(pipe.ends());
}

TEST_CASE("Work that cannot be watched is not left behind", "[mount][child][error]") {
  auto const status = test::in_a_child([] {
    close_all_but({});
    rlimit const none{3, 3};
    if (::setrlimit(RLIMIT_NOFILE, &none) != 0) return 1;
    ChildTask task;
    if (task.begin([] { return ::pause() == 0; }, [](bool) {})) return 2;
    return ::waitpid(-1, nullptr, WNOHANG) == -1 && errno == ECHILD ? 0 : 3;
  });
  CHECK(status == 0);
}

}  // namespace child_task_test
}  // namespace erofs_oci
