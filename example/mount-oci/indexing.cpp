// SPDX-License-Identifier: Apache-2.0
#include "indexing.hpp"

#include <optional>
#include <utility>

#include <erofs_oci/core/source.hpp>
#include <erofs_oci/digest/sha256.hpp>

#include "progress.hpp"

namespace mount_oci {
namespace {

using erofs_oci::fail;
using erofs_oci::IndexStore;

/// A file has no name by its content yet.
Result<void> find_digests(FoundImage& found) {
  for (auto& layer : found.layers) {
    if (layer.descriptor.digest != erofs_oci::Digest()) continue;
    erofs_oci::Sha256 hash;
    auto const ok = stream(layer.blob, 0, layer.blob.size(), [&](std::span<std::byte const> piece) {
      hash.update(piece);
      return true;
    });
    if (!ok) return fail(ok.error());
    layer.descriptor.digest = hash.finish();
  }
  return {};
}

/// Where indexes go.
struct Stores {
  IndexStore const* kept = nullptr;  ///< for all mounts; null: nowhere
  IndexStore const* own = nullptr;   ///< for this mount alone; null: nowhere
};

/// The layer's indexes from a SOCI index. One that is missing or of no use is no error: the layer
/// is read instead. Kept for others is only what the image itself vouches for.
Result<std::optional<erofs_oci::StoredLayer>> from_soci(SociLookup const& soci,
                                                        erofs_oci::Descriptor const& layer,
                                                        Stores const& stores, Log const& log) {
  auto found = soci(layer);
  auto const name = "layer " + layer.digest.to_string();
  if (!found) {
    log.say(Level::info, name + ": no SOCI index: " + found.error().message());
    return std::optional<erofs_oci::StoredLayer>();
  }
  if (!*found) return std::optional<erofs_oci::StoredLayer>();
  log.say(Level::info, name + ": indexed by SOCI");
  auto const* const store = (**found).bound ? stores.kept : stores.own;
  if (store != nullptr) {
    auto const kept = store->put_layer(layer.digest, (**found).built);
    if (!kept) log.say(Level::warning, kept.error().message() + "; the index is used, not kept");
  }
  auto opened = erofs_oci::opened_layer((**std::move(found)).built);
  if (!opened) return fail(std::move(opened).error());
  return std::optional(*std::move(opened));
}

/// What is asked for a layer that the store does not have.
Result<std::optional<erofs_oci::StoredLayer>> from_elsewhere(SociLookup const& soci,
                                                             erofs_oci::Descriptor const& layer,
                                                             Stores const& stores, Log const& log) {
  if (stores.own != nullptr) {
    auto own = stores.own->find_layer(layer.digest);
    if (!own || *own) return own;
  }
  if (!soci) return std::optional<erofs_oci::StoredLayer>();
  return from_soci(soci, layer, stores, log);
}

/// The store of this mount, if it is to have one.
Result<std::unique_ptr<IndexStore const>> open_own_store(ImageOptions const& options) {
  if (options.own_store.empty()) return std::unique_ptr<IndexStore const>();
  auto store = IndexStore::open(options.own_store);
  if (!store) return fail(std::move(store).error());
  return std::make_unique<IndexStore const>(*std::move(store));
}

}  // namespace

erofs_oci::IndexOptions IndexedImage::options(Log const& log) const {
  erofs_oci::IndexOptions result;
  result.store = store.get();
  result.warn = [&log](std::string const& text) { log.say(Level::warning, text); };
  return result;
}

Result<std::unique_ptr<IndexStore const>> open_store(ImageOptions const& options, Log const& log) {
  if (options.store == "none") return std::unique_ptr<IndexStore const>();
  auto path =
      options.store.empty() ? IndexStore::default_path() : Result<std::string>(options.store);
  auto store = path ? IndexStore::open(*path) : Result<IndexStore>(fail(path.error()));
  if (store) return std::make_unique<IndexStore const>(*std::move(store));
  if (!options.store.empty()) return fail(store.error(), "oci.store");
  log.say(Level::warning, "indexes are not kept: " + store.error().message());
  return std::unique_ptr<IndexStore const>();
}

Result<IndexedImage> index_image(FoundImage& found, ImageOptions const& options, Log const& log,
                                 ExitOnSignal const* guard) {
  IndexedImage result;
  auto store = open_store(options, log);
  if (!store) return fail(std::move(store).error());
  result.store = *std::move(store);
  auto own = open_own_store(options);
  if (!own) return fail(std::move(own).error());
  if (!result.store) result.store = *std::move(own);
  Stores const stores{result.store.get(), own->get()};
  if (auto const ok = find_digests(found); !ok) return fail(ok.error());

  std::size_t layers = 0;
  std::uint64_t bytes = 0;
  for (auto const& layer : found.layers) {
    if (result.store && result.store->holds_layer(layer.descriptor.digest)) continue;
    ++layers;
    bytes += layer.blob.size();
  }
  Progress progress(log, layers, bytes);
  auto index = result.options(log);
  index.parallel = options.connections;
  index.progress = [&](auto const& layer) { progress.update(layer); };
  index.warn = [&](std::string const& text) { progress.warn(text); };
  if (found.soci || stores.own != nullptr) {
    index.elsewhere = [&](erofs_oci::ImageLayer const& layer) {
      return from_elsewhere(found.soci, layer.descriptor, stores, log);
    };
  }
  std::optional<ExitOnSignal::Pause> pause;
  if (guard != nullptr) {
    pause.emplace(*guard);
    index.stop = guard->stop_token();
  }
  auto indexes = erofs_oci::index_layers(found.image_layers(), std::move(index));
  if (!indexes) return fail(std::move(indexes).error());
  result.indexes = *std::move(indexes);
  return result;
}

}  // namespace mount_oci
