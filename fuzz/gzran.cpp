// SPDX-License-Identifier: Apache-2.0
/// @file
/// Gzran: a hostile index and a hostile blob give bytes or an error, within bounded memory; a read
/// that is cut in two gives the same bytes.
#include <cstdint>
#include <cstdlib>
#include <span>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/gzip/gzran.hpp>
#include <erofs_oci/gzip/zinfo.hpp>
#include <erofs_oci/source/memory.hpp>

using namespace erofs_oci;

// Input: a byte with the number of checkpoints, 17 bytes each, then the blob.
extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  auto input = std::as_bytes(std::span(data, size));
  if (input.empty()) return 0;
  auto const count = std::to_integer<std::size_t>(input.front()) % 16 + 1;
  input = input.subspan(1);
  if (input.size() < count * 17) return 0;
  GzipIndex index;
  for (std::size_t i = 0; i < count; ++i) {
    index.checkpoints.push_back(decode_zinfo_record(input.first<17>()));
    input = input.subspan(17);
  }
  index.window = [](std::size_t i, std::span<std::byte, gzip_window_size> window) -> Result<void> {
    std::ranges::fill(window, static_cast<std::byte>(i));
    return {};
  };
  GzranOptions options;
  options.cache_bytes = 1 << 20;
  options.read_ahead = 0;
  options.deadline = std::chrono::seconds(5);
  auto const gzran = Gzran<Memory>::make(Memory(to_bytes(input)), std::move(index), options);
  if (!gzran) return 0;

  auto const wanted = static_cast<std::size_t>(std::min<std::uint64_t>(gzran->size(), 1 << 18));
  for (auto const at : {std::uint64_t{0}, gzran->size() / 2}) {
    Bytes whole(wanted);
    auto const n = gzran->read_at(at, whole);
    if (!n) continue;
    if (*n != readable(gzran->size(), at, wanted)) std::abort();
    Bytes half(wanted / 2);
    auto const m = gzran->read_at(at, half);
    if (!m ||
        !std::equal(half.begin(), half.begin() + static_cast<std::ptrdiff_t>(*m), whole.begin())) {
      std::abort();
    }
  }
  return 0;
}
