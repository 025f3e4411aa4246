// SPDX-License-Identifier: Apache-2.0
#include "find_tests.hpp"  // first: proves that the header stands alone

#include <string>

#include <catch.hpp>
#include <rapidcheck/catch.h>

namespace mount_oci {
namespace find_tests_test {

TEST_CASE("A number is compared as find(1) does it", "[tool][find][property]") {
  rc::prop("just, more, less", [](std::uint64_t number, std::uint64_t other) {
    auto const text = std::to_string(number);
    RC_ASSERT(FindNumber::parse(text)->matches(number));
    RC_ASSERT(FindNumber::parse(text)->matches(other) == (other == number));
    RC_ASSERT(FindNumber::parse("+" + text)->matches(other) == (other > number));
    RC_ASSERT(FindNumber::parse("-" + text)->matches(other) == (other < number));
  });
  for (auto const* const bad :
       {"", "+", "-", "x", "1x", "+-1", "--1", " 1", "1 ", "0x10", "18446744073709551616"}) {
    INFO(bad);
    CHECK_FALSE(FindNumber::parse(bad).has_value());
  }
}

TEST_CASE("A size is rounded up to its unit", "[tool][find]") {
  struct Row {
    char const* text;
    std::uint64_t bytes;
    bool matches;
  };
  for (auto const& row :
       {Row{"0", 0, true}, Row{"1", 1, true}, Row{"1", 512, true}, Row{"1", 513, false},
        Row{"2b", 513, true}, Row{"3c", 3, true}, Row{"2w", 3, true}, Row{"1k", 1, true},
        Row{"-1k", 1, false},  // as find(1): less than 1 KiB, rounded up, is nothing
        Row{"-1k", 0, true}, Row{"+1M", 1 << 20, false}, Row{"+1M", (1 << 20) + 1, true},
        Row{"1G", 1 << 30, true}, Row{"4G", ~std::uint64_t{0}, false}}) {
    INFO(row.text << " " << row.bytes);
    auto const size = FindSize::parse(row.text);
    REQUIRE(size.has_value());
    CHECK(size->matches(row.bytes) == row.matches);
  }
  for (auto const* const bad : {"", "k", "1K", "1kk", "k1", "+k", "1.5M"}) {
    INFO(bad);
    CHECK_FALSE(FindSize::parse(bad).has_value());
  }
}

TEST_CASE("Permissions are all, any or just these", "[tool][find]") {
  struct Row {
    char const* text;
    std::uint16_t mode;
    bool matches;
  };
  for (auto const& row :
       {Row{"755", 0100755, true}, Row{"755", 0104755, false}, Row{"-4000", 0104755, true},
        Row{"-6000", 0104755, false}, Row{"/6000", 0104755, true}, Row{"/6000", 0100755, false},
        Row{"-0", 0100000, true}, Row{"/0", 0100644, true}, Row{"0", 0100000, true}}) {
    INFO(row.text);
    auto const mode = FindMode::parse(row.text);
    REQUIRE(mode.has_value());
    CHECK(mode->matches(row.mode) == row.matches);
  }
  for (auto const* const bad : {"", "-", "/", "8", "17777", "u=rw", "-+1", "+100"}) {
    INFO(bad);
    CHECK_FALSE(FindMode::parse(bad).has_value());
  }
}

}  // namespace find_tests_test
}  // namespace mount_oci
