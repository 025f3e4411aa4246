// SPDX-License-Identifier: Apache-2.0
/// @file
/// libFuzzer's entry points: the program's name, fuzz-NAME, chooses the target.
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "targets.hpp"

namespace {

FuzzTarget target = nullptr;

}  // namespace

extern "C" int LLVMFuzzerInitialize(int* /*count*/, char*** arguments);
extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size);

extern "C" int LLVMFuzzerInitialize(int* /*count*/, char*** arguments) {
  std::string_view name = **arguments;
  name.remove_prefix(name.rfind("fuzz-") == name.npos ? name.size() : name.rfind("fuzz-") + 5);
  auto const found = fuzz_targets().find(name);
  if (found == fuzz_targets().end()) {
    std::fprintf(stderr, "%s: call the program by a link named fuzz-TARGET\n", **arguments);
    std::exit(2);
  }
  target = found->second;
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  return target(data, size);
}
