// SPDX-License-Identifier: Apache-2.0
/// @file
/// fetch_blob: a small blob of a registry in memory, checked.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/clock.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/core/source.hpp>
#include <erofs_oci/digest/sha256.hpp>
#include <erofs_oci/oci/descriptor.hpp>
#include <erofs_oci/oci/layout.hpp>
#include <erofs_oci/oci/registry.hpp>
#include <erofs_oci/source/http_transport.hpp>

namespace erofs_oci {

namespace detail {

/// @param open  `() -> Result<source>`: of the blob
template <class Open>
[[nodiscard]] Result<Bytes> checked_blob(Descriptor const& at, std::uint64_t most,
                                         Open const& open) {
  if (at.size > most) {
    return fail(Errc::unsupported,
                std::to_string(at.size) + " bytes, more than " + std::to_string(most));
  }
  EROFS_OCI_TRY_ASSIGN(auto const blob, open());
  Bytes bytes;
  auto const keep = [&bytes](std::span<std::byte const> piece) {
    bytes.insert(bytes.end(), piece.begin(), piece.end());
    return true;
  };
  EROFS_OCI_TRY(stream(blob, 0, at.size, keep));
  if (bytes.size() != at.size) return fail(Errc::truncated, "");
  if (digest_of(bytes, at.digest.algorithm()) != at.digest) {
    return fail(Errc::digest_mismatch, "its bytes are something else");
  }
  return bytes;
}

}  // namespace detail

/// All bytes of a blob, checked against its descriptor. One request; memory is taken as bytes come.
/// @param most  larger ones are refused without a request
/// @error{Errc::unsupported, it is larger than `most`}
/// @error{Errc::digest_mismatch, the bytes are not those that the digest names}
/// @error{as BasicOciBlob::read_at(), as it says}
template <HttpTransport Transport, Clock Time>
[[nodiscard]] Result<Bytes> fetch_blob(BasicRegistry<Transport, Time> const& registry,
                                       Descriptor const& at, std::uint64_t most) {
  using Blob = typename BasicRegistry<Transport, Time>::Blob;
  return detail::checked_blob(at, most, [&]() -> Result<Blob> { return registry.blob(at); });
}

/// The same from an OCI layout.
/// @error{as Layout::blob(), as there}
[[nodiscard]] inline Result<Bytes> fetch_blob(Layout const& layout, Descriptor const& at,
                                              std::uint64_t most) {
  return detail::checked_blob(at, most, [&] { return layout.blob(at); });
}

}  // namespace erofs_oci
