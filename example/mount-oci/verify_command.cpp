// SPDX-License-Identifier: Apache-2.0
// verify: all of an image read, and compared with what it is said to be.
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <erofs_oci/image/image_name.hpp>
#include <erofs_oci/image/index_layers.hpp>
#include <erofs_oci/image/index_store.hpp>

#include "indexing.hpp"
#include "layer_proof.hpp"
#include "mount_journal.hpp"
#include "reading.hpp"
#include "records.hpp"
#include "served_image.hpp"

namespace mount_oci {
namespace {

using erofs_oci::fail;
using erofs_oci::json::Value;

/// Proves the layers of one image, one after the other.
class Prover {
 public:
  Prover(Reading const& reading, FoundImage const& found, IndexedImage const& indexed,
         std::vector<std::string> diff_ids)
      : reading_(reading), found_(found), indexed_(indexed), diff_ids_(std::move(diff_ids)) {}

  /// Compares a layer and its index with each other and with what the image says; keeps the verdict
  /// in the store.
  Result<Verdict> run(std::size_t i) const {
    auto const& layer = found_.layers[i];
    auto const& index = indexed_.indexes[i];
    auto const next = [](std::uint64_t) { return true; };
    EROFS_OCI_TRY_ASSIGN(auto verdict,
                         prove_layer(layer, index, diff_ids_[i], reading_.options.image, next,
                                     reading_.guard.stop_token()));
    if (!indexed_.store) return verdict;
    auto kept = keep_verdict(*indexed_.store, layer.descriptor.digest, index, verdict);
    // What the layer gives is what the next mount finds before it looks elsewhere.
    if (kept && verdict.kind == Verdict::Kind::wrong_index) kept = index_anew(layer);
    if (!kept) reading_.log.say(Level::warning, kept.error().message());
    return verdict;
  }

 private:
  Result<void> index_anew(FoundLayer const& layer) const {
    auto const& options = reading_.options.image;
    auto index = indexed_.options(reading_.log);
    index.max_decoded = options.index_size;
    index.max_time = options.index_time;
    index.stop = reading_.guard.stop_token();
    std::vector<erofs_oci::ImageLayer> layers;
    layers.push_back(layer.layer());
    EROFS_OCI_TRY(erofs_oci::index_layers(layers, std::move(index)));
    return {};
  }

  Reading const& reading_;
  FoundImage const& found_;
  IndexedImage const& indexed_;
  std::vector<std::string> diff_ids_;
};

Result<void> print(Reading const& reading, FoundLayer const& layer, Verdict const& verdict) {
  auto const proved = verdict.is_proved();
  if (reading.options.read.json) {
    Value line{{"number", layer.number},
               {"digest", layer.descriptor.digest.to_string()},
               {"proved", proved}};
    if (!proved) put_name(line, "problem", verdict.problem);
    return reading.output.put_json(line);
  }
  auto const& output = reading.output;
  return reading.output.put(layer_name(layer.number, layer.descriptor) + ": " +
                            (proved ? "proved" : output.shown(verdict.problem)) + "\n");
}

}  // namespace

Result<void> prepare_verify(Options& options) {
  auto& image = options.image;
  if (erofs_oci::ImageName::parse(image.image).place != erofs_oci::ImagePlace::file) return {};
  auto const noted = noted_mount(options, image.image);
  if (!noted && noted.error().code == Errc::not_found) {
    if (!std::filesystem::is_directory(image.image)) return {};
    return fail(noted.error(), "no image is mounted there by this program");
  }
  if (!noted) return fail(noted.error());
  if (!noted->record) return fail(Errc::corrupt, noted->name + ": " + noted->problem);
  EROFS_OCI_TRY_ASSIGN(image, options_by_digest(*noted->record, image), image.image);
  EROFS_OCI_TRY_ASSIGN(auto const journal, journal_path(options));
  // What no store for all mounts may have, this mount has.
  auto own = index_directory(journal, noted->record->attach.backend);
  if (std::filesystem::is_directory(own)) image.own_store = std::move(own);
  return {};
}

Result<Status> run_verify(Reading const& reading) {
  auto const& options = reading.options.image;
  if (has_own_index(options)) {
    return fail(Errc::invalid_argument,
                "verify: oci.tarindex and oci.zinfo cannot be set; `mount-oci fsck --data` reads "
                "such files");
  }
  EROFS_OCI_TRY_ASSIGN(auto found, find_image(options, reading.log));
  EROFS_OCI_TRY_ASSIGN(auto const native, is_native(found));
  if (native) {
    return fail(Errc::unsupported,
                found.name + ": an EROFS image; `mount-oci fsck --data` checks it");
  }
  EROFS_OCI_TRY_ASSIGN(auto const indexed, index_image(found, options, reading.log, &reading.guard),
                       found.name);
  EROFS_OCI_TRY_ASSIGN(auto diff_ids, diff_ids_for(found, found.layers),
                       found.name + ": its configuration");
  Prover const prover(reading, found, indexed, std::move(diff_ids));
  ExitOnSignal::Pause const pause(reading.guard);
  Status status = 0;
  for (std::size_t i = 0; i < found.layers.size(); ++i) {
    auto const& layer = found.layers[i];
    EROFS_OCI_TRY_ASSIGN(auto const verdict, prover.run(i),
                         found.name + ": " + layer_name(layer.number, layer.descriptor));
    EROFS_OCI_TRY(print(reading, layer, verdict));
    if (!verdict.is_proved()) status = 1;
  }
  return status;
}

}  // namespace mount_oci
