// SPDX-License-Identifier: Apache-2.0
/// @file
/// What a registry and a user say of signatures: a key, a payload, a signature, an artifact's
/// manifest; and a registry's refusals and tags. No key but the right one makes any of them good.
#include <algorithm>
#include <cstdint>
#include <variant>

#include <erofs_oci/digest/sha256.hpp>
#include <erofs_oci/digest/signature.hpp>
#include <erofs_oci/oci/cosign.hpp>
#include <erofs_oci/oci/index_artifact.hpp>
#include <erofs_oci/oci/push.hpp>

#include "input.hpp"

using namespace erofs_oci;

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  fuzz::Input input(data, size);
  auto const choice = input.byte();
  auto const rest = input.rest();
  auto const digest = digest_of({});
  switch (choice % 4) {
    case 0: {
      auto const key = PublicKey::from_pem(as_text(rest));
      if (key) fuzz::require(!key->verify(rest, rest));
      (void)PrivateKey::from_pem(as_text(rest));
      break;
    }
    case 1: {
      static auto const key = PublicKey::from_pem(
          "-----BEGIN PUBLIC KEY-----\n"
          "MCowBQYDK2VwAyEAa7M8uLTFmFG/kB5e1I4OaNhrvxZ40WVXwivruP++B3g=\n"
          "-----END PUBLIC KEY-----\n");
      fuzz::require(!key->verify(as_bytes(std::string_view("message")), rest));
      (void)cosign::is_about(rest, digest);
      break;
    }
    case 2: {
      auto const document = parse_document(rest);
      auto const* const manifest = document ? std::get_if<Manifest>(&*document) : nullptr;
      if (manifest == nullptr) break;
      auto const artifact = read_index_artifact(*manifest, digest, digest);
      if (artifact) fuzz::require(manifest->subject->digest == digest);
      if (artifact && artifact->tree) {
        fuzz::require(artifact->tree->at.media_type == index_artifact::tree_type);
      }
      break;
    }
    default: {
      auto text = detail::read_refusal(rest).text();
      if (auto const tags = detail::read_tag_list(rest)) text += detail::list_tags(*tags, 10);
      // A terminal shows it: "…" alone is not ASCII.
      fuzz::require(
          std::ranges::none_of(text, [](unsigned char c) { return c < ' ' || c == 127; }));
      fuzz::require(text.size() < 11 * 320);
      (void)detail::upload_range(as_text(rest));
    }
  }
  return 0;
}
