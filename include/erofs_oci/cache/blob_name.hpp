// SPDX-License-Identifier: Apache-2.0
/// @file
/// BlobName: the name of a blob's file in a cache on disk.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include <erofs_oci/core/text.hpp>
#include <erofs_oci/digest/digest.hpp>

namespace erofs_oci {

/// A blob, and the size that somebody says it has: of two who differ, one cannot disturb the other.
struct BlobName {
  static constexpr std::uint64_t largest = std::uint64_t{1} << 42;  ///< bytes: 4 TiB

  Digest digest;
  std::uint64_t size = 0;  ///< bytes, at most `largest`

  /// Reads what text() writes; empty: it is something else.
  [[nodiscard]] static std::optional<BlobName> parse(std::string_view text) {
    auto const dash = text.find('-');
    auto const dot = text.rfind('.');
    if (dash == text.npos || dot == text.npos || dot < dash) return std::nullopt;
    auto const digits = text.substr(dot + 1);
    auto const size = whole_number<std::uint64_t>(digits);
    auto const digest = Digest::parse(std::string(text.substr(0, dash)) + ':' +
                                      std::string(text.substr(dash + 1, dot - dash - 1)));
    if (!size || *size > largest || !digest) return std::nullopt;
    BlobName name{*digest, *size};
    if (name.text() != text) return std::nullopt;  // a zero in front, say
    return name;
  }

  /// "sha256-HEX.SIZE"
  [[nodiscard]] std::string text() const {
    return std::string(to_string(digest.algorithm())) + '-' + digest.hex() + '.' +
           std::to_string(size);
  }

  friend bool operator==(BlobName const&, BlobName const&) = default;
};

}  // namespace erofs_oci
