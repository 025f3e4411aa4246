// SPDX-License-Identifier: Apache-2.0
// Any text is refused, or is a URL that prints and reads as itself; as a redirect it leads to one.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include <erofs_oci/source/http_response.hpp>
#include <erofs_oci/source/url.hpp>

namespace {

void check(erofs_oci::Result<erofs_oci::Url> const& url) {
  if (!url) return;
  auto const again = erofs_oci::Url::parse(url->to_string());
  if (!again || *again != *url) std::abort();
  if (url->target.find_first_of("\r\n ") != std::string::npos) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  auto const text = std::string_view(reinterpret_cast<char const*>(data), size);
  check(erofs_oci::Url::parse(text));
  check(erofs_oci::Url::parse("https://a.example/b/c?d")->resolve(text));
  (void)erofs_oci::ContentRange::parse(text);
  (void)erofs_oci::parse_retry_after(text, {});
  return 0;
}
