// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/recovery/service_notifier.hpp>  // first: proves that the header stands alone

#include <array>
#include <cstdlib>
#include <string>

#include <catch.hpp>
#include <scratch.hpp>

#include "support.hpp"

namespace erofs_oci {
namespace service_notifier_test {

/// A service manager's end.
class Manager {
 public:
  explicit Manager(std::string const& address)
      : fd_(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)) {
    auto const name = address.front() == '@' ? UnixAddress::abstract(address.substr(1))
                                             : UnixAddress::at(address);
    REQUIRE(::bind(fd_.get(), name->get(), name->size()) == 0);
  }

  std::string receive() const {
    std::array<char, 4096> buffer;
    auto const n = ::recv(fd_.get(), buffer.data(), buffer.size(), 0);
    return n < 0 ? "" : std::string(buffer.data(), static_cast<std::size_t>(n));
  }

 private:
  UniqueFd fd_;
};

TEST_CASE("Each state is one datagram", "[recovery][service_notifier]") {
  test::Scratch const directory;
  auto const abstract = GENERATE(false, true);
  auto const address =
      abstract ? "@erofs_oci-test-" + std::to_string(::getpid()) : directory / "notify";
  Manager const manager(address);
  auto const notifier = ServiceNotifier::open(address).value();
  CHECK(notifier.is_active());

  REQUIRE(notifier.ready().has_value());
  CHECK(manager.receive() == "READY=1");
  REQUIRE(notifier.stopping().has_value());
  CHECK(manager.receive() == "STOPPING=1");
  REQUIRE(notifier.status("serving nbd0\nMAINPID=1").has_value());
  CHECK(manager.receive() == "STATUS=serving nbd0 MAINPID=1");
  CHECK(manager.receive().empty());
}

TEST_CASE("Without a manager nothing is sent and nothing fails", "[recovery][service_notifier]") {
  ::unsetenv("NOTIFY_SOCKET");
  auto const notifier = ServiceNotifier::from_environment().value();

  CHECK_FALSE(notifier.is_active());
  CHECK(notifier.ready().has_value());
}

TEST_CASE("The environment is taken, so that no child speaks for the service",
          "[recovery][service_notifier]") {
  test::Scratch const directory;
  Manager const manager(directory / "notify");
  ::setenv("NOTIFY_SOCKET", (directory / "notify").c_str(), 1);
  ::setenv("WATCHDOG_USEC", "3000000", 1);
  ::setenv("WATCHDOG_PID", std::to_string(::getpid()).c_str(), 1);

  auto const notifier = ServiceNotifier::from_environment().value();

  for (auto const* name : {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"}) {
    CHECK(std::getenv(name) == nullptr);
  }
  REQUIRE(notifier.ready().has_value());
  CHECK(manager.receive() == "READY=1");
}

TEST_CASE("Addresses that are no sockets are refused", "[recovery][service_notifier][error]") {
  CHECK(ServiceNotifier::open("vsock:2:1").error().code == Errc::unsupported);
  CHECK(ServiceNotifier::open("relative").error().code == Errc::unsupported);
  CHECK(ServiceNotifier::open("/").error().code == Errc::invalid_argument);
  CHECK(ServiceNotifier::open("/" + std::string(200, 'a')).error().code ==
        std::errc::filename_too_long);
}

TEST_CASE("Sending to a manager that has ended is an error",
          "[recovery][service_notifier][error]") {
  test::Scratch const directory;
  auto const notifier = ServiceNotifier::open(directory / "none").value();

  CHECK(notifier.ready().error().code == std::errc::no_such_file_or_directory);
}

}  // namespace service_notifier_test
}  // namespace erofs_oci
