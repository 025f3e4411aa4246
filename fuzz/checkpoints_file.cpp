// SPDX-License-Identifier: Apache-2.0
/// @file
/// Extra checkpoints: any bytes are a file of them or an error, what is one is written back byte
/// for byte, and an index with them is a good one. The fuzzer cannot guess SHA-256, so the digest
/// is put right first.
#include <algorithm>
#include <cstdint>
#include <cstdlib>

#include <erofs_oci/image/checkpoints_file.hpp>

#include "input.hpp"

using namespace erofs_oci;

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  auto const input = fuzz::sealed(data, size);
  auto const extra = decode_checkpoints(input);
  if (!extra) return 0;
  if (encode_checkpoints(*extra) != input) std::abort();
  GzipIndex const index{{{10, 0, 0}, {100, 5000, 3}, {4000, 70'000, 0}}, {}};
  auto const merged = add_checkpoints(index, *extra);
  if (!check_checkpoints(merged.checkpoints)) std::abort();
  for (auto const& point : index.checkpoints) {
    if (std::ranges::find(merged.checkpoints, point) == merged.checkpoints.end()) std::abort();
  }
  return 0;
}
