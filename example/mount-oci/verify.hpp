// SPDX-License-Identifier: Apache-2.0
/// @file
/// Comparing an index with the layer that it is of.
#pragma once

#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include <erofs_oci/combinator/verified.hpp>
#include <erofs_oci/core/any_source.hpp>
#include <erofs_oci/core/memory_budget.hpp>
#include <erofs_oci/digest/digest.hpp>
#include <erofs_oci/image/index_store.hpp>
#include <erofs_oci/tarindex/layer.hpp>

#include "find_image.hpp"
#include "options.hpp"
#include "process.hpp"

namespace mount_oci {

/// An index as readers use it.
struct IndexToVerify {
  erofs_oci::AnySource tarindex;
  erofs_oci::AnySource contents;  ///< the decoded tar, by way of the checkpoints
  /// Hard links to files of lower layers; empty: not known, and not compared.
  std::optional<std::vector<erofs_oci::tarindex::DanglingLink>> links{};
  std::vector<erofs_oci::VerifiedChunk> pieces{};  ///< of the blob, with their digests
  /// For the files that the layer gives, and for those of the index.
  erofs_oci::MemoryBudget budget{};
};

/// A layer's index as the store or the registry has it. Borrows `index`.
/// @error{Errc::mismatch, the index is not for this layer}
[[nodiscard]] Result<IndexToVerify> index_to_verify(FoundLayer const& layer,
                                                    erofs_oci::StoredLayer const& index,
                                                    ImageOptions const& options);

/// What reading a layer to its end has shown.
struct LayerComparison {
  /// Where index and layer differ first; empty: the index says what the layer holds.
  std::optional<std::string> difference;
  /// Which piece of the blob first has not the digest that the index says. Such a piece, no read
  /// gets. Empty: all have.
  std::optional<std::string> wrong_piece;
  erofs_oci::Digest blob;      ///< of the blob's bytes
  erofs_oci::Digest contents;  ///< SHA-256 of the decoded bytes; zero if there is a difference
};

/// Reads a layer once more, front to back, decodes it by other means than its checkpoints, and
/// compares: each byte with what the index gives for its place, which Gzran decodes from the
/// checkpoint before it; each piece of the blob with its digest; and each file (type, attributes,
/// names, and where in the tar its content is) and each link to a lower layer with the tar's
/// members. An index may end with the last file's data, as one of a ztoc does. Decodes no more once
/// something differs. Blocks.
/// @param algorithm  of LayerComparison::blob
/// @error{as the blob says}
/// @error{Errc::unsupported, the files take more than the budget}
/// @error{as the index says, it cannot be read; that what it says is wrong is no error}
[[nodiscard]] Result<LayerComparison> compare_layer(erofs_oci::AnySource const& blob,
                                                    erofs_oci::DigestAlgorithm algorithm,
                                                    IndexToVerify const& index,
                                                    std::stop_token const& stop);

}  // namespace mount_oci
