// SPDX-License-Identifier: Apache-2.0
/// @file
/// Bytes: an owned run of bytes, and the few conversions from and to text.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace erofs_oci {

/// Owned bytes.
using Bytes = std::vector<std::byte>;

/// The bytes of a text, borrowed.
[[nodiscard]] inline std::span<std::byte const> as_bytes(std::string_view text) noexcept {
  return std::as_bytes(std::span(text.data(), text.size()));
}

/// Bytes as a text, borrowed.
[[nodiscard]] inline std::string_view as_text(std::span<std::byte const> bytes) noexcept {
  return {reinterpret_cast<char const*>(bytes.data()), bytes.size()};
}

/// A copy.
[[nodiscard]] inline Bytes to_bytes(std::span<std::byte const> bytes) {
  return Bytes(bytes.begin(), bytes.end());
}

/// A copy of a text's bytes.
[[nodiscard]] inline Bytes to_bytes(std::string_view text) {
  return to_bytes(as_bytes(text));
}

/// Lower-case hexadecimal digits, two a byte.
[[nodiscard]] inline std::string hex(std::span<std::byte const> bytes) {
  constexpr std::string_view digits = "0123456789abcdef";
  std::string text;
  text.reserve(2 * bytes.size());
  for (auto const byte : bytes) {
    text += digits[std::to_integer<std::size_t>(byte >> 4)];
    text += digits[std::to_integer<std::size_t>(byte & std::byte{15})];
  }
  return text;
}

}  // namespace erofs_oci
