// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/core/backoff.hpp>  // first: proves that the header stands alone

#include <catch.hpp>

namespace erofs_oci {
namespace backoff_test {

using namespace std::chrono_literals;

Error error_of(Errc code) {
  return {make_error_code(code), "test", {}};
}

TEST_CASE("Backoff doubles its pauses up to a limit", "[core][backoff]") {
  Backoff const policy{.attempts = 100, .most_pause = 1s, .total = 1h, .jitter = 0};
  auto const error = error_of(Errc::timed_out);

  CHECK(policy.next(0, error, 0ms) == 100ms);
  CHECK(policy.next(1, error, 0ms) == 200ms);
  CHECK(policy.next(3, error, 0ms) == 800ms);
  CHECK(policy.next(4, error, 0ms) == 1000ms);
  CHECK(policy.next(98, error, 0ms) == 1000ms);
  CHECK(policy.next(99, error, 0ms) == std::nullopt);
  CHECK(Backoff{.attempts = 1}.next(0, error, 0ms) == std::nullopt);
}

TEST_CASE("Backoff tries again only what may pass", "[core][backoff]") {
  for (auto const code : {Errc::corrupt, Errc::digest_mismatch, Errc::truncated, Errc::unauthorized,
                          Errc::not_found, Errc::protocol, Errc::unsupported,
                          Errc::invalid_argument, Errc::mismatch, Errc::stopping}) {
    CHECK(Backoff{}.next(0, error_of(code), 0ms) == std::nullopt);
  }
  CHECK(Backoff{}.next(0, error_of(Errc::unavailable), 0ms) != std::nullopt);
  CHECK(Backoff{}.next(0, error_of(Errc::timed_out), 0ms) != std::nullopt);
}

TEST_CASE("Backoff begins no attempt after its total time", "[core][backoff]") {
  Backoff const policy{.total = 1s, .jitter = 0};
  auto const error = error_of(Errc::unavailable);

  CHECK(policy.next(0, error, 900ms) == 100ms);
  CHECK(policy.next(0, error, 901ms) == std::nullopt);
  CHECK(policy.next(0, error, 5s) == std::nullopt);
}

TEST_CASE("Backoff waits as long as the peer says, if there is time", "[core][backoff]") {
  Backoff const policy{.total = 10s, .jitter = 1};
  auto error = error_of(Errc::unavailable);

  error.retry_after = 9s;
  CHECK(policy.next(0, error, 0ms) == 9s);
  CHECK(policy.next(0, error, 1001ms) == std::nullopt);
  error.retry_after = 0s;
  CHECK(policy.next(0, error, 0ms) <= 100ms);
}

TEST_CASE("Backoff shortens its pauses at random, by no more than the jitter",
          "[core][backoff][property]") {
  Backoff const policy{.first_pause = 1s, .jitter = 0.5};
  auto const error = error_of(Errc::unavailable);
  auto least = 1000ms;
  auto most = 0ms;

  for (auto i = 0; i < 200; ++i) {
    auto const pause = policy.next(0, error, 0ms).value();
    least = std::min(least, pause);
    most = std::max(most, pause);
  }

  CHECK(least >= 500ms);
  CHECK(most <= 1000ms);
  CHECK(most - least > 100ms);
}

}  // namespace backoff_test
}  // namespace erofs_oci
