// SPDX-License-Identifier: Apache-2.0
/// @file
/// Start list: any bytes are a list or an error, and what is a list is written back byte for byte.
/// The fuzzer cannot guess SHA-256, so the digest is put right first.
#include <cstdint>
#include <cstdlib>

#include <erofs_oci/image/start_list.hpp>

#include "input.hpp"

using namespace erofs_oci;

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  auto const input = fuzz::sealed(data, size);
  auto const list = StartList::decode(input);
  if (!list) return 0;
  if (list->encode() != input) std::abort();
  if (list->bytes() > StartList::most_bytes) std::abort();
  if (StartList::merge(*list, *list) != *list) std::abort();
  return 0;
}
