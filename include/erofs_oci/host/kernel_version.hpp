// SPDX-License-Identifier: Apache-2.0
/// @file
/// KernelVersion, and the versions in which EROFS got its features.
#pragma once

#include <compare>
#include <optional>
#include <string>
#include <string_view>

#include <sys/utsname.h>

#include <erofs_oci/core/text.hpp>

namespace erofs_oci {

/// A release of Linux: 6.12.3, without the suffix of a distribution.
struct KernelVersion {
  unsigned major_number = 0;
  unsigned minor_number = 0;
  unsigned patch = 0;

  friend auto operator<=>(KernelVersion const&, KernelVersion const&) = default;

  /// "6.12.3".
  [[nodiscard]] std::string text() const {
    return std::to_string(major_number) + '.' + std::to_string(minor_number) + '.' +
           std::to_string(patch);
  }
};

/// Reads "6.12.3-1-amd64", "6.12-rc1"; empty for what has not two numbers in front.
[[nodiscard]] inline std::optional<KernelVersion> parse_kernel_version(
    std::string_view text) noexcept {
  auto const major = take_number<unsigned>(text);
  if (!major || !take_char(text, '.')) return std::nullopt;
  auto const minor = take_number<unsigned>(text);
  if (!minor) return std::nullopt;
  auto const patch = take_char(text, '.') ? take_number<unsigned>(text) : std::nullopt;
  return KernelVersion{*major, *minor, patch.value_or(0)};
}

/// The running kernel's version; 0.0.0 if uname(2) has none.
[[nodiscard]] inline KernelVersion running_kernel() noexcept {
  utsname names{};
  if (::uname(&names) != 0) return {};
  return parse_kernel_version(names.release).value_or(KernelVersion{});
}

/// @name What EROFS can do
/// @spec{spec/tarindex.md section 11}
/// @{

inline constexpr KernelVersion device_table_since{5, 16, 0};  ///< images with devices
inline constexpr KernelVersion small_blocks_since{6, 4, 0};   ///< blocks below a page, flat images
inline constexpr KernelVersion file_backed_since{6, 12, 0};   ///< mount(2) of a regular file

/// Whether mount(2) of a regular file can be tried: Linux 6.12.0 and 6.12.1 panic on blocks of 512
/// bytes (CVE-2024-56750).
[[nodiscard]] constexpr bool file_backed_is_safe(KernelVersion const& kernel) noexcept {
  return kernel >= KernelVersion{6, 12, 2};
}
/// @}

}  // namespace erofs_oci
