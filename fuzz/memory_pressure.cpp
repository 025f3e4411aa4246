// SPDX-License-Identifier: Apache-2.0
// Any text is refused, or is a time that is not negative.
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include <erofs_oci/host/memory_pressure.hpp>

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  auto const text = std::string_view(reinterpret_cast<char const*>(data), size);
  auto const waited = erofs_oci::parse_pressure(text);
  if (waited && *waited < std::chrono::microseconds(0)) std::abort();
  return 0;
}
