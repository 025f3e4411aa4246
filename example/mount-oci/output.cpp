// SPDX-License-Identifier: Apache-2.0
#include "output.hpp"

#include <array>
#include <cstdio>
#include <ctime>
#include <string_view>

#include <unistd.h>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/erofs/directory.hpp>

namespace mount_oci {
namespace {

using erofs_oci::fail;

/// What a table in the order of erofs::FileType has for the type of a mode.
auto of_type(auto const& table, std::uint16_t mode) {
  return table[static_cast<std::size_t>(erofs_oci::erofs::file_type(mode))];
}

}  // namespace

Result<void> Output::put(std::string_view text) {
  constexpr std::size_t most = 64 * 1024;
  buffer_ += text;
  return buffer_.size() < most ? Result<void>() : flush();
}

Result<void> Output::put_json(erofs_oci::json::Value const& value) {
  return put(erofs_oci::json::dump(value) + "\n");
}

Result<void> Output::flush() {
  auto const ok = erofs_oci::write_full(STDOUT_FILENO, erofs_oci::as_bytes(buffer_));
  buffer_.clear();
  if (!ok) return fail(ok.error(), "standard output");
  return {};
}

std::string Output::shown(std::string_view name) const {
  return terminal_ ? escaped(name, "\\") : std::string(name);
}

std::string short_size(std::uint64_t bytes) {
  constexpr std::string_view units = "KMGTPE";
  if (bytes < 1024) return std::to_string(bytes);
  std::uint64_t unit = 1024;
  std::size_t number = 0;
  // 1023.5K is 1.0M: what rounding up makes 1024 belongs to the next unit.
  while (number + 1 < units.size() && (bytes - 1) / unit + 1 >= 1024) {
    unit *= 1024;
    ++number;
  }
  auto const whole = bytes / unit;
  auto const rest = bytes % unit;
  auto const tenths = whole * 10 + (rest * 10 + unit - 1) / unit;
  if (whole < 10 && tenths < 100) {
    return std::to_string(tenths / 10) + "." + std::to_string(tenths % 10) + units[number];
  }
  return std::to_string(whole + (rest == 0 ? 0 : 1)) + units[number];
}

std::string mode_text(std::uint16_t mode) {
  std::string text = "?---------";
  constexpr std::array letters{'?', '-', 'd', 'c', 'b', 'p', 's', 'l'};
  text[0] = of_type(letters, mode);
  constexpr std::string_view rwx = "rwxrwxrwx";
  for (unsigned i = 0; i < rwx.size(); ++i) {
    if ((mode >> (8 - i) & 1) != 0) text[1 + i] = rwx[i];
  }
  auto const special = [&](unsigned bit, std::size_t at, char with, char without) {
    if ((mode & bit) != 0) text[at] = text[at] == 'x' ? with : without;
  };
  special(04000, 3, 's', 'S');
  special(02000, 6, 's', 'S');
  special(01000, 9, 't', 'T');
  return text;
}

std::string time_text(erofs_oci::erofs::Time const& time, bool full) {
  auto const seconds = static_cast<std::time_t>(time.seconds);
  std::tm parts{};
  if (::gmtime_r(&seconds, &parts) == nullptr) return "@" + std::to_string(time.seconds);
  std::array<char, 64> text{};
  auto const n = std::strftime(text.data(), text.size(),
                               full ? "%Y-%m-%d %H:%M:%S" : "%Y-%m-%d %H:%M", &parts);
  std::string result(text.data(), n);
  if (!full) return result;
  std::snprintf(text.data(), text.size(), ".%09u +0000", time.nanoseconds);
  return result + text.data();
}

std::string_view type_text(std::uint16_t mode) {
  constexpr std::array<std::string_view, 8> names{"unknown",          "regular file", "directory",
                                                  "character device", "block device", "fifo",
                                                  "socket",           "symbolic link"};
  return of_type(names, mode);
}

char type_letter(std::uint16_t mode) {
  constexpr std::array letters{'?', 'f', 'd', 'c', 'b', 'p', 's', 'l'};
  return of_type(letters, mode);
}

void put_name(erofs_oci::json::Value& object, std::string const& key, std::string_view name) {
  erofs_oci::json::Value const text(name);
  object[key] = text;
  auto const dumped = erofs_oci::json::dump(text);
  // What was replaced does not come back the same.
  if (erofs_oci::json::Value::parse(dumped).get<std::string>() != name) {
    object[key] = erofs_oci::json::Value::parse(dumped);
    object[key + "_hex"] = erofs_oci::hex(erofs_oci::as_bytes(name));
  }
}

}  // namespace mount_oci
