// SPDX-License-Identifier: Apache-2.0
#include "memory_keeper.hpp"  // first: proves that the header stands alone

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <sys/mman.h>

#include <catch.hpp>
#include <child.hpp>
#include <sanitized.hpp>

#include <erofs_oci/posix/text_file.hpp>

namespace mount_oci {
namespace memory_keeper_test {

/// A number of this process, in KiB.
long number_of(std::string const& name) {
  auto const text = erofs_oci::read_text_file("/proc/self/status").value();
  auto const at = text.find("\n" + name + ":");
  return std::stol(text.substr(at + name.size() + 2));
}

TEST_CASE("Free memory goes back to the machine, also if the process is locked", "[tool][memory]") {
  if (is_sanitized) return;
  constexpr int cannot_lock = 77;
  auto const locked = GENERATE(false, true);
  auto const status = erofs_oci::test::in_a_child([&] {
    if (locked && ::mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) != 0) return cannot_lock;
    bound_heap();
    std::vector<std::unique_ptr<std::byte[]>> pieces;
    for (int i = 0; i < 1000; ++i) pieces.push_back(std::make_unique<std::byte[]>(64 * 1024));
    auto const full = number_of("VmRSS");
    pieces.erase(pieces.begin(), pieces.end() - 1);  // the last one: the heap's end stays

    release_heap();

    if (number_of("VmRSS") > full - 50 * 1024) return 1;
    return locked && number_of("VmLck") == 0 ? 2 : 0;
  });
  if (status == cannot_lock) return;
  CHECK(status == 0);
}

}  // namespace memory_keeper_test
}  // namespace mount_oci
