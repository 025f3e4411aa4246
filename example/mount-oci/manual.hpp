// SPDX-License-Identifier: Apache-2.0
/// @file
/// Manual pages, by the files that they are in.
#pragma once

#include <string_view>

#include "options.hpp"

namespace mount_oci {

/// Of a command that reads an image; empty for another topic.
[[nodiscard]] std::string_view reading_manual(Command topic);

/// Of a command about mounts that are there already; empty for another topic.
[[nodiscard]] std::string_view record_manual(Command topic);

}  // namespace mount_oci
