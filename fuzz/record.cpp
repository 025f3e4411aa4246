// SPDX-License-Identifier: Apache-2.0
/// @file
/// record: any bytes are a record or an error; one that is accepted is written back byte for byte.
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/digest/sha256.hpp>
#include <erofs_oci/recovery/record_codec.hpp>

using namespace erofs_oci;

// As they are, most bytes fail by their checksum; with one put behind them the fields are reached.
extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  auto const input = as_text(std::as_bytes(std::span(data, size)));
  auto const sealed = std::string(input) + "sha256=64:" + digest_of(as_bytes(input)).hex() + "\n";
  for (auto const bytes : {input, std::string_view(sealed)}) {
    auto const record = parse_record(bytes);
    if (!record) {
      if (!record.error().code) std::abort();  // an error must not look like a success
      continue;
    }
    auto const again = encode_record(*record);
    if (!again || *again != bytes) std::abort();
  }
  return 0;
}
