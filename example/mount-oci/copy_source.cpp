// SPDX-License-Identifier: Apache-2.0
#include "copy_source.hpp"

#include <cstddef>

namespace mount_oci {

std::optional<CopySource> CopySource::parse(std::string_view text) {
  std::size_t from = 0;
  for (std::string_view const prefix : {"oci:", "file:"}) {
    if (text.starts_with(prefix)) from = prefix.size();
  }
  auto const colon = text.find(":/", from);
  if (colon == std::string_view::npos || colon == from) return std::nullopt;
  return CopySource{std::string(text.substr(0, colon)), std::string(text.substr(colon + 1))};
}

std::string CopySource::name() const {
  std::string_view rest = path;
  while (rest.ends_with('/')) rest.remove_suffix(1);
  auto const last = rest.substr(rest.rfind('/') + 1);
  return last == "." ? std::string() : std::string(last);
}

}  // namespace mount_oci
