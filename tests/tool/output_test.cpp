// SPDX-License-Identifier: Apache-2.0
#include "output.hpp"  // first: proves that the header stands alone

#include <cstdint>
#include <string>

#include <catch.hpp>
#include <rapidcheck/catch.h>

namespace mount_oci {
namespace output_test {

TEST_CASE("A short size is rounded up, in units of 1024", "[tool][output][property]") {
  struct Row {
    std::uint64_t bytes;
    std::string text;
  };
  for (auto const& row :
       {Row{0, "0"}, Row{1023, "1023"}, Row{1024, "1.0K"}, Row{1025, "1.1K"}, Row{3000, "3.0K"},
        Row{10189, "10K"}, Row{10240, "10K"}, Row{10241, "11K"}, Row{1023 * 1024, "1023K"},
        Row{1023 * 1024 + 1, "1.0M"}, Row{188'812'800, "181M"}, Row{~std::uint64_t{0}, "16E"}}) {
    CHECK(short_size(row.bytes) == row.text);
  }
  rc::prop("it is never less than the size, nor much more", [](std::uint64_t any) {
    auto const bytes = any >> *rc::gen::inRange(0, 63);
    auto const text = short_size(bytes);
    RC_ASSERT(text.size() <= 5U);  // 1023K is the longest
    auto value = std::stod(text);
    for (char const unit : std::string("KMGTPE")) {
      if (text.find_first_of("KMGTPE") == std::string::npos) break;
      value *= 1024;
      if (text.back() == unit) break;
    }
    RC_ASSERT(value >= static_cast<double>(bytes) * 0.999999);
    RC_ASSERT(value <= static_cast<double>(bytes) * 1.101 + 1);
  });
}

}  // namespace output_test
}  // namespace mount_oci
