// SPDX-License-Identifier: Apache-2.0
/// @file
/// SealedForm: what files have alike that are written without a sync: a digest of all of them.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/endian.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/digest/sha256.hpp>

namespace erofs_oci {

/// Such a file: a magic of 8 bytes, a version in 4, more, and the SHA-256 of all of that.
///
/// @par Thread safety
/// All members, from any thread.
struct SealedForm {
  char const* name;  ///< for messages
  std::array<std::byte, 8> magic;
  std::uint32_t version = 1;
  std::size_t header = 12;  ///< bytes that are there in any case, magic and version included

  /// Magic and version.
  [[nodiscard]] Bytes begin() const {
    Bytes file(magic.begin(), magic.end());
    append_le(file, version, 4);
    return file;
  }

  /// Adds the digest.
  static void seal(Bytes& file) {
    auto const digest = digest_of(file);
    file.insert(file.end(), digest.bytes().begin(), digest.bytes().end());
  }

  /// What is in front of the digest.
  /// @error{Errc::unsupported, another version}
  /// @error{Errc::corrupt, no such file\, or one that is cut short or changed}
  [[nodiscard]] Result<std::span<std::byte const>> open(std::span<std::byte const> file) const {
    if (file.size() < header + sha256_size || !std::ranges::equal(file.first<8>(), magic)) {
      return bad("not one, or cut short");
    }
    auto const found = load_le<std::uint32_t>(file.subspan<8, 4>());
    if (found != version) {
      return fail(Errc::unsupported, std::string(name) + ": version " + std::to_string(found));
    }
    auto const content = file.first(file.size() - sha256_size);
    if (!std::ranges::equal(digest_of(content).bytes(), file.last(sha256_size))) {
      return bad("not what was written");
    }
    return content;
  }

  /// To be returned in place of the file's contents.
  [[nodiscard]] tl::unexpected<Error> bad(std::string const& what) const {
    return fail(Errc::corrupt, std::string(name) + ": " + what);
  }
};

}  // namespace erofs_oci
