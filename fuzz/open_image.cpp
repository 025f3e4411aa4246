// SPDX-License-Identifier: Apache-2.0
/// @file
/// The user's own index files: a tarindex, a zinfo and a blob are refused, or are a device that
/// begins with the tarindex, goes on with the tar and ends with zeros.
///
/// Input: a byte (bit 0: there is a tarindex, bit 1: there is a zinfo), the lengths of both in two
/// bytes each, both, the blob.
#include <algorithm>
#include <cstdint>
#include <optional>
#include <span>
#include <utility>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/image/open.hpp>
#include <erofs_oci/source/memory.hpp>

#include "input.hpp"

using namespace erofs_oci;

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  fuzz::Input input(data, size);
  auto const parts = input.byte();
  auto const index_length = input.number<std::uint16_t>();
  auto const zinfo_length = input.number<std::uint16_t>();
  auto tarindex = to_bytes(input.bytes((parts & 1) != 0 ? index_length : 0));
  fuzz::mend(tarindex);
  auto const zinfo = to_bytes(input.bytes((parts & 2) != 0 ? zinfo_length : 0));
  auto const blob = to_bytes(input.rest());

  LayerSources sources{AnySource(Memory(blob))};
  if ((parts & 1) != 0) sources.tarindex = AnySource(Memory(tarindex));
  if ((parts & 2) != 0) sources.zinfo = AnySource(Memory(zinfo));
  auto const image =
      open_image(std::move(sources), {.cache_bytes = 1 << 20, .deadline = std::chrono::seconds(5)});
  if (!image) return 0;

  auto const& device = image->source;
  fuzz::require(device.size() % 512 == 0 && image->zeros_from <= device.size());
  fuzz::require(image->zeros_from >= tarindex.size());
  auto const at = std::max<std::uint64_t>(image->zeros_from, 600) - 600;
  Bytes start(std::min<std::size_t>(tarindex.size() + blob.size(), 1 << 17));
  Bytes end(1200);
  auto const n = device.read_at(0, start);
  auto const m = device.read_at(at, end);
  fuzz::require(!n || *n == readable(device.size(), 0, start.size()));
  fuzz::require(!m || *m == readable(device.size(), at, end.size()));
  for (auto i = image->zeros_from; m && i < at + *m; ++i) {
    fuzz::require(end[static_cast<std::size_t>(i - at)] == std::byte{0});
  }
  if ((parts & 2) != 0) return 0;
  tarindex.insert(tarindex.end(), blob.begin(), blob.end());
  fuzz::require(n.has_value() && m.has_value());
  auto const same = std::min<std::uint64_t>(*n, image->zeros_from);
  fuzz::require(std::equal(start.begin(), start.begin() + static_cast<std::ptrdiff_t>(same),
                           tarindex.begin()));
  return 0;
}
