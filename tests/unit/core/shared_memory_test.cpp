// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/core/shared_memory.hpp>  // first: proves that the header stands alone

#include <utility>

#include <sys/mman.h>
#include <unistd.h>

#include <catch2/catch.hpp>

namespace erofs_oci {
namespace {

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

TEST_CASE("Shared memory cannot become smaller under who has mapped it", "[core][shared_memory]") {
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

}  // namespace
}  // namespace erofs_oci
