// SPDX-License-Identifier: Apache-2.0
/// @file
/// Generators of bytes, offsets and lengths for rapidcheck, the awkward ones included.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <random>
#include <span>
#include <vector>

#include <rapidcheck.h>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/source.hpp>

namespace erofs_oci::testing {

/// `size` bytes that look like no other `size` bytes: a shift by one shows at once.
[[nodiscard]] inline Bytes patterned_bytes(std::size_t size, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  Bytes bytes(size);
  for (auto& byte : bytes) byte = static_cast<std::byte>(random() >> 56);
  return bytes;
}

/// Any bytes, few; grows with rapidcheck's size, about a hundred at most. Shrinks well.
[[nodiscard]] inline rc::Gen<Bytes> any_bytes() {
  return rc::gen::map(
      rc::gen::arbitrary<std::vector<std::uint8_t>>(),
      [](std::vector<std::uint8_t> const& raw) { return to_bytes(std::as_bytes(std::span(raw))); });
}

/// Up to `most` patterned bytes: for sources that work in chunks larger than any_bytes() gives.
[[nodiscard]] inline rc::Gen<Bytes> many_bytes(std::size_t most) {
  return rc::gen::map(rc::gen::pair(rc::gen::inRange<std::size_t>(0, most + 1),
                                    rc::gen::inRange<std::uint64_t>(0, 1u << 16)),
                      [](auto const& drawn) { return patterned_bytes(drawn.first, drawn.second); });
}

/// The bytes [begin, begin + length) of `bytes`, cut at their end: the dull oracle of every window.
[[nodiscard]] inline Bytes slice_of(std::span<std::byte const> bytes, std::uint64_t begin,
                                    std::uint64_t length) {
  auto const wanted = std::min<std::uint64_t>(length, std::numeric_limits<std::size_t>::max());
  auto const n = readable(bytes.size(), begin, static_cast<std::size_t>(wanted));
  return n == 0 ? Bytes{} : to_bytes(bytes.subspan(static_cast<std::size_t>(begin), n));
}

/// The offsets at which sources of `size` bytes have been wrong before.
[[nodiscard]] inline std::vector<std::uint64_t> awkward_offsets(std::uint64_t size) {
  constexpr auto half = std::uint64_t{1} << 63;
  constexpr auto top = std::numeric_limits<std::uint64_t>::max();
  std::vector<std::uint64_t> offsets{0, size, size + 1, half - 1, half, half + 1, top - 1, top};
  if (size > 0) offsets.push_back(size - 1);
  return offsets;
}

/// An offset for a source of `size` bytes: inside, at an end, or far away.
[[nodiscard]] inline rc::Gen<std::uint64_t> any_offset(std::uint64_t size) {
  return rc::gen::weightedOneOf<std::uint64_t>({{3, rc::gen::inRange<std::uint64_t>(0, size + 1)},
                                                {1, rc::gen::elementOf(awkward_offsets(size))}});
}

/// A length for a read of a source of `size` bytes: none, some, all or a little more than all.
[[nodiscard]] inline rc::Gen<std::size_t> any_length(std::size_t size) {
  return rc::gen::weightedOneOf<std::size_t>(
      {{3, rc::gen::inRange<std::size_t>(0, size + 2)},
       {1, rc::gen::element<std::size_t>(0, 1, size, size + 1, size + 17)}});
}

}  // namespace erofs_oci::testing
