// SPDX-License-Identifier: Apache-2.0
/// @file
/// Extra checkpoints: any bytes are a file of them or an error, what is one is written back byte
/// for byte, and an index with them is a good one. The fuzzer cannot guess SHA-256, so the digest
/// is put right first.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <span>

#include <erofs_oci/digest/sha256.hpp>
#include <erofs_oci/image/checkpoints_file.hpp>

using namespace erofs_oci;

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  auto input = to_bytes(std::as_bytes(std::span(data, size)));
  if (input.size() >= 32) {
    auto const content = std::span(input).first(input.size() - 32);
    std::ranges::copy(digest_of(content).bytes(), std::span(input).last(32).begin());
  }
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
