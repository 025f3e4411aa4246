// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/digest/sealed_file.hpp>  // first: proves that the header stands alone

#include <algorithm>
#include <string>

#include <catch.hpp>

namespace erofs_oci {
namespace sealed_file_test {

constexpr SealedForm form{.name = "thing",
                          .magic = {std::byte{1}, std::byte{2}, std::byte{3}, std::byte{4},
                                    std::byte{5}, std::byte{6}, std::byte{7}, std::byte{8}},
                          .version = 3,
                          .header = 14};

Bytes sealed(std::string const& content) {
  auto file = form.begin();
  auto const bytes = to_bytes(content);
  file.insert(file.end(), bytes.begin(), bytes.end());
  SealedForm::seal(file);
  return file;
}

TEST_CASE("A sealed file is opened as it was made", "[digest][sealed_file]") {
  auto const file = sealed("content");
  auto const content = form.open(file);
  REQUIRE(content.has_value());
  CHECK(as_text(content->subspan(12)) == "content");
}

TEST_CASE("What is changed, cut short or of another form is no sealed file",
          "[digest][sealed_file][error]") {
  auto const file = sealed("content");
  for (std::size_t bit = 0; bit < 8 * file.size(); ++bit) {
    auto changed = file;
    changed[bit / 8] ^= std::byte(1U << bit % 8);
    CHECK_FALSE(form.open(changed).has_value());
  }
  for (std::size_t size = 0; size < file.size(); ++size) {
    CHECK_FALSE(form.open(std::span(file).first(size)).has_value());
  }
  CHECK_FALSE(form.open(sealed("c")).has_value());  // less than its header
  auto other = form;
  other.version = 4;
  auto const newer = other.open(file);
  REQUIRE_FALSE(newer.has_value());
  CHECK(newer.error().code == Errc::unsupported);
  CHECK(newer.error().message().find("thing: version 3") == 0);
}

}  // namespace sealed_file_test
}  // namespace erofs_oci
