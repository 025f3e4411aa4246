// SPDX-License-Identifier: Apache-2.0
// Any text is refused, or is challenges each of which prints and reads as itself; a token request
// made from one is well formed.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include <erofs_oci/oci/auth.hpp>

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  auto const text = std::string_view(reinterpret_cast<char const*>(data), size);
  auto const challenges = erofs_oci::parse_challenges(text);
  if (!challenges) return 0;
  auto const registry = erofs_oci::Url::parse("https://registry.example/");
  for (auto const& challenge : *challenges) {
    auto const again = erofs_oci::parse_challenges(erofs_oci::encode(challenge));
    if (!again || again->size() != 1 || again->front() != challenge) std::abort();
    auto const request = erofs_oci::token_request(challenge, *registry, "scope", {});
    if (request && (request->url.target.find_first_of("\r\n ") != std::string::npos ||
                    !request->url.is_secure())) {
      std::abort();
    }
  }
  return 0;
}
