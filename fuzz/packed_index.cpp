// SPDX-License-Identifier: Apache-2.0
/// @file
/// A packed index from a registry: what unpacks can be packed again, and opens as an index or is an
/// error. The first byte says whether the rest is packed already: the fuzzer cannot guess CRCs.
#include <cstdint>

#include <erofs_oci/digest/sha256.hpp>
#include <erofs_oci/image/packed_index.hpp>

#include "input.hpp"

using namespace erofs_oci;

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  constexpr std::uint64_t most = 1 << 20;
  fuzz::Input input(data, size);
  auto const is_packed = (input.byte() & 1) != 0;
  auto const rest = input.rest();
  auto const packed = is_packed ? to_bytes(rest) : pack_index({to_bytes(rest), {}, {}}).value();
  auto files = unpack_index(packed, most);
  if (!files) return 0;
  auto const again = unpack_index(pack_index(*files).value(), most);
  fuzz::require(again && again->index == files->index && again->tarindex == files->tarindex &&
                again->links == files->links);
  Descriptor layer;
  layer.size = 10;
  auto const opened = open_index(*std::move(files), layer);
  if (opened) fuzz::require(opened->index.index.blob_size == layer.size);
  return 0;
}
