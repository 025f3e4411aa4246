// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/posix/memory_file.hpp>  // first: proves that the header stands alone

#include <cstddef>

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <catch.hpp>

namespace erofs_oci {
namespace memory_file_test {

TEST_CASE("Bytes arrive, and nobody can change them on their way", "[core][memory_file]") {
  Bytes const bytes(5000, std::byte{7});
  auto const file = to_memory_file(bytes).value();
  CHECK(from_memory_file(file).value() == bytes);
  CHECK(::pwrite(file.get(), "x", 1, 0) < 0);
  CHECK(::ftruncate(file.get(), 1) != 0);
  CHECK(from_memory_file(to_memory_file({}).value()).value().empty());
}

TEST_CASE("What might change or block is not read", "[core][memory_file][error]") {
  UniqueFd const unsealed(::memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  REQUIRE(::ftruncate(unsealed.get(), 4096) == 0);
  CHECK(from_memory_file(unsealed).error().code == Errc::protocol);
  UniqueFd const file(::open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
  CHECK(from_memory_file(file).error().code == Errc::protocol);
  CHECK_FALSE(from_memory_file(UniqueFd()).has_value());
}

TEST_CASE("More than 64 MiB are not read", "[core][memory_file][error]") {
  UniqueFd const large(::memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  REQUIRE(::ftruncate(large.get(), (off_t{64} << 20) + 1) == 0);
  REQUIRE(::fcntl(large.get(), F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW) == 0);
  CHECK(from_memory_file(large).error().code == Errc::protocol);
}

}  // namespace memory_file_test
}  // namespace erofs_oci
