// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/host/memory_pressure.hpp>  // first: proves that the header stands alone

#include <chrono>
#include <fstream>
#include <string>

#include <sys/mman.h>

#include <catch.hpp>

#include <erofs_oci/core/fd.hpp>

namespace erofs_oci {
namespace memory_pressure_test {

using namespace std::chrono_literals;

constexpr auto text = R"(some avg10=0.12 avg60=0.00 avg300=0.00 total=2345678
full avg10=0.00 avg60=0.00 avg300=0.00 total=99
)";

TEST_CASE("The time that any program has waited is read", "[host][memory_pressure]") {
  CHECK(parse_pressure(text) == 2345678us);
  CHECK(parse_pressure("some total=0") == 0us);
  CHECK(parse_pressure("some avg10=1.00 total=9223372036854775807\n") ==
        std::chrono::microseconds::max());
}

TEST_CASE("What is no pressure stall information is an error", "[host][memory_pressure][error]") {
  for (auto const* const wrong :
       {"", "\n", "some ", "some total", "some total=", "some total=-1", "some total=1 x",
        "some total=9223372036854775808", "full avg10=0.00 total=99\n",
        "some avg10=0.00\nfull total=99\n"}) {
    CAPTURE(wrong);
    auto const found = parse_pressure(wrong);
    REQUIRE_FALSE(found.has_value());
    CHECK(found.error().code == Errc::corrupt);
  }
}

TEST_CASE("A file that was opened once is read anew each time", "[host][memory_pressure]") {
  UniqueFd const file(::memfd_create("pressure", MFD_CLOEXEC));
  auto const path = "/proc/self/fd/" + std::to_string(file.get());
  std::ofstream(path) << text;
  auto const pressure = MemoryPressure::open(path).value();
  CHECK(pressure.waited() == 2345678us);

  std::ofstream(path) << "some total=2345679\n";

  CHECK(pressure.waited() == 2345679us);
}

TEST_CASE("A kernel that does not count is an error", "[host][memory_pressure][error]") {
  CHECK_FALSE(MemoryPressure::open("/proc/self/no such file").has_value());
}

}  // namespace memory_pressure_test
}  // namespace erofs_oci
