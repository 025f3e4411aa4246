// SPDX-License-Identifier: Apache-2.0
/// @file
/// Digest: the name of a blob, and what a hash policy is.
#pragma once

#include <algorithm>
#include <array>
#include <compare>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/endian.hpp>
#include <erofs_oci/core/result.hpp>

namespace erofs_oci {

/// The algorithms that the OCI specification registers.
enum class DigestAlgorithm : std::uint8_t {
  sha256,  ///< 32 bytes
  sha512,  ///< 64 bytes
};

/// Its name in a digest's text.
[[nodiscard]] constexpr std::string_view to_string(DigestAlgorithm algorithm) noexcept {
  return algorithm == DigestAlgorithm::sha512 ? "sha512" : "sha256";
}

/// Bytes of a digest.
[[nodiscard]] constexpr std::size_t digest_size(DigestAlgorithm algorithm) noexcept {
  return algorithm == DigestAlgorithm::sha512 ? 64 : 32;
}

/// An algorithm and its result over some content, which identifies that content.
class Digest {
 public:
  /// The sha256 digest of all zero bits; no known content has it.
  Digest() noexcept = default;

  /// Reads "sha256:" and 64, or "sha512:" and 128, lower-case hexadecimal digits; nothing else.
  /// @error{Errc::unsupported, another algorithm}
  /// @error{Errc::invalid_argument, anything else that is not a digest}
  [[nodiscard]] static Result<Digest> parse(std::string_view text) {
    auto const colon = text.find(':');
    if (colon == std::string_view::npos) return refuse(text, "no algorithm");
    auto const name = text.substr(0, colon);
    if (name != "sha256" && name != "sha512") {
      return fail(Errc::unsupported, "digest \"" + printable(text) + "\": unknown algorithm");
    }
    auto const algorithm = name == "sha512" ? DigestAlgorithm::sha512 : DigestAlgorithm::sha256;
    auto const digits = text.substr(colon + 1);
    if (digits.size() != 2 * digest_size(algorithm)) return refuse(text, "wrong length");
    Digest digest;
    digest.algorithm_ = algorithm;
    constexpr std::string_view values = "0123456789abcdef";
    if (digits.find_first_not_of(values) != digits.npos) {
      return refuse(text, "not lower-case hexadecimal");
    }
    for (std::size_t i = 0; i < digest_size(algorithm); ++i) {
      auto const value = values.find(digits[2 * i]) << 4 | values.find(digits[2 * i + 1]);
      digest.bytes_[i] = static_cast<std::byte>(value);
    }
    return digest;
  }

  /// The digest made of `bytes`, which must be digest_size(algorithm) long.
  /// @error{Errc::invalid_argument, another length}
  [[nodiscard]] static Result<Digest> make(DigestAlgorithm algorithm,
                                           std::span<std::byte const> bytes) {
    if (bytes.size() != digest_size(algorithm)) {
      return fail(Errc::invalid_argument, "digest of " + std::to_string(bytes.size()) + " bytes");
    }
    Digest digest;
    digest.algorithm_ = algorithm;
    std::ranges::copy(bytes, digest.bytes_.begin());
    return digest;
  }

  [[nodiscard]] DigestAlgorithm algorithm() const noexcept { return algorithm_; }

  /// The raw result, 32 or 64 bytes, borrowed.
  [[nodiscard]] std::span<std::byte const> bytes() const noexcept {
    return std::span(bytes_).first(digest_size(algorithm_));
  }

  /// The hexadecimal digits alone.
  [[nodiscard]] std::string hex() const { return erofs_oci::hex(bytes()); }

  /// "sha256:…", as parse() reads it.
  [[nodiscard]] std::string to_string() const {
    return std::string(erofs_oci::to_string(algorithm_)) + ":" + hex();
  }

  /// Takes the same time wherever the two differ.
  [[nodiscard]] friend bool operator==(Digest const& a, Digest const& b) noexcept {
    auto difference = a.algorithm_ == b.algorithm_ ? std::byte{0} : std::byte{1};
    for (std::size_t i = 0; i < a.bytes_.size(); ++i) difference |= a.bytes_[i] ^ b.bytes_[i];
    return difference == std::byte{0};
  }

  /// Some total order, for sorted containers.
  friend std::strong_ordering operator<=>(Digest const&, Digest const&) noexcept = default;

 private:
  /// At most 160 characters, without control characters: the text may come from a peer.
  static std::string printable(std::string_view text) {
    std::string out(text.substr(0, 160));
    std::ranges::replace_if(out, [](char c) { return c < ' ' || c > '~'; }, '?');
    return out;
  }

  static tl::unexpected<Error> refuse(std::string_view text, std::string_view why) {
    return fail(Errc::invalid_argument, "digest \"" + printable(text) + "\": " + std::string(why));
  }

  DigestAlgorithm algorithm_ = DigestAlgorithm::sha256;
  std::array<std::byte, 64> bytes_{};  // zero past the algorithm's size, so all can be compared
};

/// Computes a Digest over bytes that come in pieces. finish() ends it: make a new one afterwards.
template <class H>
concept Hash =
    std::default_initializable<H> && requires(H& hash, std::span<std::byte const> bytes) {
      hash.update(bytes);
      { hash.finish() } -> std::same_as<Digest>;
    };

}  // namespace erofs_oci

/// @cond
template <>
struct std::hash<erofs_oci::Digest> {
  /// The content's own hash is one already.
  [[nodiscard]] std::size_t operator()(erofs_oci::Digest const& digest) const noexcept {
    return erofs_oci::load_be<std::size_t>(digest.bytes().first<sizeof(std::size_t)>());
  }
};
/// @endcond
