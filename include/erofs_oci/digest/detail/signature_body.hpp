// SPDX-License-Identifier: Apache-2.0
/// @file
/// What digest/signature.hpp only declares.
#pragma once

#include <cstddef>
#include <memory>
#include <new>
#include <span>
#include <string_view>
#include <utility>

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/config.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/digest/signature.hpp>

namespace erofs_oci {
namespace detail {

/// Calls a function of OpenSSL's to free something.
template <auto Function>
struct OpensslFree {
  template <class T>
  void operator()(T* object) const noexcept {
    Function(object);
  }
};

using OpensslKey = std::unique_ptr<EVP_PKEY, OpensslFree<EVP_PKEY_free>>;
using OpensslContext = std::unique_ptr<EVP_MD_CTX, OpensslFree<EVP_MD_CTX_free>>;
using OpensslText = std::unique_ptr<BIO, OpensslFree<BIO_free>>;

/// A key of a kind that we use.
struct SigningKey {
  OpensslKey key;
  EVP_MD const* digest = nullptr;  // null: Ed25519, which hashes by itself

  [[nodiscard]] static Result<std::shared_ptr<SigningKey const>> make(OpensslKey key) {
    auto const* digest = EVP_sha256();
    if (EVP_PKEY_is_a(key.get(), "ED25519") == 1) {
      digest = nullptr;
    } else {
      char group[32] = {};
      std::size_t length = 0;
      if (EVP_PKEY_is_a(key.get(), "EC") != 1 ||
          EVP_PKEY_get_group_name(key.get(), group, sizeof group, &length) != 1 ||
          std::string_view(group) != "prime256v1") {
        return fail(Errc::unsupported, "the key is neither EC on P-256 nor Ed25519");
      }
    }
    return std::make_shared<SigningKey const>(SigningKey{std::move(key), digest});
  }
};

/// A text as OpenSSL reads it. It must outlive the result.
[[nodiscard]] inline OpensslText openssl_text(std::string_view text) {
  OpensslText out(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
  if (!out) throw std::bad_alloc();
  return out;
}

[[nodiscard]] inline OpensslContext openssl_context() {
  OpensslContext out(EVP_MD_CTX_new());
  if (!out) throw std::bad_alloc();
  return out;
}

[[nodiscard]] inline unsigned char const* openssl_bytes(std::span<std::byte const> bytes) noexcept {
  return reinterpret_cast<unsigned char const*>(bytes.data());
}

/// For OpenSSL, which would ask the terminal for a passphrase.
inline int no_passphrase(char* /*into*/, int /*size*/, int /*writes*/, void* asked) {
  *static_cast<bool*>(asked) = true;
  return -1;
}

/// The key in a text of at most 64 KiB, by one of OpenSSL's readers; null if there is none.
/// @param asked  becomes true if it wants a passphrase
inline OpensslKey read_pem(std::string_view text,
                           EVP_PKEY* (*read)(BIO*, EVP_PKEY**, pem_password_cb*, void*),
                           bool& asked) {
  constexpr std::size_t longest = 64 * 1024;
  OpensslKey key;
  if (text.size() <= longest) {
    auto const in = openssl_text(text);
    key.reset(read(in.get(), nullptr, no_passphrase, &asked));
  }
  ERR_clear_error();
  return key;
}

}  // namespace detail

EROFS_OCI_BODY Result<PublicKey> PublicKey::from_pem(std::string_view text) {
  auto asked = false;
  auto key = detail::read_pem(text, PEM_read_bio_PUBKEY, asked);
  if (!key) return fail(Errc::invalid_argument, "no public key in PEM");
  EROFS_OCI_TRY_ASSIGN(auto made, detail::SigningKey::make(std::move(key)));
  return PublicKey(std::move(made));
}

EROFS_OCI_BODY bool PublicKey::verify(std::span<std::byte const> message,
                                      std::span<std::byte const> signature) const {
  auto const context = detail::openssl_context();
  auto const good =
      EVP_DigestVerifyInit(context.get(), nullptr, key_->digest, nullptr, key_->key.get()) == 1 &&
      EVP_DigestVerify(context.get(), detail::openssl_bytes(signature), signature.size(),
                       detail::openssl_bytes(message), message.size()) == 1;
  ERR_clear_error();
  return good;
}

EROFS_OCI_BODY Result<PrivateKey> PrivateKey::from_pem(std::string_view text) {
  auto asked = false;
  auto key = detail::read_pem(text, PEM_read_bio_PrivateKey, asked);
  if (!key && (asked || text.find("ENCRYPTED") != text.npos)) {
    return fail(Errc::unsupported, "the private key is encrypted: decrypt it first");
  }
  if (!key) return fail(Errc::invalid_argument, "no private key in PEM");
  EROFS_OCI_TRY_ASSIGN(auto made, detail::SigningKey::make(std::move(key)));
  return PrivateKey(std::move(made));
}

EROFS_OCI_BODY Bytes PrivateKey::sign(std::span<std::byte const> message) const {
  auto const context = detail::openssl_context();
  std::size_t size = 0;
  Bytes out;
  // OpenSSL fails here only for want of memory.
  if (EVP_DigestSignInit(context.get(), nullptr, key_->digest, nullptr, key_->key.get()) != 1 ||
      EVP_DigestSign(context.get(), nullptr, &size, detail::openssl_bytes(message),
                     message.size()) != 1) {
    throw std::bad_alloc();
  }
  out.resize(size);
  if (EVP_DigestSign(context.get(), reinterpret_cast<unsigned char*>(out.data()), &size,
                     detail::openssl_bytes(message), message.size()) != 1) {
    throw std::bad_alloc();
  }
  out.resize(size);
  return out;
}

}  // namespace erofs_oci
