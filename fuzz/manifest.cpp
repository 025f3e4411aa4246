// SPDX-License-Identifier: Apache-2.0
// Any bytes are refused, or are a manifest or index that encodes and reads as itself.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <variant>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/oci/manifest.hpp>

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  auto const document = erofs_oci::parse_document(std::as_bytes(std::span(data, size)));
  if (!document) return 0;
  auto const text =
      std::visit([](auto const& value) { return erofs_oci::encode(value); }, *document);
  auto const again = erofs_oci::parse_document(erofs_oci::as_bytes(text));
  if (!again || *again != *document) std::abort();
  if (auto const* const index = std::get_if<erofs_oci::Index>(&*document)) {
    (void)erofs_oci::choose_platform(*index, erofs_oci::Platform::host()).has_value();
  }
  return 0;
}
