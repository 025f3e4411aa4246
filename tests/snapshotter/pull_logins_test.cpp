// SPDX-License-Identifier: Apache-2.0
#include "pull_logins.hpp"  // first: proves that the header stands alone

#include <catch.hpp>

namespace oci_snapshotter {
namespace pull_logins_test {

TEST_CASE("An image's repository has all defaults filled in", "[snapshotter][logins]") {
  using Row = std::pair<char const*, char const*>;
  auto const [image, repository] = GENERATE(
      Row{"debian", "docker.io/library/debian"}, Row{"docker.io/a/b:1", "docker.io/a/b"},
      Row{"Host:5000/a/b@sha256:0123456789012345678901234567890123456789012345678901234567890123",
          "host:5000/a/b"},
      Row{"h/../x", ""}, Row{"", ""});

  PullLogins logins;
  auto const pull = logins.begin(image, {"u", "1"});

  CHECK((pull == 0) == (*repository == '\0'));
  CHECK((logins.find(repository) == Login{"u", "1"}) == (pull != 0));
}

TEST_CASE("The newest login of a repository counts, and of no other one", "[snapshotter][logins]") {
  PullLogins logins;
  auto const first = logins.begin("h.x/a/b:1", {"u", "1"});
  logins.keep(first, "sha256:1");
  auto const second = logins.begin("h.x/a/b:2", {"u", "2"});
  logins.keep(second, "sha256:2");

  CHECK(logins.find("h.x/a/b") == Login{"u", "2"});
  CHECK_FALSE(logins.find("h.x/a").has_value());
  CHECK_FALSE(logins.find("h.x/a/bc").has_value());
  CHECK_FALSE(logins.find("other.x/a/b").has_value());
  CHECK(logins.begin("no image at all", {"u", "3"}) == 0);
}

TEST_CASE("A pull that fails leaves the login that was there", "[snapshotter][logins]") {
  PullLogins logins;
  logins.keep(logins.begin("h.x/a:1", {"u", "good"}), "id");
  auto const bad = logins.begin("h.x/a:1", {"u", "bad"});
  CHECK(logins.find("h.x/a") == Login{"u", "bad"});

  logins.drop(bad);

  CHECK(logins.find("h.x/a") == Login{"u", "good"});
}

TEST_CASE("A pull that succeeds takes the place of earlier ones of its image",
          "[snapshotter][logins]") {
  PullLogins logins;
  for (auto const* secret : {"1", "2", "3"}) {
    logins.keep(logins.begin("h.x/a:1", {"u", secret}), "id");
  }

  CHECK(logins.size() == 1);
  CHECK(logins.find("h.x/a") == Login{"u", "3"});
}

TEST_CASE("An image that is removed takes its login along, by its name or id",
          "[snapshotter][logins]") {
  auto const [removed, stays] =
      GENERATE(std::pair("h.x/a:1", false), std::pair("sha256:1", false),
               std::pair("h.x/a:2", true), std::pair("sha256:2", true), std::pair("", true));
  PullLogins logins;
  logins.keep(logins.begin("h.x/a:1", {"u", "1"}), "sha256:1");

  logins.forget(removed);

  CHECK(logins.find("h.x/a").has_value() == stays);
}

TEST_CASE("Logins take no more memory than their number allows", "[snapshotter][logins]") {
  PullLogins logins;
  for (std::size_t i = 0; i <= PullLogins::most; ++i) {
    static_cast<void>(logins.begin("h.x/a" + std::to_string(i), {"u", "s"}));
  }

  CHECK(logins.size() == PullLogins::most);
  CHECK_FALSE(logins.find("h.x/a0").has_value());
  CHECK(logins.find("h.x/a1").has_value());
}

}  // namespace pull_logins_test
}  // namespace oci_snapshotter
