// SPDX-License-Identifier: Apache-2.0
// The variables that name proxies: a proxy with a host, or an error that does not quote a password;
// this machine itself is never asked by one. Input: three texts and a URL's host.
#include <cstdint>
#include <map>
#include <string>

#include <erofs_oci/http/proxy.hpp>

#include "input.hpp"

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  using namespace erofs_oci;
  fuzz::Input input(data, size);
  std::map<std::string, std::string> variables;
  for (auto const* const name : {"https_proxy", "HTTP_PROXY", "NO_PROXY"}) {
    variables[name] = input.text();
  }
  auto const proxies = Proxies::from_environment([&](char const* name) {
    auto const found = variables.find(name);
    return found == variables.end() ? nullptr : found->second.c_str();
  });
  if (!proxies) {
    fuzz::require(proxies.error().message().find("S3CRET") == std::string::npos);
    return 0;
  }
  for (auto const& proxy : {proxies->http, proxies->https}) {
    if (proxy) fuzz::require(!proxy->host.empty() && proxy->port != 0);
  }
  for (auto const* const own : {"http://localhost/", "https://127.0.0.1:5000/", "http://[::1]/"}) {
    fuzz::require(!proxies->choose(*Url::parse(own)));
  }
  auto const host = input.text();
  for (auto const* const scheme : {"http://", "https://"}) {
    auto const url = Url::parse(scheme + host + "/x");
    auto const chosen = url ? proxies->choose(*url) : std::nullopt;
    if (chosen) fuzz::require(chosen == (url->is_secure() ? proxies->https : proxies->http));
  }
  return 0;
}
