// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/posix/shared_memory.hpp>  // first: proves that the header stands alone

#include <utility>

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <catch.hpp>

namespace erofs_oci {
namespace shared_memory_test {

TEST_CASE("Two maps of one memory see each other's bytes", "[core][shared_memory]") {
  auto const ours = SharedMemory::make(8192).value();
  auto theirs = SharedMemory::map(UniqueFd(::dup(ours.fd()))).value();
  REQUIRE(theirs.bytes().size() == 8192);
  CHECK(theirs.bytes()[8191] == std::byte{0});

  ours.bytes()[8191] = std::byte{7};
  CHECK(theirs.bytes()[8191] == std::byte{7});

  auto const moved = std::move(theirs);
  CHECK(moved.bytes()[8191] == std::byte{7});
}

TEST_CASE("Mapped shared memory cannot become smaller", "[core][shared_memory]") {
  auto const memory = SharedMemory::make(8192).value();
  CHECK(::ftruncate(memory.fd(), 4096) != 0);
  CHECK(::ftruncate(memory.fd(), 16384) != 0);
}

TEST_CASE("Memory that may become smaller is not mapped", "[core][shared_memory][error]") {
  UniqueFd unsealed(::memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  REQUIRE(::ftruncate(unsealed.get(), 8192) == 0);
  CHECK(SharedMemory::map(std::move(unsealed)).error().code == Errc::protocol);
  CHECK_FALSE(SharedMemory::map(UniqueFd()).has_value());
}

TEST_CASE("Memory whose pages may be missing is not mapped", "[core][shared_memory][error]") {
  UniqueFd huge(::memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_HUGETLB));
  if (!huge) return;  // a kernel without huge pages
  REQUIRE(::ftruncate(huge.get(), off_t{1} << 30) == 0);
  auto const ours = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
  REQUIRE(::fcntl(huge.get(), F_ADD_SEALS, ours) == 0);
  CHECK(SharedMemory::map(std::move(huge)).error().code == Errc::protocol);
}

}  // namespace shared_memory_test
}  // namespace erofs_oci
