// SPDX-License-Identifier: Apache-2.0
/// @file
/// The indexes of a layer as one blob, for a registry.
///
/// A gzip member of the index file, the tarindex and the links file, one after another. The index
/// file begins with its own size and has the sizes and digests of the others, so nothing else is
/// needed to take them apart.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/image/index_store.hpp>
#include <erofs_oci/oci/descriptor.hpp>

namespace erofs_oci {

/// Packs the files. The same files give the same bytes, as long as zlib is the same.
/// @error{Errc::unsupported, they are larger than 2 GiB}
[[nodiscard]] Result<Bytes> pack_index(IndexFiles const& files);

/// Takes a packed index apart. Whether it tells the truth of its layer, only reading the layer
/// would show.
/// @param most  bytes of all files together
/// @error{Errc::corrupt, it is not what pack_index() makes}
/// @error{Errc::unsupported, the files are larger than `most`\, or of another version}
[[nodiscard]] Result<IndexFiles> unpack_index(std::span<std::byte const> packed,
                                              std::uint64_t most);

/// Opens the files that are said to be of a layer, as if they came from a store: unproved.
/// @error{Errc::mismatch, they are of another layer}
/// @error{Errc::corrupt\, Errc::digest_mismatch, they contradict themselves}
[[nodiscard]] Result<StoredLayer> open_index(IndexFiles files, Descriptor const& layer);

}  // namespace erofs_oci

#ifndef EROFS_OCI_COMPILED
#include <erofs_oci/image/detail/packed_index_body.hpp>
#endif
