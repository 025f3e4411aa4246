// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/recovery/process.hpp>  // first: proves that the header stands alone

#include <csignal>
#include <string>

#include <poll.h>
#include <unistd.h>

#include <catch.hpp>

namespace erofs_oci {
namespace process_test {

std::string stat_line(std::string const& name) {
  std::string line = "42 (" + name + ") S";
  for (int field = 4; field <= 21; ++field) line += " " + std::to_string(field);
  return line + " 987654321 23 24";
}

/// Waits for a child's end as a supervisor does.
ProcessExit wait_for(UniqueFd const& pidfd) {
  pollfd fd{pidfd.get(), POLLIN, 0};
  REQUIRE(::poll(&fd, 1, 10'000) == 1);
  auto const exit = reap(pidfd);
  if (!exit || !*exit) FAIL("not reaped");
  return **exit;
}

TEST_CASE("A stat line is read past any program's name", "[recovery][process]") {
  for (auto const* name : {"a", "a b", ") R 1 2", "((", ") ", ""}) {
    auto const stat = parse_process_stat(stat_line(name));

    INFO(name);
    REQUIRE(stat.has_value());
    CHECK(stat->state == 'S');
    CHECK(stat->start_time == 987654321);
  }
}

TEST_CASE("What is no stat line is refused", "[recovery][process][error]") {
  for (auto const* line : {"", ")", "1 (a)", "1 (a) ", "1 (a) S", "1 (a) S 1 2 3"}) {
    CHECK_FALSE(parse_process_stat(line).has_value());
  }
  auto line = stat_line("a");
  line.replace(line.find("987654321"), 9, "x");
  CHECK_FALSE(parse_process_stat(line).has_value());
  line.replace(line.find(" x "), 3, " 99999999999999999999 ");
  CHECK_FALSE(parse_process_stat(line).has_value());
}

TEST_CASE("This process is identified by more than its number", "[recovery][process]") {
  auto const self = this_process().value();

  CHECK(self == identify_process(static_cast<std::uint32_t>(::getpid())).value());
  CHECK(self.start_time != 0);
  CHECK_FALSE(self.boot_id.empty());
}

TEST_CASE("A child is not reaped until it ends, and once", "[recovery][process]") {
  auto const pid = ::fork();
  if (pid == 0) {
    ::pause();
    ::_exit(0);
  }
  REQUIRE(pid > 0);
  auto const pidfd = open_pidfd(pid).value();
  CHECK_FALSE(reap(pidfd).value().has_value());

  REQUIRE(send_signal(pidfd, SIGKILL).has_value());
  pollfd fd{pidfd.get(), POLLIN, 0};
  REQUIRE(::poll(&fd, 1, 10'000) == 1);

  CHECK(wait_for(pidfd) == ProcessExit{{}, SIGKILL});
  CHECK(send_signal(pidfd, SIGKILL).has_value());  // too late is no error
  CHECK_FALSE(reap(pidfd).has_value());
}

TEST_CASE("An exit status differs from a signal", "[recovery][process]") {
  auto const pid = ::fork();
  if (pid == 0) ::_exit(78);
  REQUIRE(pid > 0);

  auto const exit = wait_for(open_pidfd(pid).value());

  CHECK(exit == ProcessExit{78, {}});
  CHECK(exit.to_string() == "exited with status 78");
  CHECK(ProcessExit{{}, 9}.to_string() == "killed by signal 9");
}

}  // namespace process_test
}  // namespace erofs_oci
