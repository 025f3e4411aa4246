// SPDX-License-Identifier: Apache-2.0
/// @file
/// PublicKey and PrivateKey: signatures by ECDSA on P-256 and by Ed25519. If you include this file,
/// you link libcrypto.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string_view>
#include <utility>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/result.hpp>

namespace erofs_oci {

namespace detail {
struct SigningKey;
}

/// A key that checks signatures. Copies share it.
///
/// @par Thread safety
/// All const members, from any thread.
class PublicKey {
 public:
  /// Reads "-----BEGIN PUBLIC KEY-----".
  /// @error{Errc::invalid_argument, there is no public key in the text}
  /// @error{Errc::unsupported, a key of another kind than EC on P-256 and Ed25519}
  [[nodiscard]] static Result<PublicKey> from_pem(std::string_view text);

  /// Whether the key's owner has signed the message: by ECDSA over its SHA-256, in DER, or by
  /// Ed25519 over itself. @spec{FIPS 186-5; RFC 8032}
  [[nodiscard]] bool verify(std::span<std::byte const> message,
                            std::span<std::byte const> signature) const;

 private:
  friend class PrivateKey;
  explicit PublicKey(std::shared_ptr<detail::SigningKey const> key) : key_(std::move(key)) {}
  std::shared_ptr<detail::SigningKey const> key_;
};

/// A key that signs. Its memory is wiped when the last copy ends.
///
/// @par Thread safety
/// All const members, from any thread.
class PrivateKey {
 public:
  /// Reads "-----BEGIN PRIVATE KEY-----", or such a key in another form that OpenSSL knows, without
  /// a passphrase.
  /// @error{Errc::unsupported, it is encrypted\, or of another kind than EC on P-256 and Ed25519}
  /// @error{Errc::invalid_argument, there is no private key in the text}
  [[nodiscard]] static Result<PrivateKey> from_pem(std::string_view text);

  /// A signature that PublicKey::verify() accepts.
  [[nodiscard]] Bytes sign(std::span<std::byte const> message) const;

  /// The key that checks it.
  [[nodiscard]] PublicKey public_key() const { return PublicKey(key_); }

 private:
  explicit PrivateKey(std::shared_ptr<detail::SigningKey const> key) : key_(std::move(key)) {}
  std::shared_ptr<detail::SigningKey const> key_;
};

}  // namespace erofs_oci

#ifndef EROFS_OCI_COMPILED
#include <erofs_oci/digest/detail/signature_body.hpp>
#endif
