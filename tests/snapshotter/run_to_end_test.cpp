// SPDX-License-Identifier: Apache-2.0
#include "run_to_end.hpp"  // first: proves that the header stands alone

#include <system_error>

#include <catch.hpp>

namespace oci_snapshotter {
namespace run_to_end_test {

TEST_CASE("A program gets its input and variables, and its output comes back",
          "[snapshotter][run_to_end]") {
  auto const outcome = run_to_end({"sh", "-c", "cat; echo \"$X\"; echo why >&2; exit 3"},
                                  {.text = "given ", .variables = {"X=y"}}, {});

  REQUIRE(outcome.has_value());
  CHECK(outcome->status == 3);
  CHECK(outcome->output == "given y\n");
  CHECK(outcome->errors == "why\n");
}

TEST_CASE("A program has no input by default", "[snapshotter][run_to_end]") {
  auto const outcome = run_to_end({"cat"}, {}, {});

  REQUIRE(outcome.has_value());
  CHECK(outcome->status == 0);
  CHECK(outcome->output.empty());
}

TEST_CASE("A program that has failed is told by its last line, or by its status",
          "[snapshotter][run_to_end][error]") {
  CHECK(output_of({0, "out", "a warning\n"}, "p") == "out");

  auto const with_words = output_of({1, "out", "first\nlast\n"}, "p");
  REQUIRE_FALSE(with_words.has_value());
  CHECK(with_words.error().code == std::errc::io_error);
  CHECK(with_words.error().message() == "last");

  auto const silent = output_of({129, "out", ""}, "p");
  REQUIRE_FALSE(silent.has_value());
  CHECK(silent.error().message() == "p: ended with status 129");
}

}  // namespace run_to_end_test
}  // namespace oci_snapshotter
