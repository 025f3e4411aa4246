// SPDX-License-Identifier: Apache-2.0
/// @file
/// zinfo: any bytes are a file or an error; a file that is accepted is written back byte for byte.
#include <cstdint>
#include <cstdlib>
#include <span>

#include <erofs_oci/core/any_source.hpp>
#include <erofs_oci/gzip/zinfo.hpp>
#include <erofs_oci/source/memory.hpp>

using namespace erofs_oci;

// The fuzzer's bytes are a header and the records' first 17 bytes; windows are filled in here, or
// 32 KiB of noise a record would drown everything else.
extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  auto const input = std::as_bytes(std::span(data, size));
  auto const start = input.first(std::min(size, zinfo_header_size));
  Bytes file(start.begin(), start.end());
  for (auto rest = input.subspan(start.size()); !rest.empty();) {
    auto const part = rest.first(std::min<std::size_t>(rest.size(), 17));
    file.insert(file.end(), part.begin(), part.end());
    if (part.size() == 17) file.resize(file.size() + gzip_window_size, part.back());
    rest = rest.subspan(part.size());
  }

  auto const index = read_zinfo(AnySource(Memory(file)));
  if (!index) return 0;
  Bytes again;
  auto const header =
      ZinfoHeader::decode(std::span(std::as_const(file)).first<zinfo_header_size>(), file.size());
  auto const ok = write_zinfo(*index, header->span_size, [&](std::span<std::byte const> piece) {
    again.insert(again.end(), piece.begin(), piece.end());
    return true;
  });
  if (!ok) std::abort();
  // Version 1 comes back as version 2, one record longer.
  if (!index->first_is_assumed && again != file) std::abort();
  if (index->first_is_assumed && again.size() != file.size() + zinfo_record_size) std::abort();
  return 0;
}
