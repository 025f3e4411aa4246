// SPDX-License-Identifier: Apache-2.0
/// @file
/// gzip members: both inflaters agree on any bytes, whatever the pieces they come in.
#include <cstdint>
#include <cstdlib>
#include <optional>
#include <span>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/gzip/decoder.hpp>

using namespace erofs_oci;

namespace {

struct Outcome {
  Bytes content;
  bool whole = false;
};

constexpr std::size_t most_content = 1 << 20;

template <class I>
std::optional<Outcome> decode(std::span<std::byte const> blob, std::size_t step_size) {
  GzipDecoder<I> decoder;
  Outcome outcome;
  Bytes out(step_size * 3 + 1);
  while (outcome.content.size() < most_content) {
    auto const step = decoder.decode(blob.first(std::min(step_size, blob.size())), out);
    if (!step) return std::nullopt;
    blob = blob.subspan(step->consumed);
    outcome.content.insert(outcome.content.end(), out.begin(),
                           out.begin() + static_cast<std::ptrdiff_t>(step->produced));
    if (blob.empty() && step->produced == 0) break;
  }
  outcome.whole = decoder.may_end() && blob.empty();
  return outcome;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  if (size == 0) return 0;
  auto const blob = std::as_bytes(std::span(data, size)).subspan(1);
  auto const step_size = static_cast<std::size_t>(data[0]) * 16 + 1;
  auto const zlib = decode<ZlibInflater>(blob, step_size);
  auto const other = decode<DefaultInflater>(blob, 1 << 16);
  // They may refuse bad data at different bytes, but what both take for whole is the same.
  if (zlib && other && zlib->whole && other->whole && zlib->content != other->content) std::abort();
  if (zlib && zlib->whole && zlib->content.size() < most_content && (!other || !other->whole)) {
    std::abort();
  }
  return 0;
}
