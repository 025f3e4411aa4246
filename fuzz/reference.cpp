// SPDX-License-Identifier: Apache-2.0
// Any text is refused, or is a reference that prints and reads as itself.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include <erofs_oci/oci/reference.hpp>

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  auto const text = std::string_view(reinterpret_cast<char const*>(data), size);
  auto const reference = erofs_oci::Reference::parse(text);
  if (!reference) return 0;
  auto const again = erofs_oci::Reference::parse(reference->to_string());
  if (!again || *again != *reference) std::abort();
  if (reference->tag.empty() != reference->digest.has_value()) std::abort();
  return 0;
}
