// SPDX-License-Identifier: Apache-2.0
/// @file
/// Percent-encoding and base64, as logins need them.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include <erofs_oci/core/result.hpp>

namespace erofs_oci {

namespace detail {

inline constexpr std::string_view base64_digits =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

}  // namespace detail

/// With padding. @spec{RFC 4648 4}
[[nodiscard]] inline std::string base64_encode(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); i += 3) {
    auto const part = text.substr(i, 3);
    std::uint32_t bits = 0;
    for (std::size_t k = 0; k < 3; ++k) {
      bits = bits << 8 | (k < part.size() ? static_cast<unsigned char>(part[k]) : 0U);
    }
    for (std::size_t k = 0; k < 4; ++k) {
      out += k <= part.size() ? detail::base64_digits[bits >> (18 - 6 * k) & 63] : '=';
    }
  }
  return out;
}

/// Padding may be missing; anything else that is not base64 gives nothing.
[[nodiscard]] inline std::optional<std::string> base64_decode(std::string_view text) {
  while (text.ends_with('\n') || text.ends_with('\r')) text.remove_suffix(1);
  for (int i = 0; i < 2 && text.ends_with('='); ++i) text.remove_suffix(1);
  if (text.size() % 4 == 1) return std::nullopt;
  std::string out;
  std::uint32_t bits = 0;
  unsigned have = 0;
  for (auto const c : text) {
    auto const value = detail::base64_digits.find(c);
    if (value == std::string_view::npos) return std::nullopt;
    bits = bits << 6 | static_cast<std::uint32_t>(value);
    have += 6;
    if (have >= 8) {
      have -= 8;
      out += static_cast<char>(static_cast<unsigned char>(bits >> have & 255));
    }
  }
  return out;
}

}  // namespace erofs_oci
