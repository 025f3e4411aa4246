// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/core/stop.hpp>  // first: proves that the header stands alone

#include <catch.hpp>

namespace erofs_oci {
namespace stop_test {

TEST_CASE("Either of two stops is enough", "[core][stop]") {
  for (auto const ask_first : {true, false}) {
    std::stop_source one;
    std::stop_source other;
    EitherStop const either(one.get_token(), other.get_token());
    REQUIRE_FALSE(either.token().stop_requested());

    (ask_first ? one : other).request_stop();

    CHECK(either.token().stop_requested());
  }
}

TEST_CASE("A stop that cannot be asked for leaves the other one", "[core][stop]") {
  std::stop_source source;

  CHECK(EitherStop(source.get_token(), {}).token() == source.get_token());
  CHECK(EitherStop({}, source.get_token()).token() == source.get_token());
  CHECK_FALSE(EitherStop({}, {}).token().stop_possible());
}

TEST_CASE("What was stopped before is stopped", "[core][stop]") {
  std::stop_source one;
  std::stop_source other;
  other.request_stop();

  CHECK(EitherStop(one.get_token(), other.get_token()).token().stop_requested());
}

}  // namespace stop_test
}  // namespace erofs_oci
