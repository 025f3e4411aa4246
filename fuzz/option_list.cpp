// SPDX-License-Identifier: Apache-2.0
/// @file
/// A list of -o words: a value that quote() writes is read as itself, and of a list with passwords
/// scrub_secrets() leaves none, whatever is around them. The first byte chooses whether the list
/// stands behind -o or by itself.
#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include <options.hpp>

#include "input.hpp"

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  using namespace mount_oci;
  fuzz::Input input(data, size);
  bool const joined = (input.byte() & 1) != 0;
  auto const text = input.rest_as_text();
  if (auto const number = parse_size(text)) {
    fuzz::require(!text.empty() && *number <= ~std::uint64_t{0});
  }
  auto const quoted = split_list("key=" + quote(text));
  fuzz::require(quoted.has_value() && quoted->size() == 1);
  fuzz::require(quoted->front().key == "key" && quoted->front().value == text);

  auto const list = text.substr(0, text.find('\0'));
  auto const words = split_list(list);
  if (!words) return 0;
  std::string program = "mount-oci";
  auto argument = (joined ? "-o" : "") + list;
  std::array<char*, 2> arguments{program.data(), argument.data()};
  scrub_secrets(2, arguments.data());
  auto const secrets = [](std::string_view in) {
    std::size_t count = 0;
    for (auto at = in.find("S3CRET"); at != in.npos; at = in.find("S3CRET", at + 1)) ++count;
    return count;
  };
  auto most = secrets(list);
  for (auto const& word : *words) {
    // Another key, a quoted one included, is refused.
    if (word.raw.starts_with("oci.password=")) most -= secrets(word.raw);
  }
  fuzz::require(secrets(arguments[1]) <= most);
  return 0;
}
