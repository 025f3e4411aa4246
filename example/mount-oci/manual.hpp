// SPDX-License-Identifier: Apache-2.0
/// @file
/// Manual pages, by the files that they are in.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "options.hpp"

namespace mount_oci {

/// A page of the manual.
struct ManualPage {
  std::string name;       ///< mount-oci-index
  int section = 8;        ///< of the manual
  std::string_view text;  ///< as --help prints it
};

/// All pages.
[[nodiscard]] std::vector<ManualPage> manual_pages();

/// A page by its name; empty if there is none.
[[nodiscard]] std::string_view manual_named(std::string_view name);

/// Of a command that reads an image; empty for another topic.
[[nodiscard]] std::string_view reading_manual(Command topic);

/// Of a command about mounts that are there already; empty for another topic.
[[nodiscard]] std::string_view record_manual(Command topic);

}  // namespace mount_oci
