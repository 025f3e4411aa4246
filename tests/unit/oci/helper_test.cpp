// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/oci/helper.hpp>  // first: proves that the header stands alone

#include <chrono>
#include <string>

#include <catch.hpp>

namespace erofs_oci {
namespace helper_test {

using namespace std::chrono_literals;

TEST_CASE("A helper gets its input and its output is taken", "[oci][helper]") {
  auto const outcome = run_helper("cat", "-", "registry.example", 5s);

  REQUIRE(outcome.has_value());
  CHECK(outcome->output == "registry.example");
  CHECK(outcome->exit_status == 0);
}

TEST_CASE("An error names the helper's exit status", "[oci][helper]") {
  CHECK(run_helper("false", "get", "x", 5s)->exit_status == 1);
}

TEST_CASE("A helper that is not there is an error", "[oci][helper][error]") {
  auto const outcome = run_helper("docker-credential-of-nobody", "get", "x", 5s);

  REQUIRE_FALSE(outcome.has_value());
  CHECK(outcome.error().code == std::errc::no_such_file_or_directory);
}

TEST_CASE("A helper that does not end is killed", "[oci][helper][error]") {
  auto const start = std::chrono::steady_clock::now();

  auto const outcome = run_helper("sleep", "30", "x", 200ms);

  REQUIRE_FALSE(outcome.has_value());
  CHECK(outcome.error().code == Errc::timed_out);
  CHECK(std::chrono::steady_clock::now() - start < 5s);
}

TEST_CASE("A helper that prints without end is stopped", "[oci][helper][error]") {
  auto const outcome = run_helper("yes", "y", "x", 5s);

  REQUIRE_FALSE(outcome.has_value());
  CHECK(outcome.error().code == Errc::protocol);
}

TEST_CASE("No shell looks at a helper's argument", "[oci][helper]") {
  CHECK(run_helper("echo", "$(id); x", "", 5s)->output == "$(id); x\n");
}

}  // namespace helper_test
}  // namespace erofs_oci
