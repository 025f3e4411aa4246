// SPDX-License-Identifier: Apache-2.0
#include "progress.hpp"  // first: proves that the header stands alone

#include <catch.hpp>

namespace mount_oci {
namespace progress_test {

using std::chrono::milliseconds;

TEST_CASE("Sizes are told in three digits or so", "[tool][progress]") {
  auto const [bytes, text] =
      GENERATE(table<std::uint64_t, char const*>({{0, "0 B"},
                                                  {999, "999 B"},
                                                  {1000, "1.0 kB"},
                                                  {1049, "1.0 kB"},
                                                  {99'999, "99.9 kB"},
                                                  {100'000, "100 kB"},
                                                  {999'999, "999 kB"},
                                                  {1'000'000, "1.0 MB"},
                                                  {~std::uint64_t{0}, "18.4 EB"}}));

  CHECK(size_text(bytes) == text);
}

TEST_CASE("a count is followed by the noun in its number") {
  CHECK(counted(0, "span") == "0 spans");
  CHECK(counted(1, "span") == "1 span");
  CHECK(counted(2, "span") == "2 spans");
}

TEST_CASE("Progress shows rate and remaining time after half a second", "[tool][progress]") {
  CHECK(progress_text({0, 3, 0, 9'000'000, milliseconds(0)}) ==
        "indexing: 0 of 3 layers, 0 B of 9.0 MB");
  CHECK(progress_text({0, 1, 100'000, 9'000'000, milliseconds(100)}) ==
        "indexing: 0 of 1 layer, 100 kB of 9.0 MB, 1.0 MB/s");
  CHECK(progress_text({1, 3, 3'000'000, 9'000'000, milliseconds(1000)}) ==
        "indexing: 1 of 3 layers, 3.0 MB of 9.0 MB, 3.0 MB/s, 0:02 left");
  CHECK(progress_text({0, 3, 1'000'000, 10'000'000'000, milliseconds(1000)}) ==
        "indexing: 0 of 3 layers, 1.0 MB of 10.0 GB, 1.0 MB/s, 2:46:39 left");
  CHECK(progress_text({3, 3, 9'000'000, 9'000'000, milliseconds(1000)}) ==
        "indexing: 3 of 3 layers, 9.0 MB of 9.0 MB, 9.0 MB/s");
}

}  // namespace progress_test
}  // namespace mount_oci
