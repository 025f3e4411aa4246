// SPDX-License-Identifier: Apache-2.0
/// @file
/// RemoteIndex: a layer's index from an artifact in the image's repository, if it may be taken.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <variant>
#include <vector>

#include <erofs_oci/combinator/retry.hpp>
#include <erofs_oci/core/any_source.hpp>
#include <erofs_oci/core/clock.hpp>
#include <erofs_oci/core/memory_budget.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/digest/signature.hpp>
#include <erofs_oci/gzip/extra_checkpoints.hpp>
#include <erofs_oci/image/checkpoints_file.hpp>
#include <erofs_oci/image/index_store.hpp>
#include <erofs_oci/image/index_use.hpp>
#include <erofs_oci/image/packed_index.hpp>
#include <erofs_oci/image/start_list.hpp>
#include <erofs_oci/oci/cosign.hpp>
#include <erofs_oci/oci/descriptor.hpp>
#include <erofs_oci/oci/fetch_blob.hpp>
#include <erofs_oci/oci/image.hpp>
#include <erofs_oci/oci/index_artifact.hpp>
#include <erofs_oci/oci/layout.hpp>
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
  /// Of the layer, from the same artifact: they say what bytes decode to, as the index does, and
  /// count as much as it and no longer. Empty: none came with it.
  ExtraCheckpoints extra{};
  std::optional<Error> no_extra{};  ///< why there are none, although the artifact names some
  /// Fetches the start list of the image, from the same artifact: advice, which proves nothing. One
  /// request. Empty: none is named, or it has been given with another layer's index.
  std::function<Result<StartList>()> start_list{};
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

/// What both yield. The first one runs in a thread of its own: each waits for the registry.
template <class First, class Second>
[[nodiscard]] auto at_once(First const& first, Second const& second)
    -> std::pair<decltype(first()), decltype(second())> {
  decltype(first()) found{};
  auto const run = [&] { found = without_throwing(first); };
  std::jthread beside;
  auto const started = without_throwing([&]() -> Result<void> {
    beside = std::jthread(run);
    return {};
  });
  if (!started) run();
  auto other = second();
  if (beside.joinable()) beside.join();
  return {std::move(found), std::move(other)};
}

/// Looks for the image's index artifact when a layer or the Merkle tree is first asked for, once.
/// @tparam Repository  a BasicRegistry, or a Layout
template <class Repository>
struct ArtifactLookups {
  Repository repository;
  Digest image;
  std::vector<PublicKey> keys;
  bool unsigned_too;  // one without a signature is better than none
  std::once_flag once{};
  Result<std::optional<IndexArtifact>> artifact{};
  std::optional<Error> unknown{};  // why it is not known whether there is another one
  bool is_signed = false;
  std::atomic<bool> list_told{false};
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
    auto [extra, packed] = at_once([&] { return extra_of(layer.digest); },
                                   [&] { return fetch_blob(repository, *at, most); });
    if (!packed) return fail(std::move(packed).error(), name);
    memory->came(packed->size());
    EROFS_OCI_TRY_ASSIGN(auto files, unpack_index(*packed, 2 * most), name);
    EROFS_OCI_TRY(memory->take_windows(files.index.size() + files.tarindex.size()), name);
    RemoteIndex found{std::move(files), (*artifact)->digest, is_signed};
    if (extra) found.extra = *std::move(extra);
    if (!extra) found.no_extra = make_error(extra.error(), "extra checkpoints");
    found.start_list = start_list();
    return std::optional(std::move(found));
  }

  /// The artifact, if one of the keys has signed it.
  Result<std::optional<IndexArtifact>> signed_one() {
    std::call_once(once, [this] { artifact = find(); });
    if (is_signed || !artifact) return artifact;
    if (unknown) return fail(*unknown);
    return std::optional<IndexArtifact>();
  }

 private:
  /// What makes the start fast: an index without it is as right as with it.
  [[nodiscard]] Result<ExtraCheckpoints> extra_of(Digest const& layer) const {
    auto const* const at = (*artifact)->checkpoints_of(layer);
    if (at == nullptr) return ExtraCheckpoints();
    return part(repository, *at, max_checkpoints_file_size, decode_checkpoints);
  }

  /// RemoteIndex::start_list, once.
  [[nodiscard]] std::function<Result<StartList>()> start_list() {
    auto const& list = (*artifact)->start_list;
    if (!list || list_told.exchange(true)) return {};
    return [from = repository, at = *list] {
      return part(from, at, StartList::most_file_bytes, StartList::decode);
    };
  }

  template <class T>
  [[nodiscard]] static Result<T> part(Repository const& from, Descriptor const& at,
                                      std::uint64_t most,
                                      Result<T> (*decode)(std::span<std::byte const>)) {
    auto const name = at.digest.to_string();
    EROFS_OCI_TRY_ASSIGN(auto const bytes, fetch_blob(from, at, most), name);
    EROFS_OCI_TRY_ASSIGN(auto decoded, decode(bytes), name);
    return decoded;
  }

  Result<std::optional<IndexArtifact>> find() {
    EROFS_OCI_TRY_ASSIGN(auto referrers, repository.referrers(image, index_artifact::type));
    std::optional<IndexArtifact> other;
    for (auto const& at : std::span(referrers).first(std::min(referrers.size(), most_artifacts))) {
      auto [good, read] =
          at_once([&] { return is_signed_by(at.digest); }, [&] { return this->read(at); });
      if (!read || !good) {
        unknown = make_error(read ? good.error() : read.error(), "index artifact");
      } else if (*good) {
        is_signed = true;
        return std::optional(*std::move(read));
      } else if (unsigned_too && !other) {
        other = *std::move(read);
      }
    }
    if (!other && unknown) return fail(*unknown);
    return other;
  }

  [[nodiscard]] Result<bool> is_signed_by(Digest const& digest) const {
    return erofs_oci::is_signed(repository, digest, keys);
  }

  [[nodiscard]] Result<IndexArtifact> read(Descriptor const& at) const {
    EROFS_OCI_TRY_ASSIGN(auto const found, repository.document(at.digest.to_string(), at.size));
    auto const* const manifest = std::get_if<Manifest>(&found.document);
    if (manifest == nullptr) {
      return fail(Errc::mismatch, at.digest.to_string() + ": an index of images");
    }
    return read_index_artifact(*manifest, at.digest, image);
  }
};

template <class Repository>
[[nodiscard]] IndexLookup index_lookup(
    std::shared_ptr<ArtifactLookups<Repository>> const& lookups) {
  return [lookups](auto const& layer, auto const& memory) { return (*lookups)(layer, memory); };
}

/// What is looked up in the index artifacts of an image in a registry; empty: nothing there would
/// be taken, so that nothing need be asked.
struct RegistryLookups {
  IndexLookup index;
  TreeLookup tree;
};

/// @param backoff  how reads of the tree are tried again, with the registry's clock
template <HttpTransport Transport, Clock Time>
[[nodiscard]] RegistryLookups registry_lookups(BasicRegistry<Transport, Time> const& registry,
                                               Image const& image, IndexTrust const& trust,
                                               Backoff const& backoff) {
  auto const by_tag = !registry.reference().digest.has_value();
  auto const unsigned_too = trust.use == IndexUse::trusted && by_tag;
  if (trust.use == IndexUse::none || (trust.keys.empty() && !unsigned_too)) return {};
  auto const lookups = std::make_shared<ArtifactLookups<BasicRegistry<Transport, Time>>>(
      registry, image.digest, trust.keys, unsigned_too);
  if (trust.keys.empty()) return {index_lookup(lookups), {}};
  auto tree = [lookups, backoff]() -> Result<std::optional<RemoteTree>> {
    EROFS_OCI_TRY_ASSIGN(auto const artifact, lookups->signed_one());
    if (!artifact || !artifact->tree) return std::optional<RemoteTree>();
    auto const& from = lookups->repository;
    AnySource file(Retry(from.blob(artifact->tree->at), backoff, from.time()));
    return std::optional(RemoteTree{*artifact->tree, std::move(file), artifact->digest});
  };
  return {index_lookup(lookups), std::move(tree)};
}

}  // namespace detail

/// Looks layers up in the index artifacts of an OCI layout on this machine. Who names a layout asks
/// for it: an artifact that nobody has signed counts unless `trust.use` is `by_key`; one that a key
/// has signed counts more. Nothing with `none`.
/// @param image  the digest of the image's manifest, which need not be in the layout
/// @return empty: nothing there would be taken
[[nodiscard]] inline IndexLookup layout_lookup(Layout const& layout, Digest const& image,
                                               IndexTrust const& trust) {
  auto const unsigned_too = trust.use != IndexUse::by_key;
  if (trust.use == IndexUse::none || (trust.keys.empty() && !unsigned_too)) return {};
  return detail::index_lookup(
      std::make_shared<detail::ArtifactLookups<Layout>>(layout, image, trust.keys, unsigned_too));
}
}  // namespace erofs_oci
