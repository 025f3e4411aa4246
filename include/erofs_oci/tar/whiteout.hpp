// SPDX-License-Identifier: Apache-2.0
/// @file
/// The names with which an OCI layer removes files of the layers below.
/// @spec{OCI image-spec, layer.md, Whiteouts}
#pragma once

#include <cstdint>
#include <string_view>

namespace erofs_oci::tar {

/// The meaning of the last component of a member's path.
enum class WhiteoutKind : std::uint8_t {
  none,      ///< the member itself
  name,      ///< `.wh.NAME`: removes NAME in the same directory
  opaque,    ///< `.wh..wh..opq`: removes all that lower layers hold in this directory
  reserved,  ///< `.wh..wh.…`: a file of AUFS's own; removes nothing
  invalid,   ///< `.wh.`, `.wh..` and `.wh...`: name nothing that could be removed
};

/// The meaning of one name.
struct Whiteout {
  WhiteoutKind kind = WhiteoutKind::none;
  std::string_view target;  ///< of `name`: the removed name, borrowed; else empty

  friend bool operator==(Whiteout const&, Whiteout const&) = default;
};

/// Reads a name: one component, no slash.
[[nodiscard]] constexpr Whiteout whiteout(std::string_view name) noexcept {
  constexpr std::string_view prefix = ".wh.";
  if (!name.starts_with(prefix)) return {};
  auto const target = name.substr(prefix.size());
  if (target == ".wh..opq") return {WhiteoutKind::opaque, {}};
  if (target.starts_with(prefix)) return {WhiteoutKind::reserved, {}};
  if (target.empty() || target == "." || target == "..") return {WhiteoutKind::invalid, {}};
  return {WhiteoutKind::name, target};
}

}  // namespace erofs_oci::tar
