// SPDX-License-Identifier: Apache-2.0
/// @file
/// What image/image_name.hpp only declares.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <system_error>

#include <erofs_oci/core/config.hpp>
#include <erofs_oci/image/image_name.hpp>

namespace erofs_oci {

EROFS_OCI_BODY ImageName ImageName::parse(std::string_view name) {
  constexpr std::string_view layout = "oci:";
  constexpr std::string_view file = "file:";
  if (name.starts_with(layout)) return parse_layout(name.substr(layout.size()));
  if (name.starts_with(file)) return {ImagePlace::file, std::string(name.substr(file.size()))};
  auto const is_path = name.starts_with("/") || name.starts_with("./") || name.starts_with("../");
  return {is_path ? ImagePlace::file : ImagePlace::registry, std::string(name)};
}

EROFS_OCI_BODY ImageName ImageName::parse_layout(std::string_view text) {
  std::error_code ignored;
  auto const at = text.rfind('@');
  auto const cut = at != text.npos ? at : text.rfind(':');
  if (cut == text.npos || std::filesystem::is_directory(text, ignored)) {
    return {ImagePlace::layout, std::string(text)};
  }
  return {ImagePlace::layout, std::string(text.substr(0, cut)), std::string(text.substr(cut + 1))};
}

}  // namespace erofs_oci
