// SPDX-License-Identifier: Apache-2.0
/// @file
/// Signatures of manifests, where and as cosign keeps them.
///
/// A signature is over a payload, a JSON that names the digest of the manifest. Payloads are the
/// layers of a manifest with the tag `sha256-HEX.sig`, each with its signature in an annotation.
/// @spec{sigstore cosign, SIGNATURE_SPEC.md}
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/digest/digest.hpp>
#include <erofs_oci/digest/sha256.hpp>
#include <erofs_oci/digest/signature.hpp>
#include <erofs_oci/oci/encoding.hpp>
#include <erofs_oci/oci/fetch_blob.hpp>
#include <erofs_oci/oci/json.hpp>
#include <erofs_oci/oci/manifest.hpp>
#include <erofs_oci/oci/push.hpp>
#include <erofs_oci/oci/registry.hpp>

namespace erofs_oci {

/// What cosign calls things.
namespace cosign {

/// Media type of a payload.
inline constexpr std::string_view payload_type = "application/vnd.dev.cosign.simplesigning.v1+json";
/// On a payload's descriptor: the signature, in base64.
inline constexpr char const* signature = "dev.cosignproject.cosign/signature";
/// Bytes of a payload that are read at the most.
inline constexpr std::uint64_t max_payload_size = 64 * 1024;

/// The tag of the signatures of what `digest` names.
[[nodiscard]] inline std::string tag_of(Digest const& digest) {
  return std::string(to_string(digest.algorithm())) + "-" + digest.hex() + ".sig";
}

/// The payload that says: this manifest was signed.
/// @param repository  `host[:port]/name`, which cosign shows
[[nodiscard]] inline std::string payload(std::string_view repository, Digest const& digest) {
  return json::dump({{"critical",
                      {{"identity", {{"docker-reference", repository}}},
                       {"image", {{"docker-manifest-digest", digest.to_string()}}},
                       {"type", "cosign container image signature"}}},
                     {"optional", nullptr}});
}

/// Whether a payload is about that manifest.
[[nodiscard]] inline bool is_about(std::span<std::byte const> payload, Digest const& digest) {
  auto const value = json::parse(payload, "payload");
  if (!value) return false;
  auto const* const critical = json::find(*value, "critical");
  if (critical == nullptr) return false;
  auto const* const image = json::find(*critical, "image");
  return json::text(*critical, "type") == "cosign container image signature" && image != nullptr &&
         json::text(*image, "docker-manifest-digest") == digest.to_string();
}

}  // namespace cosign

/// Whether one of the keys' owners has signed the manifest with that digest. What is no signature
/// by such a key counts as none.
/// @param repository  a BasicRegistry, or a Layout, which has signatures under the same tags
/// @error{as BasicRegistry::document(), as there; that there are no signatures is no error}
template <class Repository>
[[nodiscard]] Result<bool> is_signed(Repository const& repository, Digest const& digest,
                                     std::span<PublicKey const> keys) {
  if (keys.empty()) return false;
  auto found = repository.document(cosign::tag_of(digest));
  if (!found && found.error().code == Errc::not_found) return false;
  if (!found) return fail(std::move(found).error(), "signatures");
  auto const* const manifest = std::get_if<Manifest>(&found->document);
  if (manifest == nullptr) return false;
  for (auto const& layer : manifest->layers) {
    auto const annotation = layer.annotation(cosign::signature);
    if (!annotation || layer.media_type != cosign::payload_type ||
        layer.size > cosign::max_payload_size) {
      continue;
    }
    auto const signature = base64_decode(*annotation);
    if (!signature) continue;
    auto const payload = fetch_blob(repository, layer, cosign::max_payload_size);
    if (!payload && payload.error().code == Errc::digest_mismatch) continue;
    if (!payload) return fail(payload.error(), "signatures");
    if (!cosign::is_about(*payload, digest)) continue;
    for (auto const& key : keys) {
      if (key.verify(*payload, as_bytes(*signature))) return true;
    }
  }
  return false;
}

/// Signs the manifest with that digest; what others have signed stays.
/// @param pusher      a BasicPusher, or a LayoutWriter
/// @param repository  `host[:port]/name` of the manifest, for the payload
/// @error{as BasicPusher, as there}
/// @error{Errc::mismatch, there is something else under the signatures' tag}
template <class Pusher>
[[nodiscard]] Result<void> sign_manifest(Pusher const& pusher, std::string_view repository,
                                         Digest const& digest, PrivateKey const& key) {
  auto const tag = cosign::tag_of(digest);
  Manifest manifest;
  auto found = pusher.document(tag);
  if (!found && found.error().code != Errc::not_found) return fail(std::move(found).error(), tag);
  if (found) {
    auto* const there = std::get_if<Manifest>(&found->document);
    if (there == nullptr) return fail(Errc::mismatch, tag + ": not a manifest of signatures");
    manifest = std::move(*there);
  } else {
    std::string const config =
        R"({"architecture":"","os":"","config":{},"rootfs":{"type":"layers","diff_ids":[]}})";
    manifest.media_type = media_type::oci_manifest;
    manifest.config = descriptor_of("application/vnd.oci.image.config.v1+json", as_bytes(config));
    EROFS_OCI_TRY(pusher.put_blob(manifest.config.digest, as_bytes(config)));
  }
  auto const payload = cosign::payload(repository, digest);
  auto layer = descriptor_of(cosign::payload_type, as_bytes(payload));
  auto const signature = key.sign(as_bytes(payload));
  layer.annotations[cosign::signature] = base64_encode(as_text(signature));
  EROFS_OCI_TRY(pusher.put_blob(layer.digest, as_bytes(payload)));
  manifest.layers.push_back(std::move(layer));
  EROFS_OCI_TRY(pusher.put_manifest(tag, manifest.media_type, encode(manifest)));
  return {};
}

}  // namespace erofs_oci
