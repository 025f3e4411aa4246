// SPDX-License-Identifier: Apache-2.0
/// @file
/// MemoryPressure: how long programs have waited for memory, as the kernel counts it.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/fd.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/core/text.hpp>

namespace erofs_oci {

/// Reads the total of the line `some` of a file of pressure stall information.
/// @spec{Linux Documentation/accounting/psi.rst}
/// @error{Errc::corrupt, it is no such file}
[[nodiscard]] inline Result<std::chrono::microseconds> parse_pressure(std::string_view text) {
  constexpr std::string_view total = " total=";
  auto line = text.substr(0, text.find('\n'));
  auto const at = line.find(total);
  if (!line.starts_with("some ") || at == line.npos) return fail(Errc::corrupt, "pressure");
  auto const number = whole_number<std::chrono::microseconds::rep>(line.substr(at + total.size()));
  if (!number) return fail(Errc::corrupt, "pressure");
  return std::chrono::microseconds(*number);
}

/// The file in which the kernel counts it; once open, it can be read by a process that may open no
/// files of /proc any more.
///
/// @par Thread safety
/// All const members, from any thread.
class MemoryPressure {
 public:
  /// @error{an errno, as open(2): the kernel does not count it}
  [[nodiscard]] static Result<MemoryPressure> open(
      std::string const& path = "/proc/pressure/memory") {
    EROFS_OCI_TRY_ASSIGN(auto fd, open_read(path));
    return MemoryPressure(std::move(fd));
  }

  /// Time since the machine's start during which at least one program waited for memory.
  /// @error{an errno, as pread(2): the kernel was told not to count it}
  /// @error{as parse_pressure(), as there}
  [[nodiscard]] Result<std::chrono::microseconds> waited() const {
    std::array<std::byte, 512> text{};
    EROFS_OCI_TRY_ASSIGN(auto const n, pread_full(fd_.get(), 0, text));
    return parse_pressure(as_text(std::span(text).first(n)));
  }

 private:
  explicit MemoryPressure(UniqueFd fd) noexcept : fd_(std::move(fd)) {}

  UniqueFd fd_;
};

}  // namespace erofs_oci
