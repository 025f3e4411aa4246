// SPDX-License-Identifier: Apache-2.0
#include "helper_process.hpp"  // first: proves that the header stands alone

#include <chrono>
#include <optional>
#include <stop_token>
#include <string>
#include <thread>

#include <poll.h>
#include <unistd.h>

#include <catch.hpp>
#include <child.hpp>

#include <erofs_oci/posix/descriptor.hpp>

namespace mount_oci {
namespace helper_process_test {

using erofs_oci::Credentials;
using erofs_oci::MountMessage;
using Found = Result<std::optional<Credentials>>;

TEST_CASE("A helper looks up credentials, of the image's registries only", "[tool][helper]") {
  Credentials const known{"me", std::string(40'000, 'x') + " \n\xff", {}, {}};
  auto const lookup = look_up_by_helper(
      [&](std::string const& registry, std::string const& repository) -> Found {
        if (repository != "app") return erofs_oci::fail(Errc::corrupt, repository);
        if (registry == "bad") return erofs_oci::fail(Errc::corrupt, "its config");
        return registry == "none" ? std::optional<Credentials>() : std::optional(known);
      },
      {"here", "none", "bad"}, "app", {});
  REQUIRE(lookup.has_value());
  CHECK((*lookup)("here", "another").value() == known);
  CHECK_FALSE((*lookup)("none", "app").value().has_value());
  CHECK((*lookup)("bad", "app").error().code == Errc::corrupt);
  CHECK((*lookup)("elsewhere", "app").error().code == Errc::unauthorized);
}

TEST_CASE("A helper ends with the process that asks, and cleans up", "[tool][helper]") {
  auto ends = erofs_oci::socket_pair().value();
  auto const status = erofs_oci::test::in_a_child([&] {
    // Its own descriptors are closed: this one was made before and is not kept.
    auto const theirs = ends.second.get();
    auto const helper = HelperProcess::start(
        [&](MountMessage const&) {
          auto const closed = ::write(theirs, "x", 1) < 0;
          return MountMessage{MountMessage::Kind::settled, closed ? "closed" : "open", {}, {}};
        },
        [] { ::unlink("/tmp/helper-process-test"); });
    if (!helper) return 1;
    auto const answer = helper->ask({MountMessage::Kind::device, {}, {}, {}});
    return answer && answer->text == "closed" ? 0 : 2;
  });
  CHECK(status == 0);
}

TEST_CASE("A stop ends the waiting for a helper, which is asked no more", "[tool][helper][error]") {
  std::stop_source stop;
  auto const lookup = look_up_by_helper(
      [](std::string const&, std::string const&) -> Found {
        ::poll(nullptr, 0, 20'000);
        return std::optional<Credentials>();
      },
      {"here"}, "app", stop.get_token());
  REQUIRE(lookup.has_value());
  auto const begin = std::chrono::steady_clock::now();
  std::jthread const stopper([&] { stop.request_stop(); });

  CHECK((*lookup)("here", "app").error().code == Errc::stopping);
  CHECK((*lookup)("here", "app").error().code == Errc::stopping);
  CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds(10));
}

TEST_CASE("A helper that has ended is an error", "[tool][helper][error]") {
  auto const helper =
      HelperProcess::start([](MountMessage const&) -> MountMessage { std::_Exit(1); });
  REQUIRE(helper.has_value());
  CHECK(helper->ask({MountMessage::Kind::device, {}, {}, {}}).error().code == Errc::unavailable);
  CHECK_FALSE(helper->ask({MountMessage::Kind::device, {}, {}, {}}).has_value());
}

}  // namespace helper_process_test
}  // namespace mount_oci
