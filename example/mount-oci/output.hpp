// SPDX-License-Identifier: Apache-2.0
/// @file
/// Standard output, and how files look on it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include <unistd.h>

#include <erofs_oci/erofs/inode.hpp>
#include <erofs_oci/oci/json.hpp>

#include "process.hpp"

namespace mount_oci {

/// Standard output through a buffer. Not thread-safe.
class Output {
 public:
  /// @error{an errno, as write(2)}
  [[nodiscard]] Result<void> put(std::string_view text);

  /// A document or record on a line of its own.
  [[nodiscard]] Result<void> put_json(erofs_oci::json::Value const& value);

  /// Writes what is buffered.
  [[nodiscard]] Result<void> flush();

  /// A name as it is, or on a terminal with control bytes and backslashes as `\ooo`.
  [[nodiscard]] std::string shown(std::string_view name) const;

 private:
  std::string buffer_;
  bool terminal_ = ::isatty(STDOUT_FILENO) == 1;
};

/// "-rwsr-xr-x"
[[nodiscard]] std::string mode_text(std::uint16_t mode);

/// A size as `ls -h` has it: "512", "3.9K", "188M"; units of 1024, rounded up.
[[nodiscard]] std::string short_size(std::uint64_t bytes);

/// "2024-01-31 23:59", in UTC; with seconds and nanoseconds if `full`.
[[nodiscard]] std::string time_text(erofs_oci::erofs::Time const& time, bool full = false);

/// "regular file", "directory", ...
[[nodiscard]] std::string_view type_text(std::uint16_t mode);

/// One of f d l c b p s, as find(1) calls types.
[[nodiscard]] char type_letter(std::uint16_t mode);

/// Puts a name into an object: `KEY`, and if it is no UTF-8 its bytes in `KEY_hex`.
void put_name(erofs_oci::json::Value& object, std::string const& key, std::string_view name);

}  // namespace mount_oci
