// SPDX-License-Identifier: Apache-2.0
// libFuzzer: -max_len=1048576
// The answer of a token server: a token that a header may hold, for at most a day, or an error that
// quotes nothing of it.
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include <erofs_oci/oci/auth.hpp>

#include "input.hpp"

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  auto const token = erofs_oci::parse_token(std::as_bytes(std::span(data, size)));
  if (!token) {
    fuzz::require(token.error().message().find("S3CRET") == std::string::npos);
    return 0;
  }
  fuzz::require(!token->text.empty());
  for (auto const c : token->text) fuzz::require(c > ' ' && c <= '~');
  fuzz::require(token->lifetime > std::chrono::seconds(0));
  fuzz::require(token->lifetime <= std::chrono::hours(24));
  return 0;
}
