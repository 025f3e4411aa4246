// SPDX-License-Identifier: Apache-2.0
/// @file
/// What the user's locale says of characters.
#pragma once

#include <functional>

namespace mount_oci {

/// Whether text is written in UTF-8, by the first of LC_ALL, LC_CTYPE and LANG that is not empty.
/// @param get  as getenv(3)
[[nodiscard]] bool is_utf8_locale(std::function<char const*(char const* name)> const& get);

}  // namespace mount_oci
