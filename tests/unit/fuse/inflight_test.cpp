// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/fuse/inflight.hpp>  // first: proves that the header stands alone

#include <cstdint>
#include <cstring>
#include <limits>
#include <string>

#include <sys/mman.h>
#include <unistd.h>

#include <catch.hpp>

#include <erofs_oci/core/bytes.hpp>

namespace erofs_oci {
namespace inflight_test {

void write(FuseInflight const& inflight, std::size_t slot, std::uint32_t length) {
  fuse_in_header header{};
  header.len = length;
  header.unique = 7;
  std::memcpy(inflight.slot(slot).data(), &header, sizeof header);
}

TEST_CASE("A slot holds a request until it is cleared, and another process sees it",
          "[fuse][inflight]") {
  auto const ours = FuseInflight::make(3).value();
  auto const theirs = FuseInflight::map(ours.share().value()).value();
  CHECK(theirs.slots() == 3);
  for (std::size_t i = 0; i < 3; ++i) {
    ours.touch(i);
    CHECK(ours.request(i).empty());
  }

  write(ours, 1, 80);

  CHECK(theirs.request(0).empty());
  CHECK(theirs.request(1).size() == 80);
  CHECK(theirs.request(1).data() == theirs.slot(1).data());
  CHECK(theirs.request(2).empty());
  ours.touch(1);
  CHECK(theirs.request(1).size() == 80);
  theirs.clear(1);
  CHECK(ours.request(1).empty());
}

TEST_CASE("A request is remembered with the servers that crashed with it", "[fuse][inflight]") {
  auto const inflight = FuseInflight::make(3).value();
  write(inflight, 0, 80);
  inflight.note_crash();
  write(inflight, 2, 80);
  inflight.note_crash();
  CHECK(inflight.crashes(0) == 2);
  CHECK(inflight.crashes(1) == 0);
  CHECK(inflight.crashes(2) == 1);
  CHECK(inflight.request(2).size() == 80);

  inflight.clear(0);
  CHECK(inflight.crashes(0) == 0);
  CHECK(inflight.crashes(2) == 1);
}

TEST_CASE("A length that no request can have is no request", "[fuse][inflight][error]") {
  auto const inflight = FuseInflight::make(2).value();
  constexpr auto most = static_cast<std::uint32_t>(FuseInflight::slot_size);
  for (auto const length : {0u, 1u, 39u, most + 1, std::numeric_limits<std::uint32_t>::max()}) {
    write(inflight, 0, length);
    CHECK(inflight.request(0).empty());
  }
  for (auto const length : {40u, most}) {
    write(inflight, 0, length);
    CHECK(inflight.request(0).size() == length);
  }
}

TEST_CASE("What are no slots is refused", "[fuse][inflight][error]") {
  auto const memory = SharedMemory::make(4096).value();
  CHECK(FuseInflight::map(UniqueFd(::dup(memory.fd()))).error().code == Errc::protocol);
  UniqueFd unsealed(::memfd_create("test", MFD_CLOEXEC));
  REQUIRE(::ftruncate(unsealed.get(), FuseInflight::slot_size) == 0);
  CHECK(FuseInflight::map(std::move(unsealed)).error().code == Errc::protocol);
  constexpr auto most = FuseInflight::most_slots;
  auto const too_many = FuseInflight::make(most + 1).value();  // no page of it is touched
  CHECK(FuseInflight::map(too_many.share().value()).error().code == Errc::protocol);
  CHECK(FuseInflight::map(FuseInflight::make(most)->share().value())->slots() == most);
}

}  // namespace inflight_test
}  // namespace erofs_oci
