// SPDX-License-Identifier: Apache-2.0
// Any text is refused, or names hosts whose URLs read as themselves and headers that may be sent.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include <erofs_oci/oci/hosts_toml.hpp>

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  auto const text = std::string_view(reinterpret_cast<char const*>(data), size);
  auto const file = erofs_oci::parse_hosts_toml(text, "hosts.toml", "/d", "r.x:5000");
  if (!file) return 0;
  auto hosts = file->mirrors;
  if (file->server) hosts.push_back(*file->server);
  for (auto const& host : hosts) {
    auto base = host.api;
    base.target += "/n";
    if (erofs_oci::Url::parse(base.to_string()) != base) std::abort();
    for (auto const& header : host.headers) {
      if (!header.secret || header.value.find_first_of("\r\n") != header.value.npos) std::abort();
    }
    for (auto const& path : host.tls.ca_files) {
      if (!path.starts_with('/')) std::abort();
    }
  }
  return 0;
}
