// SPDX-License-Identifier: Apache-2.0
/// @file
/// digest_of_source(): the digest of bytes of a source. If you include this file, you link
/// libcrypto.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include <erofs_oci/core/result.hpp>
#include <erofs_oci/core/source.hpp>
#include <erofs_oci/digest/digest.hpp>
#include <erofs_oci/digest/sha256.hpp>

namespace erofs_oci {

/// The digest of `length` bytes of a source from `offset` on, or of those that there are up to its
/// end. Reads them once, in a stream; blocks as the source does.
/// @error{as the source, as it says}
template <RandomAccessSource Source>
[[nodiscard]] Result<Digest> digest_of_source(Source const& source, std::uint64_t offset,
                                              std::uint64_t length,
                                              DigestAlgorithm algorithm = DigestAlgorithm::sha256) {
  Hasher hash(algorithm);
  EROFS_OCI_TRY(stream(source, offset, length, [&](std::span<std::byte const> piece) {
    hash.update(piece);
    return true;
  }));
  return hash.finish();
}

/// The same of all its bytes.
/// @error{as the source, as it says}
template <RandomAccessSource Source>
[[nodiscard]] Result<Digest> digest_of_source(Source const& source,
                                              DigestAlgorithm algorithm = DigestAlgorithm::sha256) {
  return digest_of_source(source, 0, source.size(), algorithm);
}

}  // namespace erofs_oci
