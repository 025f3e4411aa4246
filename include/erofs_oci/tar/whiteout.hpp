// SPDX-License-Identifier: Apache-2.0
/// @file
/// The names by which an OCI layer says what it removes from the layers below.
/// @spec{OCI image-spec, layer.md, Whiteouts}
#pragma once

#include <cstdint>
#include <string_view>

namespace erofs_oci::tar {

/// What the last component of a member's path stands for.
enum class WhiteoutKind : std::uint8_t {
  none,      ///< the member itself
  name,      ///< `.wh.NAME`: NAME in the same directory is gone
  opaque,    ///< `.wh..wh..opq`: whatever lower layers hold in this directory is gone
  reserved,  ///< `.wh..wh.…`: AUFS's own bookkeeping, stands for nothing
  invalid,   ///< `.wh.`, `.wh..` and `.wh...`: name nothing that could be removed
};

/// The meaning of one name.
struct Whiteout {
  WhiteoutKind kind = WhiteoutKind::none;
  std::string_view target;  ///< of `name`: the name that is gone, borrowed; else empty

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
