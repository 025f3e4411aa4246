// SPDX-License-Identifier: Apache-2.0
#include "layer_cache.hpp"

#include <algorithm>
#include <string_view>
#include <utility>

#include <erofs_oci/cache/disk_cached.hpp>
#include <erofs_oci/cache/not_fetched.hpp>
#include <erofs_oci/combinator/ref.hpp>
#include <erofs_oci/combinator/verified.hpp>
#include <erofs_oci/core/any_source.hpp>
#include <erofs_oci/digest/digest.hpp>
#include <erofs_oci/digest/sha256.hpp>
#include <erofs_oci/image/index_store.hpp>
#include <erofs_oci/oci/index_artifact.hpp>

#include "confine.hpp"

namespace mount_oci {
namespace {

using erofs_oci::AnySource;
using erofs_oci::BlobName;
using erofs_oci::CachedBlob;
using erofs_oci::Digest;
using erofs_oci::DigestAlgorithm;
using erofs_oci::DocumentStore;
using erofs_oci::fail;
using erofs_oci::LocalDocument;
using erofs_oci::Shared;
using MaybeDocument = std::optional<LocalDocument>;

using SharedBlob = Shared<AnySource>;

constexpr std::uint64_t most_config = 16 << 20;  // bytes; each read takes so much memory

SharedBlob through_cache(SharedBlob const& blob, CachedBlob const& kept) {
  return SharedBlob(AnySource(erofs_oci::DiskCached<SharedBlob>(blob, kept)));
}

/// A configuration has no index that would find wrong bytes: all of it is compared with its digest.
void keep_config(SharedBlob& config, CachedBlob const& kept) {
  auto const& [digest, size] = kept.name();
  using Checked = erofs_oci::Verified<SharedBlob, erofs_oci::Sha256>;
  if (size == 0 || size > most_config || digest.algorithm() != DigestAlgorithm::sha256) return;
  auto checked = Checked::make(through_cache(config, kept), {{0, size, digest}});
  if (checked) config = SharedBlob(AnySource(*std::move(checked)));
}

/// Whether its bytes have a name by which they can be kept, and come from far away.
bool can_keep(SharedBlob const& blob, Digest const& digest) {
  return digest != Digest() && is_remote(blob) && blob.size() <= BlobName::largest;
}

/// What a registry may know of that refers to a manifest, of one type or, if that is empty, any.
std::string referrers_name(std::string const& repository, Digest const& subject,
                           std::string_view type) {
  return repository + "@" + subject.to_string() + " " + std::string(type);
}

/// What is kept of the documents of one repository.
struct RepositoryDocuments {
  std::shared_ptr<DocumentStore const> store;  // null: nothing
  std::string repository;
  Pull pull;
  bool asks_anew;
  Log const* log;

  [[nodiscard]] std::string tag(std::string const& name) const { return repository + ":" + name; }

  [[nodiscard]] MaybeDocument by_digest(Digest const& digest) const {
    auto kept = store ? store->find(digest) : std::nullopt;
    if (!kept) return std::nullopt;
    return LocalDocument{digest, std::move(kept->media_type), std::move(kept->body)};
  }

  [[nodiscard]] MaybeDocument by_tag(std::string const& name) const {
    auto const digest = store ? store->find_tag(tag(name)) : std::nullopt;
    return digest ? by_digest(*digest) : std::nullopt;
  }

  [[nodiscard]] Result<MaybeDocument> find(std::string const& target) const {
    auto const digest = Digest::parse(target);
    if (!digest && pull == Pull::always) return MaybeDocument();
    auto kept = digest ? by_digest(*digest) : by_tag(target);
    if (kept || pull != Pull::never) return kept;
    return fail(Errc::not_found, (digest ? repository + "@" + target : tag(target)) +
                                     " is not kept on this machine, and oci.pull=never forbids to "
                                     "ask the registry: `mount-oci pull` gets it");
  }

  [[nodiscard]] MaybeDocument instead(std::string const& target, Error const& why) const {
    if (!is_transient(why) || Digest::parse(target)) return std::nullopt;
    auto kept = by_tag(target);
    if (kept) {
      log->say(Level::notice, "the registry cannot be asked what " + tag(target) + " is now (" +
                                  why.message() + "): what it was last is used, " +
                                  kept->digest.to_string());
    }
    return kept;
  }

  [[nodiscard]] bool none_refers(Digest const& subject, std::string_view type) const {
    if (pull == Pull::never) return true;
    return store && !asks_anew && store->is_absent(referrers_name(repository, subject, type));
  }

  void keep_none(Digest const& subject, std::string_view type) const {
    if (!store) return;
    auto const kept = store->put_absent(referrers_name(repository, subject, type));
    if (!kept)
      log->say(Level::debug, "that there is no index is not kept: " + kept.error().message());
  }

  void keep(std::string const& target, LocalDocument const& sent) const {
    if (!store) return;
    auto kept = store->put(sent.digest, sent.media_type, sent.body);
    if (kept && !Digest::parse(target)) kept = store->put_tag(tag(target), sent.digest);
    if (!kept) log->say(Level::info, "manifest not kept: " + kept.error().message());
  }
};

}  // namespace

Result<std::string> cache_path(ImageOptions const& options) {
  auto const& named = options.cache_dir.empty() ? options.store : options.cache_dir;
  if (named == "none") return fail(Errc::not_found, "layer cache: none");
  if (!named.empty()) return named;
  if (::geteuid() == 0) return std::string("/var/cache/erofs_oci");
  return erofs_oci::IndexStore::default_path();
}

std::shared_ptr<LayerCache> layer_cache_of(ImageOptions const& options) {
  return options.layer_cache ? options.layer_cache : std::make_shared<LayerCache>(options);
}

LayerCache::Opened LayerCache::open(Log const& log) {
  std::lock_guard const lock(mutex_);
  if (std::exchange(tried_, true) || path_.empty()) return opened_;
  auto const owner = store_owner(path_);
  auto blobs = erofs_oci::BlobCache::open(path_, {.limit = limit_, .owner = owner});
  auto documents = DocumentStore::open(path_, owner);
  if (blobs) opened_.blobs = *std::move(blobs);
  if (documents) opened_.documents = *std::move(documents);
  if (!opened_.blobs) {
    log.say(named_ ? Level::warning : Level::info,
            "nothing of the registry is kept on disk: " + blobs.error().message());
  }
  return opened_;
}

std::shared_ptr<erofs_oci::BlobCache const> LayerCache::blobs(Log const& log) {
  return open(log).blobs;
}

void LayerCache::keep(erofs_oci::FoundImage& found, Log const& log) {
  auto const blobs = open(log).blobs;
  std::vector<CachedBlob> layers;
  if (blobs) {
    for (auto& layer : found.layers) {
      auto const& digest = layer.descriptor.digest;
      if (!can_keep(layer.blob, digest)) continue;
      layers.emplace_back(blobs, BlobName{digest, layer.blob.size()});
      layer.blob = through_cache(layer.blob, layers.back());
    }
    if (found.config && found.config_at && can_keep(*found.config, found.config_at->digest)) {
      BlobName const name{found.config_at->digest, found.config->size()};
      keep_config(*found.config, CachedBlob(blobs, name));
    }
  }
  std::lock_guard const lock(mutex_);
  layers_ = std::move(layers);
  changed_ = true;
  count_at_ = {};
}

erofs_oci::LocalDocuments LayerCache::documents(erofs_oci::Reference const& reference, Pull pull,
                                                Log const& log) {
  auto const documents = std::make_shared<RepositoryDocuments const>(
      RepositoryDocuments{open(log).documents, reference.registry + "/" + reference.repository,
                          pull, asks_anew_, &log});
  return {
      [documents](auto const& target) { return documents->find(target); },
      [documents](auto const& target, auto const& why) { return documents->instead(target, why); },
      [documents](auto const& target, auto const& sent) { documents->keep(target, sent); },
      [documents](auto const& subject, auto type) { return documents->none_refers(subject, type); },
      [documents](auto const& subject, auto type) { documents->keep_none(subject, type); }};
}

void LayerCache::note_referrer(erofs_oci::Reference const& repository, Digest const& subject,
                               Log const& log) {
  auto const documents = open(log).documents;
  if (!documents) return;
  auto const name = repository.registry + "/" + repository.repository;
  for (auto const type : {std::string_view(), erofs_oci::index_artifact::type}) {
    documents->forget_absent(referrers_name(name, subject, type));
  }
}

std::uint64_t LayerCache::kept(erofs_oci::FoundLayer const& layer) {
  std::lock_guard const lock(mutex_);
  BlobName const name{layer.descriptor.digest, layer.blob.size()};
  auto const found = std::ranges::find(layers_, name, &CachedBlob::name);
  return found == layers_.end() ? 0 : found->kept();
}

bool LayerCache::has_all(erofs_oci::FoundLayer const& layer) {
  std::lock_guard const lock(mutex_);
  BlobName const name{layer.descriptor.digest, layer.blob.size()};
  auto const found = std::ranges::find(layers_, name, &CachedBlob::name);
  return found != layers_.end() && found->kept() == name.size;
}

Result<void> LayerCache::check_kept(erofs_oci::FoundImage const& found) {
  for (auto const& layer : found.layers) {
    if (has_all(layer)) continue;
    return fail(Errc::not_found,
                layer_name(layer.number, layer.descriptor) +
                    " is not kept on this machine in full, and oci.pull=never forbids to fetch "
                    "it: `mount-oci pull` does");
  }
  return {};
}

std::optional<AnySource> LayerCache::kept(BlobName const& name, Log const& log) {
  auto const blobs = open(log).blobs;
  if (!blobs) return std::nullopt;
  return AnySource(erofs_oci::DiskCached(erofs_oci::NotFetched(name), CachedBlob(blobs, name)));
}

DiskUse LayerCache::use() {
  std::lock_guard const lock(mutex_);
  if (!opened_.blobs) return {};
  auto const counts = opened_.blobs->counts();
  auto const was_read = use_.hits != counts.hits || use_.misses != counts.misses;
  use_.hits = counts.hits;
  use_.hit_bytes = counts.hit_bytes;
  use_.misses = counts.misses;
  use_.miss_bytes = counts.missed_bytes;
  changed_ = changed_ || was_read;
  auto const now = std::chrono::steady_clock::now();
  if (!changed_ || now < count_at_) return use_;
  changed_ = false;
  count_at_ = now + std::chrono::seconds(5);
  use_.kept = use_.total = 0;
  for (auto const& layer : layers_) {
    use_.kept += layer.kept();
    use_.total += layer.name().size;
  }
  return use_;
}

}  // namespace mount_oci
