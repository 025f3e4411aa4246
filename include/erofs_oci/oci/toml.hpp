// SPDX-License-Identifier: Apache-2.0
/// @file
/// TOML as a list of its values, each with the keys that lead to it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <erofs_oci/core/result.hpp>

namespace erofs_oci {

/// One value of a TOML text, or the head of a table or array.
struct TomlEntry {
  enum class Kind : std::uint8_t { table, array, text, boolean, integer, other };

  std::vector<std::string> path;  ///< keys from the top; of an element of an array its index, too
  Kind kind = Kind::other;
  std::string value;       ///< a text itself; "true" or "false"; an integer in decimal; else empty
  std::uint32_t line = 0;  ///< from 1
};

/// Reads a TOML text of at most 1 MiB. Tables and arrays stand before what is in them, the rest in
/// the order of the text.
/// @param name  of the text, for messages: "NAME:LINE: what is wrong", without a value
/// @error{Errc::corrupt, it is no TOML\, or too long}
[[nodiscard]] Result<std::vector<TomlEntry>> parse_toml(std::string_view text,
                                                        std::string_view name);

}  // namespace erofs_oci

#ifndef EROFS_OCI_COMPILED
#include <erofs_oci/oci/detail/toml_body.hpp>
#endif
