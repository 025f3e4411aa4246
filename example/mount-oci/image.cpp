// SPDX-License-Identifier: Apache-2.0
#include "image.hpp"

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <memory>
#include <optional>
#include <stop_token>
#include <system_error>
#include <utility>

#include <erofs_oci/combinator/proof.hpp>
#include <erofs_oci/combinator/proved.hpp>
#include <erofs_oci/combinator/ref.hpp>
#include <erofs_oci/combinator/stop_at_end.hpp>
#include <erofs_oci/core/any_source.hpp>
#include <erofs_oci/erofs/fsck.hpp>
#include <erofs_oci/image/open_layers.hpp>
#include <erofs_oci/source/local.hpp>

#include "indexing.hpp"
#include "layer_proof.hpp"
#include "merkle_tree.hpp"
#include "mount_report.hpp"
#include "progress.hpp"

namespace mount_oci {
namespace {

using erofs_oci::AnySource;
using erofs_oci::DeviceImage;
using erofs_oci::Digest;
using erofs_oci::fail;
using erofs_oci::Local;

Result<AnySource> open_file(std::string const& path) {
  return Local::open(path).map([](Local file) { return AnySource(std::move(file)); });
}

/// What an index store that is there knows of a blob from having read it.
std::optional<erofs_oci::StoredLayer> known_layer(Digest const& blob, ImageOptions const& options) {
  std::error_code ignored;
  auto const path = store_path(options);
  if (!path || !std::filesystem::exists(*path, ignored)) return std::nullopt;
  auto found = open_store_at(*path).and_then(
      [&](erofs_oci::IndexStore const& store) { return store.find_layer(blob); });
  return found ? *std::move(found) : std::nullopt;
}

/// What nothing proves is not mounted if it is to be proved first.
Result<void> check_unproved(ImageOptions const& options) {
  if (options.verify != Verify::before || options.opened_before) return {};
  return fail(
      Errc::invalid_argument,
      "oci.verify=before: without an index nothing proves the layer first: `mount-oci index "
      "IMAGE` makes one");
}

/// One layer, as the bytes of a device.
Result<OpenedImage> open_layer(FoundImage const& found, OwnIndex index,
                               ImageOptions const& options) {
  auto const& layer = found.layers.front();
  erofs_oci::LayerSources sources{.blob = AnySource(layer.blob),
                                  .tarindex = std::move(index.tarindex),
                                  .zinfo = std::move(index.zinfo),
                                  .media_type = layer.descriptor.media_type};
  auto const has_tarindex = sources.tarindex.has_value();
  auto const metadata = has_tarindex ? sources.tarindex->size() : 0;
  std::string unproved;
  if (auto const& digest = layer.descriptor.digest; digest != Digest()) {
    sources.digest = digest;
    sources.known = known_layer(digest, options);
    if (!sources.known && options.verify != Verify::off) {
      unproved =
          layer_name(layer.number, layer.descriptor) +
          ": no index is there that was made by reading it, so what is read is right only once all "
          "its bytes have been read and compared with its digest; until then a registry can send "
          "others. " +
          (options.verify >= Verify::background
               ? "They are being read in the background"
               : "-o oci.verify=background reads them without waiting for readers");
    }
  }
  if (!sources.known) EROFS_OCI_TRY(check_unproved(options));
  EROFS_OCI_TRY_ASSIGN(auto image, erofs_oci::open_image(std::move(sources), read_options(options)),
                       options.image);
  return OpenedImage{std::move(image), metadata, !has_tarindex, false, {}, std::move(unproved)};
}

std::size_t count_unproved(IndexedImage const& indexed) {
  return static_cast<std::size_t>(std::ranges::count_if(
      indexed.indexes, [](auto const& index) { return index.unproved.has_value(); }));
}

/// Proves one layer before it is used.
/// @return whether its index may be used
Result<bool> prove_one(FoundLayer const& layer, erofs_oci::StoredLayer& index,
                       std::string const& diff_id, IndexedImage const& indexed,
                       ImageOptions const& options, Progress& progress,
                       std::stop_token const& stop) {
  auto const name = layer_name(layer.number, layer.descriptor);
  auto const total = layer.blob.size();
  auto const next = [&](std::uint64_t done) {
    progress.update({layer.number, done, total});
    return !stop.stop_requested();
  };
  EROFS_OCI_TRY_ASSIGN(auto const verdict, prove_layer(layer, index, diff_id, options, next, stop),
                       name);
  progress.update({layer.number, total, total});
  if (indexed.store) {
    auto const kept = keep_verdict(*indexed.store, layer.descriptor.digest, index, verdict);
    if (!kept) progress.warn(name + ": " + kept.error().message());
  }
  if (verdict.is_proved()) {
    index.unproved.reset();
    return true;
  }
  if (verdict.kind != Verdict::Kind::wrong_index) {
    return fail(Errc::digest_mismatch, name + ": " + verdict.problem);
  }
  progress.warn(name + ": " + verdict.problem + "; the layer is read instead");
  return false;
}

/// Proves each layer whose index is from elsewhere; indexes anew what that shows to be wrong.
Result<void> prove_first(FoundImage& found, IndexedImage& indexed, ImageOptions const& options,
                         Log const& log, ExitOnSignal const* guard) {
  std::uint64_t bytes = 0;
  for (std::size_t i = 0; i < found.layers.size(); ++i) {
    if (indexed.indexes[i].unproved) bytes += found.layers[i].blob.size();
  }
  EROFS_OCI_TRY_ASSIGN(auto const diff_ids, diff_ids_for(found, found.layers),
                       "the image's configuration");
  auto all_good = true;
  {
    std::optional<ExitOnSignal::Pause> pause;
    if (guard != nullptr) pause.emplace(*guard);
    auto const stop = guard != nullptr ? guard->stop_token() : std::stop_token();
    Progress progress(log, count_unproved(indexed), bytes);
    for (std::size_t i = 0; i < found.layers.size(); ++i) {
      auto& index = indexed.indexes[i];
      if (!index.unproved) continue;
      EROFS_OCI_TRY_ASSIGN(auto const good, prove_one(found.layers[i], index, diff_ids[i], indexed,
                                                      options, progress, stop));
      all_good = all_good && good;
    }
  }
  if (all_good) return {};
  auto own = options;  // what was made by reading, and nothing else
  own.take_no_index();
  found.index = nullptr;  // they go by the options that the image was found with
  found.soci = nullptr;
  EROFS_OCI_TRY_ASSIGN(indexed, index_image(found, own, log, guard));
  return {};
}

/// What is to be proved of an image while it is read.
/// @param indexes  those that nobody has compared are taken
std::shared_ptr<ImageToProve> image_to_prove(FoundImage const& found,
                                             std::vector<erofs_oci::StoredLayer>& indexes,
                                             AnySource metadata, Verify verify) {
  auto image = std::make_shared<ImageToProve>();
  for (std::size_t i = 0; i < found.layers.size(); ++i) {
    auto const& layer = found.layers[i];
    LayerProof state{layer.descriptor.digest.to_string(), LayerState::proved};
    if (indexes[i].unproved) {
      state.state = LayerState::pending;
      if (verify == Verify::off) state.problem = "nobody compares it: oci.verify=off";
      image->layers.push_back({i, layer, std::move(indexes[i])});
    }
    image->states.push_back(std::move(state));
  }
  if (!image->layers.empty()) {
    image->image = found;
    image->metadata = std::move(metadata);
  }
  return image;
}

/// All layers, with the index of each.
Result<OpenedImage> open_indexed(FoundImage& found, ImageOptions const& options, Log const& log,
                                 ExitOnSignal const* guard) {
  EROFS_OCI_TRY_ASSIGN(auto indexed, index_image(found, options, log, guard), options.image);
  auto const is_before = options.verify == Verify::before && !options.opened_before;
  if (is_before && count_unproved(indexed) != 0) {
    EROFS_OCI_TRY(prove_first(found, indexed, options, log, guard), options.image);
  }
  EROFS_OCI_TRY_ASSIGN(auto merged,
                       erofs_oci::open_layers(found.image_layers(), indexed.indexes,
                                              read_options(options), indexed.options(log)),
                       options.image);
  std::optional<FoundTree> tree;
  if (options.for_kernel && options.verity != VerityUse::off && indexed.store) {
    tree = find_tree(merged, *indexed.store, log);
    if (!tree && options.verity == VerityUse::require && found.tree) {
      EROFS_OCI_TRY(fetch_tree(found.tree, merged, *indexed.store, log), options.image);
      tree = find_tree(merged, *indexed.store, log);
    }
  }
  OpenedImage opened{std::move(merged.device), merged.metadata_size};
  opened.tree = std::move(tree);
  opened.to_prove =
      image_to_prove(found, indexed.indexes, std::move(merged.metadata), options.verify);
  if (opened.to_prove->layers.empty() || options.verify == Verify::off) return opened;
  std::uint64_t bytes = 0;
  for (auto const& layer : opened.to_prove->layers) bytes += layer.found.blob.size();
  auto& device = opened.device;
  device.proof = std::make_shared<erofs_oci::Proof>(bytes);
  device.source = AnySource(erofs_oci::Guarded(std::move(device.source), device.proof));
  return opened;
}

Result<void> check_one_layer(FoundImage const& found, ImageOptions const& options) {
  if (found.layers.size() == 1) return {};
  return fail(
      Errc::invalid_argument,
      options.image + ": the image has " + std::to_string(found.layers.size()) + " layers (0.." +
          std::to_string(found.layers.size() - 1) +
          "), but oci.tarindex and oci.zinfo belong to one: choose it with oci.layer or oci.blob");
}

}  // namespace

Result<bool> is_native(FoundImage const& found) {
  if (found.layers.size() != 1) return false;
  auto const& layer = found.layers.front();
  EROFS_OCI_TRY_ASSIGN(auto native, erofs_oci::is_erofs_layer(layer.layer()), found.name);
  return native;
}

Result<OwnIndex> open_own_index(ImageOptions const& options) {
  OwnIndex index;
  if (!options.tarindex.empty()) {
    EROFS_OCI_TRY_ASSIGN(index.tarindex, open_file(options.tarindex), "oci.tarindex");
  }
  if (!options.zinfo.empty()) {
    EROFS_OCI_TRY_ASSIGN(index.zinfo, open_file(options.zinfo), "oci.zinfo");
  }
  return index;
}

Result<OpenedImage> open_found(FoundImage& found, OwnIndex index, ImageOptions const& options,
                               Log const& log, ExitOnSignal const* guard) {
  if (!index.empty()) {
    EROFS_OCI_TRY(check_one_layer(found, options));
    return open_layer(found, std::move(index), options);
  }
  EROFS_OCI_TRY_ASSIGN(auto const native, is_native(found));
  if (native && options.native) return open_layer(found, {}, options);
  auto opened = open_indexed(found, options, log, guard);
  if (!native) return opened;
  if (opened) {
    opened->rewritten = true;
    return opened;
  }
  if (opened.error().code != Errc::unsupported) return opened;
  if (!options.for_kernel) return open_layer(found, {}, options);
  return fail(opened.error(),
              "this EROFS image can be mounted only as it is, which lets the kernel parse what the "
              "registry sends: -o oci.native=yes does that, --attach=fuse-tree needs no kernel's "
              "parser");
}

Result<void> check_first(OpenedImage const& opened, ImageOptions const& options, Log const& log) {
  if (!opened.unproved.empty()) log.say(Level::warning, opened.unproved);
  if (!opened.as_it_is || !options.for_kernel || options.in_place_of) return {};
  using erofs_oci::Ref;
  EROFS_OCI_TRY_ASSIGN(auto const reader,
                       erofs_oci::erofs::Reader<Ref<AnySource>>::open(Ref(opened.device.source)),
                       options.image);
  EROFS_OCI_TRY_ASSIGN(auto const found, erofs_oci::erofs::check(reader), options.image);
  if (found.unknown > 0) {
    log.say(Level::warning, options.image + ": " + std::to_string(found.unknown) +
                                " parts of this EROFS image cannot be checked (compressed data, or "
                                "no checksum); the kernel parses them as they are");
  }
  if (found.count == found.unknown) return {};
  auto const wrong = std::ranges::find(found.list, false, &erofs_oci::erofs::Finding::unknown);
  auto const what =
      wrong == found.list.end() ? std::string() : ": " + wrong->path + ": " + wrong->text;
  return fail(Errc::corrupt, options.image + ": a damaged EROFS image is not given to the kernel" +
                                 what + "; `mount-oci fsck` shows all that is wrong");
}

Result<OpenedImage> open_checked(ImageOptions const& options, Log const& log,
                                 ExitOnSignal const* guard) {
  EROFS_OCI_TRY_ASSIGN(auto index, open_own_index(options));  // first: files cost no request
  EROFS_OCI_TRY_ASSIGN(auto found, find_image(options, log));
  EROFS_OCI_TRY_ASSIGN(auto opened, open_found(found, std::move(index), options, log, guard));
  EROFS_OCI_TRY(check_first(opened, options, log));
  return opened;
}

Result<DeviceImage> open_source(ImageOptions const& options, Log const& log,
                                ExitOnSignal const* guard) {
  EROFS_OCI_TRY_ASSIGN(auto opened, open_checked(options, log, guard));
  return std::move(opened.device);
}

Result<OpenedFiles> open_files(ImageOptions const& options, Log const& log,
                               ExitOnSignal const* guard) {
  auto own = options;
  own.native = true;
  own.for_kernel = false;
  EROFS_OCI_TRY_ASSIGN(auto opened, open_checked(own, log, guard));
  EROFS_OCI_TRY_ASSIGN(auto reader,
                       ImageReader::open(AnySource(erofs_oci::StopAtEnd(
                           std::move(opened.device.source), options.access.requests))),
                       options.image);
  return OpenedFiles{std::move(reader), !opened.as_it_is};
}

}  // namespace mount_oci
