// SPDX-License-Identifier: Apache-2.0
/// @file
/// Index file: any bytes are an index or an error. The fuzzer cannot guess SHA-256, so the digests
/// are put right first: what is behind them gets looked at, too.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <span>

#include <erofs_oci/core/any_source.hpp>
#include <erofs_oci/core/endian.hpp>
#include <erofs_oci/digest/sha256.hpp>
#include <erofs_oci/source/memory.hpp>
#include <erofs_oci/tarindex/index_file.hpp>

using namespace erofs_oci;

namespace {

void put_digest(std::span<std::byte const> covered, std::span<std::byte> place) {
  std::ranges::copy(digest_of(covered).bytes(), place.begin());
}

Bytes with_digests(Bytes file) {
  if (file.size() < index_header_size) return file;
  auto const all = std::span(file);
  auto const table = all.subspan(index_header_size);
  auto const spans = load_le<std::uint64_t>(std::span<std::byte const>(all).subspan<152, 8>());
  auto const pieces = load_le<std::uint64_t>(std::span<std::byte const>(all).subspan<232, 8>());
  if (spans <= table.size() / index_record_size && pieces <= table.size() / 32) {
    auto const size = static_cast<std::size_t>(spans * index_record_size + pieces * 32);
    if (size <= table.size()) put_digest(table.first(size), all.subspan(160));
  }
  put_digest(all.first(256), all.subspan(256));
  return file;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  auto const input = with_digests(to_bytes(std::as_bytes(std::span(data, size))));
  auto const opened = read_index_file(AnySource(Memory(input)));
  if (!opened) return 0;
  for (std::size_t i = 0; i < std::min<std::size_t>(opened->index.spans.size(), 8); ++i) {
    Bytes window(gzip_window_size);
    (void)opened->window(i, std::span<std::byte, gzip_window_size>(window));
  }
  if (opened->index.chunks().size() != opened->index.digests.size()) std::abort();
  Bytes again;
  auto index = opened->index;
  auto const ok = write_index_file(index, [&](std::span<std::byte const> piece) {
    again.insert(again.end(), piece.begin(), piece.end());
    return true;
  });
  if (!ok || again.size() < index_header_size) std::abort();
  return 0;
}
