// SPDX-License-Identifier: Apache-2.0
// libFuzzer: -max_len=1048576
/// @file
/// A config.json, or what a credential helper prints: credentials, none, or an error that does not
/// quote them. The first byte says which. Whatever a config.json names as a helper is not found;
/// messages quote that name, which is no secret.
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <string>

#include <erofs_oci/oci/credentials.hpp>
#include <erofs_oci/oci/encoding.hpp>
#include <erofs_oci/oci/json.hpp>

#include "input.hpp"

using namespace erofs_oci;

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  [[maybe_unused]] static auto const path = ::setenv("PATH", "/nonexistent", 1);
  fuzz::Input input(data, size);
  auto const choice = input.byte();
  auto const text = input.rest_as_text();
  if (auto const plain = base64_decode(text)) {
    auto const again = base64_decode(base64_encode(*plain));
    fuzz::require(again == *plain);
  }
  auto const found = (choice & 1) != 0
                         ? detail::helper_login({choice / 2, text}, "docker-credential-x")
                         : credentials_from(text, (choice & 2) != 0 ? "docker.io" : "ghcr.io",
                                            "owner/name", std::chrono::milliseconds(100));
  auto const config = json::parse(as_bytes(text), "");
  auto const names_helper = (choice & 1) == 0 && config &&
                            (json::find(*config, "credsStore") != nullptr ||
                             json::find(*config, "credHelpers") != nullptr);
  if (!found && !names_helper) {
    fuzz::require(found.error().message().find("S3CRET") == std::string::npos);
  } else if (found && *found) {
    fuzz::require(*found != Credentials());
  }
  return 0;
}
