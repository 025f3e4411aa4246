// SPDX-License-Identifier: Apache-2.0
/// @file
/// Links file: any bytes are a file or an error; what is a file is written back byte for byte.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <span>

#include <erofs_oci/tarindex/links_file.hpp>

using namespace erofs_oci;

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  auto const input = std::as_bytes(std::span(data, size));
  auto const links = tarindex::decode_links(input);
  if (links && !std::ranges::equal(tarindex::encode_links(*links), input)) std::abort();
  return 0;
}
