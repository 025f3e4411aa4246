// SPDX-License-Identifier: Apache-2.0
/// @file
/// Sha256 and Sha512: hash policies. If you include this file, you link libcrypto.
#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <new>
#include <span>

#include <openssl/evp.h>

#include <erofs_oci/digest/digest.hpp>

namespace erofs_oci {

/// A hash whose algorithm is known only at run time, as a digest to be checked names it. OpenSSL
/// fails here only for want of memory.
class Hasher {
 public:
  /// Starts a hash of that algorithm.
  explicit Hasher(DigestAlgorithm algorithm) : algorithm_(algorithm), context_(EVP_MD_CTX_new()) {
    auto const* const type = algorithm == DigestAlgorithm::sha512 ? EVP_sha512() : EVP_sha256();
    if (!context_ || EVP_DigestInit_ex(context_.get(), type, nullptr) != 1) throw std::bad_alloc();
  }

  /// Adds the next bytes.
  void update(std::span<std::byte const> bytes) {
    if (EVP_DigestUpdate(context_.get(), bytes.data(), bytes.size()) != 1) throw std::bad_alloc();
  }

  /// The digest of all bytes so far. Call it once.
  [[nodiscard]] Digest finish() {
    std::array<unsigned char, EVP_MAX_MD_SIZE> raw{};
    if (EVP_DigestFinal_ex(context_.get(), raw.data(), nullptr) != 1) throw std::bad_alloc();
    return *Digest::make(algorithm_, std::as_bytes(std::span(raw)).first(digest_size(algorithm_)));
  }

 private:
  struct Free {
    void operator()(EVP_MD_CTX* context) const noexcept { EVP_MD_CTX_free(context); }
  };
  DigestAlgorithm algorithm_;
  std::unique_ptr<EVP_MD_CTX, Free> context_;
};

namespace detail {

/// A Hasher whose algorithm is known when compiling.
template <DigestAlgorithm Algorithm>
class EvpHash {
 public:
  void update(std::span<std::byte const> bytes) { hasher_.update(bytes); }
  [[nodiscard]] Digest finish() { return hasher_.finish(); }

 private:
  Hasher hasher_{Algorithm};
};

}  // namespace detail

/// SHA-256, in pieces. @spec{FIPS 180-4}
using Sha256 = detail::EvpHash<DigestAlgorithm::sha256>;

/// SHA-512, in pieces. @spec{FIPS 180-4}
using Sha512 = detail::EvpHash<DigestAlgorithm::sha512>;

static_assert(Hash<Sha256> && Hash<Sha512>);

/// Bytes of a SHA-256.
inline constexpr std::size_t sha256_size = 32;

/// The digest of bytes in memory.
[[nodiscard]] inline Digest digest_of(std::span<std::byte const> bytes,
                                      DigestAlgorithm algorithm = DigestAlgorithm::sha256) {
  Hasher hasher(algorithm);
  hasher.update(bytes);
  return hasher.finish();
}

}  // namespace erofs_oci
