// SPDX-License-Identifier: Apache-2.0
/// @file
/// Integers to and from bytes of a stated order, at any alignment.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>

#include <erofs_oci/core/bytes.hpp>

namespace erofs_oci {

/// The little-endian integer in `raw`.
template <std::unsigned_integral T>
[[nodiscard]] constexpr T load_le(std::span<std::byte const, sizeof(T)> raw) noexcept {
  T value = 0;
  for (std::size_t i = sizeof(T); i-- > 0;) {
    value = static_cast<T>((sizeof(T) > 1 ? value << 8 : 0) | std::to_integer<T>(raw[i]));
  }
  return value;
}

/// The big-endian integer in `raw`.
template <std::unsigned_integral T>
[[nodiscard]] constexpr T load_be(std::span<std::byte const, sizeof(T)> raw) noexcept {
  T value = 0;
  for (std::size_t i = 0; i < sizeof(T); ++i) {
    value = static_cast<T>((sizeof(T) > 1 ? value << 8 : 0) | std::to_integer<T>(raw[i]));
  }
  return value;
}

/// Writes `value`, little-endian, over `raw`.
template <std::unsigned_integral T>
constexpr void store_le(T value, std::span<std::byte, sizeof(T)> raw) noexcept {
  for (std::size_t i = 0; i < sizeof(T); ++i) raw[i] = static_cast<std::byte>(value >> (8 * i));
}

/// Appends the low `size` bytes of `value`, at most 8, little-endian.
inline void append_le(Bytes& to, std::uint64_t value, std::size_t size) {
  for (std::size_t i = 0; i < size; ++i) to.push_back(static_cast<std::byte>(value >> (8 * i)));
}

/// Writes `value`, big-endian, over `raw`.
template <std::unsigned_integral T>
constexpr void store_be(T value, std::span<std::byte, sizeof(T)> raw) noexcept {
  for (std::size_t i = 0; i < sizeof(T); ++i) {
    raw[sizeof(T) - 1 - i] = static_cast<std::byte>(value >> (8 * i));
  }
}

}  // namespace erofs_oci
