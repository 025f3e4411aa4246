// SPDX-License-Identifier: Apache-2.0
// The text of a mountinfo file: entries with a path each, at most one a line; a path that is
// written as the kernel does reads as itself.
#include <algorithm>
#include <cstdint>
#include <string>

#include <mount_table.hpp>

#include "input.hpp"

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  fuzz::Input input(data, size);
  auto const text = input.rest_as_text();
  auto const table = mount_oci::parse_mount_table(text);
  fuzz::require(table.size() <= static_cast<std::size_t>(std::ranges::count(text, '\n')) + 1);
  for (auto const& entry : table) {
    fuzz::require(!entry.target.empty());
    fuzz::require(mount_oci::find_target(table, entry.target).has_value());
    fuzz::require(mount_oci::is_source(table, entry.source));
  }

  std::string path = "/";
  for (auto const c : text) {
    auto const byte = static_cast<unsigned char>(c);
    auto const digit = [&](int shift) { return static_cast<char>('0' + (byte >> shift & 7)); };
    if (c == ' ' || c == '\t' || c == '\n' || c == '\\') {
      path += {'\\', digit(6), digit(3), digit(0)};
    } else {
      path += c;
    }
  }
  auto const line = "36 35 98:0 / " + path + " ro - erofs " + path + " ro";
  auto const read = mount_oci::parse_mount_table(line);
  fuzz::require(read.size() == 1);
  fuzz::require(read.front().target == "/" + text && read.front().source == "/" + text);
  return 0;
}
