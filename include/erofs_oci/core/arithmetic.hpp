// SPDX-License-Identifier: Apache-2.0
/// @file
/// Arithmetic on numbers that come from outside: an overflow is an empty optional.
#pragma once

#include <concepts>
#include <limits>
#include <optional>
#include <utility>

namespace erofs_oci {

/// a + b, if it fits.
template <std::unsigned_integral T>
[[nodiscard]] constexpr std::optional<T> checked_add(T a, T b) noexcept {
  if (b > std::numeric_limits<T>::max() - a) return std::nullopt;
  return static_cast<T>(a + b);
}

/// a * b, if it fits.
template <std::unsigned_integral T>
[[nodiscard]] constexpr std::optional<T> checked_mul(T a, T b) noexcept {
  if (a != 0 && b > std::numeric_limits<T>::max() / a) return std::nullopt;
  return static_cast<T>(a * b);
}

/// The least multiple of `unit` that is not below `value`, if it fits. `unit` > 0.
template <std::unsigned_integral T>
[[nodiscard]] constexpr std::optional<T> align_up(T value, T unit) noexcept {
  auto const rest = static_cast<T>(value % unit);
  if (rest == 0) return value;
  return checked_add(value, static_cast<T>(unit - rest));
}

/// `value` as another integer type, if that type holds it.
template <std::integral To, std::integral From>
[[nodiscard]] constexpr std::optional<To> narrow(From value) noexcept {
  if (!std::in_range<To>(value)) return std::nullopt;
  return static_cast<To>(value);
}

}  // namespace erofs_oci
