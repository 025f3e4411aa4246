// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/tarindex/place.hpp>  // first: proves that the header stands alone

#include <catch2/catch.hpp>
#include <rapidcheck/catch.h>

namespace erofs_oci::tarindex {
namespace {

TEST_CASE("Devices lie end to end behind the metadata", "[tarindex][place][property]") {
  CHECK(*place({}, 7) == std::vector<Placed>{});
  CHECK(*place({{3, ""}, {0, ""}, {5, ""}}, 7) == std::vector<Placed>{{7, 3}, {10, 0}, {10, 5}});

  rc::prop("for all lengths, a device begins where the one before ends", [] {
    auto const lengths = *rc::gen::container<std::vector<std::uint64_t>>(
        rc::gen::inRange<std::uint64_t>(0, 1 << 20));
    auto const metadata = *rc::gen::inRange<std::uint64_t>(0, 1 << 20);
    std::vector<erofs::Device> devices;
    for (auto const length : lengths) devices.push_back({length, ""});

    auto const placed = place(devices, metadata);

    RC_ASSERT(placed.has_value());
    RC_ASSERT(placed->size() == lengths.size());
    auto next = metadata;
    for (std::size_t i = 0; i < lengths.size(); ++i) {
      RC_ASSERT((*placed)[i] == (Placed{next, lengths[i]}));
      next += lengths[i];
    }
  });
}

TEST_CASE("More than 32 bits address is refused", "[tarindex][place][error]") {
  CHECK(place({{max_flat_blocks - 2, ""}}, 1));
  CHECK_FALSE(place({{max_flat_blocks - 1, ""}}, 1));
  CHECK_FALSE(place({{max_flat_blocks / 2, ""}, {max_flat_blocks / 2 + 1, ""}}, 0));
  auto const overflow = place({{std::uint64_t(-1), ""}}, 1);
  REQUIRE_FALSE(overflow);
  CHECK(overflow.error().code == Errc::unsupported);
}

}  // namespace
}  // namespace erofs_oci::tarindex
