// SPDX-License-Identifier: Apache-2.0
/// @file
/// Index file: any bytes are an index or an error. The fuzzer cannot guess SHA-256, so the hash
/// here is one that it can: what is behind the digests gets looked at, too.
#include <cstdint>
#include <cstdlib>
#include <span>

#include <erofs_oci/core/any_source.hpp>
#include <erofs_oci/gzip/index_file.hpp>
#include <erofs_oci/source/memory.hpp>

using namespace erofs_oci;

namespace {

struct NoHash {
  void update(std::span<std::byte const>) {}
  Digest finish() { return {}; }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  auto const input = to_bytes(std::as_bytes(std::span(data, size)));
  auto const opened = read_index_file<NoHash>(AnySource(Memory(input)));
  if (!opened) return 0;
  for (std::size_t i = 0; i < std::min<std::size_t>(opened->index.spans.size(), 8); ++i) {
    Bytes window(gzip_window_size);
    (void)opened->window(i, std::span<std::byte, gzip_window_size>(window));
  }
  Bytes again;
  auto index = opened->index;
  auto const ok = write_index_file<NoHash>(index, [&](std::span<std::byte const> piece) {
    again.insert(again.end(), piece.begin(), piece.end());
    return true;
  });
  if (!ok || again.size() < index_header_size) std::abort();
  return 0;
}
