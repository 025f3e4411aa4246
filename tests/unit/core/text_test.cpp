// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/core/text.hpp>  // first: proves that the header stands alone

#include <string>
#include <string_view>
#include <vector>

#include <catch.hpp>

namespace erofs_oci {
namespace text_test {

TEST_CASE("Characters are told by ASCII alone", "[core][text]") {
  for (auto const c : {'0', '9'}) CHECK((is_digit(c) && is_lower_or_digit(c)));
  for (auto const c : {'a', 'z'}) CHECK((!is_digit(c) && is_lower_or_digit(c)));
  for (auto const c : {'A', 'Z'}) CHECK((!is_lower_or_digit(c) && is_letter_or_digit(c)));
  for (auto const c : {'/', ':', '@', '[', '`', '{', '\0', '\xe4'}) CHECK(!is_letter_or_digit(c));
  CHECK(is_made_of("a_B-1", "_-"));
  CHECK(is_made_of("", ""));
  CHECK_FALSE(is_made_of("a b", "_-"));
}

TEST_CASE("All but what is safe is percent-encoded", "[core][text]") {
  CHECK(percent_encode("aZ9-._~") == "aZ9-._~");
  CHECK(percent_encode("A z-._~&=+%\r\n\xc3") == "A%20z-._~%26%3D%2B%25%0D%0A%C3");
  CHECK(percent_encode("a/b c:\xff") == "a%2Fb%20c%3A%FF");
  CHECK(percent_encode("/run/a b", "/") == "/run/a%20b");
}

TEST_CASE("A text is cut at its separators", "[core][text]") {
  auto const cut = [](std::string_view text) {
    std::vector<std::string_view> parts;
    while (!text.empty()) parts.push_back(take_part(text, ','));
    return parts;
  };
  using Parts = std::vector<std::string_view>;
  CHECK(cut("").empty());
  CHECK(cut("a") == Parts{"a"});
  CHECK(cut("a,bc") == Parts{"a", "bc"});
  CHECK(cut("a,,b") == Parts{"a", "", "b"});
  CHECK(cut(",a,") == Parts{"", "a"});
  std::string_view nothing;
  CHECK(take_part(nothing, ',').empty());
}

TEST_CASE("All parts of a text are asked for, up to the first bad one", "[core][text]") {
  std::vector<std::string> asked;
  auto const is_good = [&](std::string_view part) {
    asked.emplace_back(part);
    return part != "bad";
  };
  CHECK(are_parts_good("a:b:", ':', is_good));
  CHECK(asked == std::vector<std::string>{"a", "b", ""});
  asked.clear();
  CHECK_FALSE(are_parts_good("a:bad:c", ':', is_good));
  CHECK(asked == std::vector<std::string>{"a", "bad"});
  asked.clear();
  CHECK(are_parts_good("", ':', is_good));
  CHECK(asked == std::vector<std::string>{""});
}

}  // namespace text_test
}  // namespace erofs_oci
