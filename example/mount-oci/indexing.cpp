// SPDX-License-Identifier: Apache-2.0
#include "indexing.hpp"

#include <cstddef>
#include <functional>
#include <optional>
#include <system_error>
#include <thread>
#include <utility>

#include <fcntl.h>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/source.hpp>
#include <erofs_oci/digest/sha256.hpp>
#include <erofs_oci/image/packed_index.hpp>
#include <erofs_oci/image/remote_index.hpp>
#include <erofs_oci/image/start_list.hpp>
#include <erofs_oci/oci/layout.hpp>
#include <erofs_oci/source/local.hpp>

#include "confine.hpp"
#include "progress.hpp"
#include "start_keeper.hpp"

namespace mount_oci {
namespace {

using erofs_oci::fail;
using erofs_oci::ImageMemory;
using erofs_oci::IndexStore;
using erofs_oci::StartList;
using erofs_oci::StoreLimit;

/// Where indexes go.
struct Stores {
  IndexStore const* kept = nullptr;  ///< for all mounts; null: nowhere
  IndexStore const* own = nullptr;   ///< for this mount alone; null: nowhere
};

using erofs_oci::StoredLayer;
using MaybeLayer = std::optional<StoredLayer>;

/// Who claims what an index from elsewhere says: the image, or a layer that is no image's.
std::optional<erofs_oci::Digest> claimant_of(FoundImage const& found) {
  if (found.digest || found.layers.empty()) return found.digest;
  return found.layers.front().descriptor.digest;
}

/// Whether a mount goes on that was not proved before it began.
bool may_have_begun_with_lies(ImageOptions const& options) {
  return options.opened_before && options.verify != Verify::before;
}

/// Where an index of a layer is looked for before the layer is read.
struct Elsewhere {
  FoundImage const& image;
  ImageOptions const& options;
  Stores const& stores;
  std::shared_ptr<ImageMemory> const& memory;
  erofs_oci::IndexLookup layout;  ///< of the layout of oci.index; empty: there is none
  Log const& log;

  /// The index of a layer that the store for all mounts does not have: from this mount's own store,
  /// from the directory or the layout of oci.index, from the image's index artifact, else from its
  /// SOCI index.
  /// One that is missing or unusable is no error: the layer is read instead. The store for all
  /// mounts takes an index only if the image's manifest names it or somebody has signed it, and as
  /// a claim of that image.
  [[nodiscard]] Result<MaybeLayer> find(erofs_oci::Descriptor const& layer) const {
    EROFS_OCI_TRY_ASSIGN(auto own, in_own_store(layer));
    if (own) return own;
    for (auto const look : {&Elsewhere::in_directory, &Elsewhere::in_layout,
                            &Elsewhere::in_artifact, &Elsewhere::in_soci}) {
      auto found = (this->*look)(layer);
      if (found && *found) return found;
      if (!found) log.say(Level::info, name_of(layer) + ": " + found.error().message());
    }
    return MaybeLayer();
  }

 private:
  /// One that lies is taken too: the mount has begun with it, unless it was to be proved before.
  [[nodiscard]] Result<MaybeLayer> in_own_store(erofs_oci::Descriptor const& layer) const {
    if (stores.own == nullptr) return MaybeLayer();
    using erofs_oci::Refuted;
    auto const began_proved = options.verify == Verify::before;
    auto const claimant = options.opened_before ? claimant_of(image) : claims_of(image, options);
    EROFS_OCI_TRY_ASSIGN(auto own,
                         stores.own->find_layer(layer.digest, claimant,
                                                began_proved ? Refuted::skipped : Refuted::taken));
    if (!own || (began_proved && is_refuted(layer, *own))) return MaybeLayer();
    clear_entry(*own);
    return own;
  }

  /// What is in this mount's own store has no entry in the store for all mounts.
  void clear_entry(StoredLayer& opened) const {
    if (stores.kept != nullptr) opened.entry.clear();
  }

  [[nodiscard]] static std::string name_of(erofs_oci::Descriptor const& layer) {
    return "layer " + layer.digest.to_string();
  }

  /// Keeps the files of an index as a claim of the image, if there is a store for it.
  /// @param trusted  whether the store for all mounts may have it
  void keep(bool trusted, erofs_oci::Descriptor const& layer, erofs_oci::IndexFiles const& files,
            StoredLayer& opened) const {
    auto const for_all = trusted && image.digest.has_value() && stores.kept != nullptr;
    auto const* const store = for_all ? stores.kept : stores.own;
    if (store == nullptr) return;
    auto const claimant = claimant_of(image);
    auto const put = [&]() -> Result<void> {
      EROFS_OCI_TRY(store->put_layer(layer.digest, files, claimant));
      if (opened.extra.empty()) return {};
      return store->put_checkpoints(IndexStore::entry_of(layer.digest, claimant), opened.extra);
    };
    auto const kept = put();
    if (!kept) {
      log.say(Level::warning,
              kept.error().message() + "; the index is used for this mount but not stored");
      return;
    }
    // From there, the kernel has its pages, and can give them up.
    auto found = store->find_layer(layer.digest, claimant);
    if (!found || !*found || (*found)->unproved != opened.unproved) return;
    opened = **std::move(found);
    if (!for_all) clear_entry(opened);
  }

  /// Whether it was found to lie, for a mount that has not begun with it.
  [[nodiscard]] bool is_refuted(erofs_oci::Descriptor const& layer,
                                StoredLayer const& opened) const {
    auto const* const store = stores.kept != nullptr ? stores.kept : stores.own;
    if (store == nullptr || may_have_begun_with_lies(options) || !opened.unproved) return false;
    auto const reason = store->find_refutation(layer.digest, *opened.unproved);
    if (!reason) return false;
    log.say(Level::warning, name_of(layer) +
                                ": an index is not used that was compared with the "
                                "layer before, and lies: " +
                                *reason);
    return true;
  }

  [[nodiscard]] Result<MaybeLayer> in_directory(erofs_oci::Descriptor const& layer) const {
    if (options.index_directory.empty()) return MaybeLayer();
    auto const path = options.index_directory + '/' + layer.digest.hex();
    auto const most = memory->budget().ztoc();
    auto const read = [&](char const* kind) -> Result<erofs_oci::Bytes> {
      EROFS_OCI_TRY_ASSIGN(auto const file, erofs_oci::Local::open(path + kind));
      if (file.size() > most) return fail(Errc::unsupported, path + kind + ": too large");
      erofs_oci::Bytes bytes(static_cast<std::size_t>(file.size()));
      EROFS_OCI_TRY(read_exact(file, 0, bytes), path + kind);
      return bytes;
    };
    auto index = read(".index");
    if (!index && index.error().code == std::errc::no_such_file_or_directory) return MaybeLayer();
    if (!index) return fail(std::move(index).error());
    erofs_oci::IndexFiles files{*std::move(index), {}, {}};
    EROFS_OCI_TRY_ASSIGN(files.tarindex, read(".erofs"));
    auto links = read(".links");
    if (links) files.links = *std::move(links);
    EROFS_OCI_TRY_ASSIGN(auto opened, erofs_oci::open_index(files, layer), path);
    if (is_refuted(layer, opened)) return MaybeLayer();
    log.say(Level::info, name_of(layer) + ": indexed by " + path + ".index");
    keep(false, layer, files, opened);
    return MaybeLayer(std::move(opened));
  }

  [[nodiscard]] Result<MaybeLayer> in_layout(erofs_oci::Descriptor const& layer) const {
    return from_artifact(layout, layer, "no index from " + options.index_layout);
  }

  [[nodiscard]] Result<MaybeLayer> in_artifact(erofs_oci::Descriptor const& layer) const {
    return from_artifact(image.index, layer, "no index from the registry");
  }

  [[nodiscard]] Result<MaybeLayer> from_artifact(erofs_oci::IndexLookup const& lookup,
                                                 erofs_oci::Descriptor const& layer,
                                                 std::string const& failure) const {
    if (!lookup) return MaybeLayer();
    EROFS_OCI_TRY_ASSIGN(auto found, lookup(layer, memory), failure);
    if (!found) return MaybeLayer();
    if (found->no_extra) log.say(Level::info, name_of(layer) + ": " + found->no_extra->message());
    auto const list = ask_for_list(found->start_list);  // ends before this function does
    EROFS_OCI_TRY_ASSIGN(auto opened, erofs_oci::open_index(found->files, layer),
                         "index artifact " + found->artifact.to_string());
    opened.extra = found->extra;
    if (is_refuted(layer, opened)) return MaybeLayer();
    log.say(found->is_signed ? Level::info : Level::notice,
            name_of(layer) + ": indexed by " + found->artifact.to_string() +
                (found->is_signed ? ", which is signed" : ", which nobody has signed"));
    keep(found->is_signed, layer, found->files, opened);
    return MaybeLayer(std::move(opened));
  }

  /// Has the image's start list fetched, if somebody wants it, while the index is looked at.
  [[nodiscard]] std::jthread ask_for_list(std::function<Result<StartList>()> const& fetch) const {
    if (!fetch || !options.starts) return {};
    auto const ask = [fetch, starts = options.starts] {
      starts->offer(erofs_oci::without_throwing(fetch));
    };
    auto beside = start_thread(ask);
    if (beside) return *std::move(beside);
    ask();
    return {};
  }

  [[nodiscard]] Result<MaybeLayer> in_soci(erofs_oci::Descriptor const& layer) const {
    if (!image.soci) return MaybeLayer();
    EROFS_OCI_TRY_ASSIGN(auto found, image.soci(layer, memory), "no SOCI index");
    if (!found) return MaybeLayer();
    auto const bound = found->bound && image.digest.has_value();
    auto const reports = std::move(found->built.layer.reports);
    EROFS_OCI_TRY_ASSIGN(auto const files, erofs_oci::index_files(found->built));
    EROFS_OCI_TRY_ASSIGN(auto opened, erofs_oci::opened_layer(std::move(found->built)));
    opened.unproved = erofs_oci::digest_of(files.index);
    if (is_refuted(layer, opened)) return MaybeLayer();
    log.say(bound ? Level::info : Level::notice,
            name_of(layer) + ": indexed by SOCI" +
                (bound ? "" : ", by an index that refers to the image"));
    for (auto const& report : reports.list()) {
      log.say(Level::warning, name_of(layer) + ": " + report.text);
    }
    keep(bound, layer, files, opened);
    return MaybeLayer(std::move(opened));
  }
};

/// What looks layers up in the layout of oci.index; empty: nothing does.
erofs_oci::IndexLookup layout_of(FoundImage const& found, ImageOptions const& options,
                                 Log const& log) {
  if (options.index_layout.empty() || !found.digest) return {};
  auto const layout = erofs_oci::Layout::open(options.index_layout);
  if (layout) return erofs_oci::layout_lookup(*layout, *found.digest, index_trust(options));
  log.say(Level::warning, "no index from oci:" + options.index_layout + ": " +
                              layout.error().message() + "; the registry is looked at instead");
  return {};
}

/// The store of this mount, if it is to have one.
Result<std::unique_ptr<IndexStore const>> open_own_store(ImageOptions const& options) {
  if (options.own_store.empty()) return std::unique_ptr<IndexStore const>();
  // It is beside the record, in /run: memory that services need to start.
  EROFS_OCI_TRY_ASSIGN(auto store,
                       open_store_at(options.own_store, {.bytes = std::uint64_t{64} << 20,
                                                         .full = StoreLimit::Full::refuse}));
  return std::make_unique<IndexStore const>(std::move(store));
}

}  // namespace

erofs_oci::IndexOptions IndexedImage::options(Log const& log) const {
  return {.store = store.get(), .memory = memory, .warn = [&log](std::string const& text) {
            log.say(Level::warning, text);
          }};
}

Result<std::string> store_path(ImageOptions const& options) {
  if (options.store == "none") return fail(Errc::not_found, "index store: none");
  if (!options.store.empty()) return options.store;
  return options.usual_store.empty() ? IndexStore::default_path() : options.usual_store;
}

Result<IndexStore> open_store_at(std::string const& path, StoreLimit limit) {
  return IndexStore::open(path, limit, store_owner(path));
}

HeldStore::HeldStore(std::string const& path)
    : directory_(::open(path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC)) {}

Result<IndexStore> HeldStore::open() const {
  return open_store_at("/proc/self/fd/" + std::to_string(directory_.get()));
}

Result<std::unique_ptr<IndexStore const>> open_store(ImageOptions const& options, Log const& log) {
  if (options.store == "none") return std::unique_ptr<IndexStore const>();
  auto store = store_path(options).and_then([](auto const& path) { return open_store_at(path); });
  if (store) return std::make_unique<IndexStore const>(*std::move(store));
  if (!options.store.empty()) return fail(store.error(), "oci.store");
  log.say(Level::warning,
          "index store unavailable, indexes will not be stored: " + store.error().message());
  return std::unique_ptr<IndexStore const>();
}

std::optional<erofs_oci::Digest> claims_of(FoundImage const& found, ImageOptions const& options) {
  auto const takes = options.index != IndexUse::none || !options.index_directory.empty();
  return takes ? claimant_of(found) : std::nullopt;
}

Result<IndexedImage> index_image(FoundImage& found, ImageOptions const& options, Log const& log,
                                 ExitOnSignal const* guard) {
  IndexedImage result;
  result.memory = std::make_shared<ImageMemory>(options.budget());
  EROFS_OCI_TRY_ASSIGN(result.store, open_store(options, log));
  EROFS_OCI_TRY_ASSIGN(auto own, open_own_store(options));
  Stores const stores{result.store.get(), own.get()};
  if (!result.store) result.store = std::move(own);
  EROFS_OCI_TRY(erofs_oci::find_digests(found));

  auto index = result.options(log);
  index.claims_of = claims_of(found, options);
  if (may_have_begun_with_lies(options)) index.refuted = erofs_oci::Refuted::taken;
  index.max_decoded = options.index_size;
  index.max_time = options.index_time;
  std::size_t layers = 0;
  std::uint64_t bytes = 0;
  for (auto const& layer : found.layers) {
    auto const* const known = index.store;
    if (known != nullptr && known->holds_layer(layer.descriptor.digest, index.claims_of)) continue;
    ++layers;
    bytes += layer.blob.size();
  }
  Progress progress(log, layers, bytes);
  index.parallel = options.connections;
  index.progress = [&](auto const& layer) { progress.update(layer); };
  index.warn = [&](std::string const& text) { progress.warn(text); };
  Elsewhere const elsewhere{found, options, stores, result.memory, layout_of(found, options, log),
                            log};
  index.elsewhere = [&](auto const& layer) { return elsewhere.find(layer.descriptor); };
  std::optional<ExitOnSignal::Pause> pause;
  if (guard != nullptr) {
    pause.emplace(*guard);
    index.stop = guard->stop_token();
  }
  EROFS_OCI_TRY_ASSIGN(result.indexes,
                       erofs_oci::index_layers(found.image_layers(), std::move(index)));
  return result;
}

}  // namespace mount_oci
