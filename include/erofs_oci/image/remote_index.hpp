// SPDX-License-Identifier: Apache-2.0
/// @file
/// RemoteIndex: a layer's index from an artifact in the image's repository, if it may be taken.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include <erofs_oci/combinator/retry.hpp>
#include <erofs_oci/core/any_source.hpp>
#include <erofs_oci/core/clock.hpp>
#include <erofs_oci/core/memory_budget.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/digest/signature.hpp>
#include <erofs_oci/image/index_store.hpp>
#include <erofs_oci/image/index_use.hpp>
#include <erofs_oci/image/packed_index.hpp>
#include <erofs_oci/oci/cosign.hpp>
#include <erofs_oci/oci/descriptor.hpp>
#include <erofs_oci/oci/fetch_blob.hpp>
#include <erofs_oci/oci/image.hpp>
#include <erofs_oci/oci/index_artifact.hpp>
#include <erofs_oci/oci/registry.hpp>
#include <erofs_oci/source/http_transport.hpp>

namespace erofs_oci {

/// Whose word about a layer is taken.
struct IndexTrust {
  IndexUse use = IndexUse::bound;
  std::vector<PublicKey> keys{};  ///< of those who sign index artifacts
};

/// A layer's index from an artifact. Nobody has compared it with the layer.
struct RemoteIndex {
  IndexFiles files;
  Digest artifact;         ///< of its manifest
  bool is_signed = false;  ///< by one of IndexTrust::keys
};

/// Looks a layer up there; empty if it has none. What it takes is counted in `memory`.
using IndexLookup = std::function<Result<std::optional<RemoteIndex>>(
    Descriptor const& layer, std::shared_ptr<ImageMemory> const& memory)>;

/// The Merkle tree of an image from an artifact that one of IndexTrust::keys has signed. Nobody has
/// compared it with the image.
struct RemoteTree {
  ArtifactTree tree;
  AnySource file;   ///< as the registry sends it
  Digest artifact;  ///< of its manifest
};

/// Looks the tree up there; empty if it has none.
using TreeLookup = std::function<Result<std::optional<RemoteTree>>()>;

namespace detail {

/// Artifacts of an image that are looked at: anyone who may push to the repository can add some.
inline constexpr std::size_t most_artifacts = 16;

/// Looks for the image's index artifact when a layer is first asked for, once.
template <HttpTransport Transport, Clock Time>
struct ArtifactLookups {
  BasicRegistry<Transport, Time> registry;
  Digest image;
  std::vector<PublicKey> keys;
  bool unsigned_too;  // one without a signature is better than none
  std::once_flag once{};
  Result<std::optional<IndexArtifact>> artifact{};
  bool is_signed = false;
  std::mutex large{};

  Result<std::optional<RemoteIndex>> operator()(Descriptor const& layer,
                                                std::shared_ptr<ImageMemory> const& memory) {
    std::call_once(once, [this] { artifact = find(); });
    if (!artifact) return fail(artifact.error());
    auto const* const at = *artifact ? (*artifact)->index_of(layer.digest) : nullptr;
    if (at == nullptr) return std::optional<RemoteIndex>();
    auto const most = memory->budget().ztoc();
    std::unique_lock one_large(large, std::defer_lock);
    if (at->size > most / 8) one_large.lock();
    auto const name = "index " + at->digest.to_string();
    EROFS_OCI_TRY_ASSIGN(auto const packed, fetch_blob(registry, *at, most), name);
    memory->came(packed.size());
    EROFS_OCI_TRY_ASSIGN(auto files, unpack_index(packed, 2 * most), name);
    EROFS_OCI_TRY(memory->take_windows(files.index.size() + files.tarindex.size()), name);
    return std::optional(RemoteIndex{std::move(files), (*artifact)->digest, is_signed});
  }

  /// The artifact, if one of the keys has signed it.
  Result<std::optional<IndexArtifact>> signed_one() {
    std::call_once(once, [this] { artifact = find(); });
    return is_signed || !artifact ? artifact : Result<std::optional<IndexArtifact>>();
  }

 private:
  Result<std::optional<IndexArtifact>> find() {
    EROFS_OCI_TRY_ASSIGN(auto referrers, registry.referrers(image, index_artifact::type));
    std::optional<IndexArtifact> other;
    std::optional<Error> error;
    for (auto const& at : std::span(referrers).first(std::min(referrers.size(), most_artifacts))) {
      auto read = this->read(at);
      auto const good = read ? is_signed_by(at.digest) : Result<bool>(false);
      if (!read || !good) {
        error = read ? good.error() : read.error();
      } else if (*good) {
        is_signed = true;
        return std::optional(*std::move(read));
      } else if (unsigned_too && !other) {
        other = *std::move(read);
      }
    }
    if (!other && error) return fail(*std::move(error), "index artifact");
    return other;
  }

  [[nodiscard]] Result<bool> is_signed_by(Digest const& digest) const {
    return erofs_oci::is_signed(registry, digest, keys);
  }

  [[nodiscard]] Result<IndexArtifact> read(Descriptor const& at) const {
    EROFS_OCI_TRY_ASSIGN(auto const found, registry.document(at.digest.to_string(), at.size));
    auto const* const manifest = std::get_if<Manifest>(&found.document);
    if (manifest == nullptr) {
      return fail(Errc::mismatch, at.digest.to_string() + ": an index of images");
    }
    return read_index_artifact(*manifest, at.digest, image);
  }
};

/// @return empty: nothing there would be taken, so that nothing need be asked
template <HttpTransport Transport, Clock Time>
[[nodiscard]] IndexLookup artifact_lookup(BasicRegistry<Transport, Time> const& registry,
                                          Image const& image, IndexTrust const& trust) {
  auto const by_tag = !registry.reference().digest.has_value();
  auto const unsigned_too = trust.use == IndexUse::trusted && by_tag;
  if (trust.use == IndexUse::none || (trust.keys.empty() && !unsigned_too)) return {};
  auto const lookups = std::make_shared<ArtifactLookups<Transport, Time>>(registry, image.digest,
                                                                          trust.keys, unsigned_too);
  return [lookups](auto const& layer, auto const& memory) { return (*lookups)(layer, memory); };
}

/// @param backoff  how reads of the tree are tried again, with the registry's clock
/// @return empty: no tree there would be taken
template <HttpTransport Transport, Clock Time>
[[nodiscard]] TreeLookup tree_lookup(BasicRegistry<Transport, Time> const& registry,
                                     Image const& image, IndexTrust const& trust,
                                     Backoff const& backoff) {
  if (trust.use == IndexUse::none || trust.keys.empty()) return {};
  auto const lookups =
      std::make_shared<ArtifactLookups<Transport, Time>>(registry, image.digest, trust.keys, false);
  return [lookups, registry, backoff]() -> Result<std::optional<RemoteTree>> {
    EROFS_OCI_TRY_ASSIGN(auto const artifact, lookups->signed_one());
    if (!artifact || !artifact->tree) return std::optional<RemoteTree>();
    AnySource file(Retry(registry.blob(artifact->tree->at), backoff, registry.time()));
    return std::optional(RemoteTree{*artifact->tree, std::move(file), artifact->digest});
  };
}

}  // namespace detail
}  // namespace erofs_oci
