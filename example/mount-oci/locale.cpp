// SPDX-License-Identifier: Apache-2.0
#include "locale.hpp"

#include <algorithm>
#include <string>
#include <string_view>

#include <erofs_oci/core/text.hpp>

namespace mount_oci {

bool is_utf8_locale(std::function<char const*(char const* name)> const& get) {
  for (auto const* const name : {"LC_ALL", "LC_CTYPE", "LANG"}) {
    auto const* const value = get(name);
    if (value == nullptr || *value == '\0') continue;
    // LANGUAGE_COUNTRY.CODESET@MODIFIER
    std::string_view const locale(value);
    auto const dot = std::min(locale.find('.'), locale.size());
    auto codeset = erofs_oci::ascii_lower(locale.substr(dot));
    codeset = codeset.substr(0, codeset.find('@'));
    std::erase(codeset, '-');
    return codeset == ".utf8";
  }
  return false;
}

}  // namespace mount_oci
