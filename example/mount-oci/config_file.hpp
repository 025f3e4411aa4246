// SPDX-License-Identifier: Apache-2.0
/// @file
/// The configuration file: words of -o, for all images or for those of one registry.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "options.hpp"

namespace mount_oci {

/// The file that is read unless `--config` says otherwise.
inline constexpr std::string_view default_config = "/etc/mount-oci.conf";

/// Reads the text of a configuration file. Does no I/O.
/// @param name  of the file, for messages
[[nodiscard]] tl::expected<std::vector<ConfigWord>, UsageError> parse_config(std::string_view text,
                                                                             std::string_view name);

/// The words of the file that `--config` names, or of the default one, which need not be there.
/// @param chosen  what `--config` says, or empty; `none`: no file
[[nodiscard]] tl::expected<std::vector<ConfigWord>, UsageError> read_config(
    std::string const& chosen);

}  // namespace mount_oci
