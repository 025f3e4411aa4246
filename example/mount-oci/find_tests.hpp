// SPDX-License-Identifier: Apache-2.0
/// @file
/// The tests of `mount-oci find`, which mean what they mean to find(1).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace mount_oci {

/// A number to compare with: N, +N (more) or -N (less).
struct FindNumber {
  std::uint64_t value = 0;
  char sign = 0;  ///< '+', '-', or 0: equal

  /// Reads one; empty if the text is none.
  [[nodiscard]] static std::optional<FindNumber> parse(std::string_view text);

  [[nodiscard]] bool matches(std::uint64_t found) const noexcept {
    if (sign == 0) return found == value;
    return sign == '+' ? found > value : found < value;
  }
};

/// A size in units: N and one of c (bytes), w (2), b (512, the default), k, M and G, rounded up.
struct FindSize {
  FindNumber number{};
  std::uint64_t unit = 512;  ///< bytes

  /// Reads one; empty if the text is none.
  [[nodiscard]] static std::optional<FindSize> parse(std::string_view text);

  [[nodiscard]] bool matches(std::uint64_t bytes) const noexcept {
    return number.matches(bytes / unit + (bytes % unit != 0 ? 1 : 0));
  }
};

/// Permissions in octal digits: MODE (just these), -MODE (all of these) or /MODE (any of these).
struct FindMode {
  std::uint16_t bits = 0;  ///< the low 12 bits of st_mode
  char sign = 0;           ///< '-', '/', or 0

  /// Reads one; empty if the text is none.
  [[nodiscard]] static std::optional<FindMode> parse(std::string_view text);

  [[nodiscard]] bool matches(std::uint16_t mode) const noexcept {
    auto const found = static_cast<std::uint16_t>(mode & 07777U);
    if (sign == 0) return found == bits;
    return sign == '-' ? (found & bits) == bits : bits == 0 || (found & bits) != 0;
  }
};

/// All of them must hold; one that is empty does.
struct FindTests {
  std::string name{};              ///< pattern of the last component
  std::string name_in_any_case{};  ///< the same, whatever the case of its letters
  std::string path{};              ///< pattern of the whole path, in which * matches slashes, too
  char type = 0;                   ///< one of fdlcbps, or 0 for all
  std::optional<FindMode> mode{};
  std::optional<FindSize> size{};
  std::optional<FindNumber> uid{};
  std::optional<FindNumber> gid{};
  std::optional<FindNumber> links{};
  std::string newer{};  ///< path of a file of the image that must be older
};

}  // namespace mount_oci
