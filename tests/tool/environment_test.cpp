// SPDX-License-Identifier: Apache-2.0
#include "environment.hpp"  // first: proves that the header stands alone

#include <cstdlib>
#include <string>
#include <string_view>

#include <unistd.h>

#include <catch.hpp>
#include <child.hpp>

#include <erofs_oci/posix/temporary_directory.hpp>

namespace mount_oci {
namespace environment_test {

std::string_view value_of(char const* name) {
  auto const* const value = std::getenv(name);
  return value != nullptr ? value : "(none)";
}

TEST_CASE("Root's environment is root's own", "[tool][environment]") {
  if (::geteuid() != 0) {
    WARN("skipped: not root");
    return;
  }
  auto const ours = erofs_oci::TemporaryDirectory::make("/tmp/environment-").value();
  auto const theirs = erofs_oci::TemporaryDirectory::make("/tmp/environment-").value();
  REQUIRE(::chown(theirs.path().c_str(), 1000, 1000) == 0);
  auto const status = erofs_oci::test::in_a_child([&] {
    ::setenv("PATH", (theirs.path() + "::relative:/tmp:/no/such:" + ours.path()).c_str(), 1);
    ::setenv("HOME", theirs.path().c_str(), 1);
    ::setenv("DOCKER_CONFIG", theirs.path().c_str(), 1);
    ::setenv("XDG_CACHE_HOME", ours.path().c_str(), 1);
    for (auto const* const name : {"LD_PRELOAD", "ENV", "PYTHONPATH"}) ::setenv(name, "x", 1);
    ::setenv("ENVOY", "stays", 1);
    ::setenv("https_proxy", "http://stays", 1);
    clean_environment();
    if (value_of("PATH") != ours.path()) return 1;
    if (value_of("HOME") != "/root" || value_of("DOCKER_CONFIG") != "(none)") return 2;
    if (value_of("XDG_CACHE_HOME") != ours.path()) return 3;
    for (auto const* const name : {"LD_PRELOAD", "ENV", "PYTHONPATH"}) {
      if (value_of(name) != "(none)") return 4;
    }
    if (value_of("ENVOY") != "stays" || value_of("https_proxy") != "http://stays") return 5;
    ::setenv("PATH", theirs.path().c_str(), 1);
    clean_environment();
    return value_of("PATH").starts_with("/usr/local/sbin:") ? 0 : 6;
  });
  CHECK(status == 0);
}

TEST_CASE("Another user's environment stays", "[tool][environment]") {
  if (::geteuid() != 0) {
    WARN("skipped: not root");
    return;
  }
  auto const status = erofs_oci::test::in_a_child([&] {
    if (::setuid(1000) != 0) return 1;
    ::setenv("PATH", "relative", 1);
    ::setenv("PYTHONPATH", "x", 1);
    clean_environment();
    return value_of("PATH") == "relative" && value_of("PYTHONPATH") == "x" ? 0 : 2;
  });
  CHECK(status == 0);
}

}  // namespace environment_test
}  // namespace mount_oci
