// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/combinator/stop_at_end.hpp>  // first: proves that the header stands alone

#include <optional>
#include <vector>

#include <catch.hpp>
#include <rapidcheck/catch.h>

#include <erofs_oci/core/any_source.hpp>
#include <erofs_oci/source/memory.hpp>
#include <erofs_oci/testing/archetype.hpp>
#include <erofs_oci/testing/laws.hpp>

namespace erofs_oci {
namespace stop_at_end_test {

using testing::Archetype;

static_assert(RandomAccessSource<StopAtEnd<AnySource>>);
static_assert(RandomAccessSource<StopAtEnd<StopAtEnd<Archetype>>>);

/// Tells at its end whether a stop was asked for.
struct Witness {
  std::stop_token stop;
  std::vector<bool>* ends;

  Witness(std::stop_token one, std::vector<bool>* all) : stop(std::move(one)), ends(all) {}
  Witness(Witness&& other) noexcept
      : stop(std::move(other.stop)), ends(std::exchange(other.ends, nullptr)) {}
  Witness& operator=(Witness&& other) noexcept {
    std::swap(stop, other.stop);
    std::swap(ends, other.ends);
    return *this;
  }
  ~Witness() {
    if (ends != nullptr) ends->push_back(stop.stop_requested());
  }

  [[nodiscard]] std::uint64_t size() const noexcept { return 0; }
  [[nodiscard]] Result<std::size_t> read_at(std::uint64_t, std::span<std::byte>) const {
    return std::size_t{0};
  }
};

TEST_CASE("StopAtEnd reads as its source", "[combinator][stop_at_end][property]") {
  rc::prop("for all bytes", [] {
    auto const bytes = *testing::any_bytes();

    testing::obeys_laws(AnySource(StopAtEnd(Archetype(bytes), std::stop_source())), bytes);
  });
}

TEST_CASE("StopAtEnd asks for a stop before its source ends, and not earlier",
          "[combinator][stop_at_end]") {
  std::stop_source stop;
  std::vector<bool> ends;
  std::optional<StopAtEnd<Witness>> source(
      StopAtEnd(Witness(stop.get_token(), &ends), stop));  // moved
  CHECK_FALSE(stop.stop_requested());
  CHECK(ends.empty());

  source.reset();

  CHECK(ends == std::vector{true});
}

TEST_CASE("A StopAtEnd that takes another's place ends what it had", "[combinator][stop_at_end]") {
  std::stop_source one;
  std::stop_source other;
  std::vector<bool> ends;
  StopAtEnd source(Witness(one.get_token(), &ends), one);

  source = StopAtEnd(Witness(other.get_token(), &ends), other);

  CHECK(ends == std::vector{true});
  CHECK(one.stop_requested());
  CHECK_FALSE(other.stop_requested());
}

}  // namespace stop_at_end_test
}  // namespace erofs_oci
