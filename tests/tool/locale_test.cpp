// SPDX-License-Identifier: Apache-2.0
#include "locale.hpp"  // first: proves that the header stands alone

#include <map>
#include <string>

#include <catch.hpp>

namespace mount_oci {
namespace locale_test {

TEST_CASE("A locale has UTF-8 if the first variable that is set says so", "[tool][locale]") {
  struct Row {
    std::map<std::string, std::string> variables;
    bool utf8;
  };
  for (auto const& row : {
           Row{{}, false},
           Row{{{"LANG", "C"}}, false},
           Row{{{"LANG", "de_DE"}}, false},
           Row{{{"LANG", "de_DE.ISO-8859-1"}}, false},
           Row{{{"LANG", "utf8"}}, false},
           Row{{{"LANG", "C.UTF-8"}}, true},
           Row{{{"LANG", "de_DE.utf8"}}, true},
           Row{{{"LANG", "de_DE.utf-8@euro"}}, true},
           Row{{{"LANG", "C.UTF-8"}, {"LC_CTYPE", "C"}}, false},
           Row{{{"LANG", "C"}, {"LC_CTYPE", "C.UTF-8"}}, true},
           Row{{{"LANG", "C.UTF-8"}, {"LC_ALL", "C"}}, false},
           Row{{{"LANG", "C.UTF-8"}, {"LC_ALL", ""}}, true},
           Row{{{"LC_CTYPE", "C"}, {"LC_ALL", "C.UTF-8"}}, true},
       }) {
    auto const get = [&](char const* name) -> char const* {
      auto const found = row.variables.find(name);
      return found == row.variables.end() ? nullptr : found->second.c_str();
    };
    CAPTURE(row.variables);
    CHECK(is_utf8_locale(get) == row.utf8);
  }
}

}  // namespace locale_test
}  // namespace mount_oci
