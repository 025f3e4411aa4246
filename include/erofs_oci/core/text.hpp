// SPDX-License-Identifier: Apache-2.0
/// @file
/// Characters of ASCII, and texts made of them, whatever the locale.
#pragma once

#include <algorithm>
#include <charconv>
#include <concepts>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>

namespace erofs_oci {

[[nodiscard]] constexpr bool is_digit(char c) noexcept {
  return c >= '0' && c <= '9';
}
[[nodiscard]] constexpr bool is_lower_or_digit(char c) noexcept {
  return (c >= 'a' && c <= 'z') || is_digit(c);
}
[[nodiscard]] constexpr bool is_letter_or_digit(char c) noexcept {
  return is_lower_or_digit(c) || (c >= 'A' && c <= 'Z');
}
[[nodiscard]] constexpr char to_lower(char c) noexcept {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}

/// With A to Z in lower case.
[[nodiscard]] inline std::string ascii_lower(std::string_view text) {
  std::string out(text);
  std::ranges::transform(out, out.begin(), to_lower);
  return out;
}

/// Whether a text has only letters, digits and `others`. True for an empty one.
[[nodiscard]] constexpr bool is_made_of(std::string_view text, std::string_view others) noexcept {
  return std::ranges::all_of(
      text, [&](char c) { return is_letter_or_digit(c) || others.find(c) != others.npos; });
}

/// Encodes all but letters, digits and `safe` as %XX.
/// @param safe  default: the unreserved characters, which is right for a query's names and values
/// @spec{RFC 3986 2.3}
[[nodiscard]] inline std::string percent_encode(std::string_view text,
                                                std::string_view safe = "-._~") {
  constexpr std::string_view digits = "0123456789ABCDEF";
  std::string out;
  for (auto const c : text) {
    if (is_letter_or_digit(c) || safe.find(c) != safe.npos) {
      out += c;
      continue;
    }
    auto const byte = static_cast<unsigned char>(c);
    out += {'%', digits[byte >> 4], digits[byte & 15U]};
  }
  return out;
}

/// Takes `c` off the front; false if something else is there.
[[nodiscard]] constexpr bool take_char(std::string_view& text, char c) noexcept {
  if (!text.starts_with(c)) return false;
  text.remove_prefix(1);
  return true;
}

/// Takes the part before the first separator off the front, and the separator, which is in no part;
/// all of a text that has none. So a separator at the end ends the last part.
[[nodiscard]] constexpr std::string_view take_part(std::string_view& text,
                                                   char separator) noexcept {
  auto const part = text.substr(0, text.find(separator));
  text.remove_prefix(std::min(part.size() + 1, text.size()));
  return part;
}

/// Whether `is_good` says so of all parts of a text, in order, up to the first that it does not
/// like. A text without a separator is one part, be it empty.
template <class IsGood>
[[nodiscard]] constexpr bool are_parts_good(std::string_view text, char separator,
                                            IsGood const& is_good) {
  for (;;) {
    auto const part = text.substr(0, text.find(separator));
    if (!is_good(part)) return false;
    if (part.size() == text.size()) return true;
    text.remove_prefix(part.size() + 1);
  }
}

/// Takes a run of decimal digits off the front; empty if there is none or T cannot hold it.
template <std::unsigned_integral T>
[[nodiscard]] std::optional<T> take_number(std::string_view& text) noexcept {
  T value = 0;
  auto const [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc()) return std::nullopt;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  return value;
}

/// All of a text as a decimal number without a sign; empty if it is none or T cannot hold it.
template <std::integral T>
[[nodiscard]] std::optional<T> whole_number(std::string_view text) noexcept {
  T value = 0;
  auto const* const end = text.data() + text.size();
  auto const [at, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || at != end || text.starts_with('-')) return std::nullopt;
  return value;
}

}  // namespace erofs_oci
