// SPDX-License-Identifier: Apache-2.0
/// @file
/// KernelVersion, and what EROFS can do in which.
#pragma once

#include <charconv>
#include <compare>
#include <optional>
#include <string>
#include <string_view>

#include <sys/utsname.h>

namespace erofs_oci {

/// A release of Linux: 6.12.3. What a distribution writes behind the numbers is left out.
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
  KernelVersion version;
  auto const number = [&](unsigned& value) {
    auto const [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc()) return false;
    text.remove_prefix(static_cast<std::size_t>(end - text.data()));
    return true;
  };
  auto const dot = [&] {
    if (!text.starts_with('.')) return false;
    text.remove_prefix(1);
    return true;
  };
  if (!number(version.major_number) || !dot() || !number(version.minor_number)) {
    return std::nullopt;
  }
  if (dot() && !number(version.patch)) version.patch = 0;
  return version;
}

/// The running kernel's; 0.0.0 if it does not say.
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
