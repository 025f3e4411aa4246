// SPDX-License-Identifier: Apache-2.0
// verify: all of an image read, and compared with what it is said to be.
#include <cstddef>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <erofs_oci/core/source.hpp>
#include <erofs_oci/image/index_layers.hpp>
#include <erofs_oci/image/index_store.hpp>

#include "image_config.hpp"
#include "indexing.hpp"
#include "reading.hpp"
#include "verify.hpp"

namespace mount_oci {
namespace {

using erofs_oci::AnySource;
using erofs_oci::fail;
using erofs_oci::IndexStore;
using erofs_oci::json::Value;

/// What is wrong with one layer.
struct Verdict {
  std::string problem;          ///< empty: nothing
  bool index_is_wrong = false;  ///< its index does not say what it holds
};

/// Proves the layers of one image, one after the other.
class Prover {
 public:
  Prover(Reading const& reading, FoundImage const& found, IndexedImage const& indexed,
         std::vector<std::string> diff_ids)
      : reading_(reading), found_(found), indexed_(indexed), diff_ids_(std::move(diff_ids)) {}

  /// Compares a layer and its index with each other and with what the image says; keeps or removes
  /// the index at the store.
  Result<Verdict> run(std::size_t i) const {
    auto const& layer = found_.layers[i];
    auto const& index = indexed_.indexes[i];
    auto const& wanted = layer.descriptor.digest;
    EROFS_OCI_TRY_ASSIGN(auto const opened, index_to_verify(layer, index, reading_.options.image));
    // Wrong bytes that were kept are fetched anew, once.
    auto const is_wrong = [&](auto const& compared) {
      return compared && compared->blob != wanted;
    };
    EROFS_OCI_TRY_ASSIGN(auto const compared, erofs_oci::read_past_kept(
                                                  layer.blob,
                                                  [&] {
                                                    return compare_layer(
                                                        AnySource(layer.blob), wanted.algorithm(),
                                                        opened, reading_.guard.stop_token());
                                                  },
                                                  is_wrong));
    auto const verdict = judge(layer, compared);
    if (indexed_.store) update_store(*indexed_.store, i, verdict);
    return verdict;
  }

 private:
  Verdict judge(FoundLayer const& layer, LayerComparison const& compared) const {
    if (compared.blob != layer.descriptor.digest) {
      return {"its bytes are " + compared.blob.to_string(), false};
    }
    if (compared.difference) return {"its index is wrong: " + *compared.difference, true};
    auto const contents = compared.contents.to_string();
    if (layer.number < diff_ids_.size() && diff_ids_[layer.number] != contents) {
      return {"its contents are " + contents + ", the image's configuration says " +
                  diff_ids_[layer.number],
              false};
    }
    return {};
  }

  /// A proved index counts for all images from now on. In place of a wrong one there is what the
  /// layer gives, which the next mount finds before it looks elsewhere.
  void update_store(IndexStore const& store, std::size_t i, Verdict const& verdict) const {
    auto const& layer = found_.layers[i];
    auto const& digest = layer.descriptor.digest;
    Result<void> done;
    if (verdict.index_is_wrong) {
      done = store.remove_layer(digest, claims_of(found_, reading_.options.image)).and_then([&] {
        return index_anew(layer);
      });
    } else if (verdict.problem.empty() && !store.holds_layer(digest)) {
      done = erofs_oci::index_files(indexed_.indexes[i]).and_then([&](auto const& files) {
        return store.put_layer(digest, files);
      });
    }
    if (!done) reading_.log.say(Level::warning, done.error().message());
  }

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
  auto const proved = verdict.problem.empty();
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
  EROFS_OCI_TRY_ASSIGN(auto diff_ids, diff_ids_of(found), found.name + ": its configuration");
  Prover const prover(reading, found, indexed, std::move(diff_ids));
  ExitOnSignal::Pause const pause(reading.guard);
  Status status = 0;
  for (std::size_t i = 0; i < found.layers.size(); ++i) {
    auto const& layer = found.layers[i];
    EROFS_OCI_TRY_ASSIGN(auto const verdict, prover.run(i),
                         found.name + ": " + layer_name(layer.number, layer.descriptor));
    EROFS_OCI_TRY(print(reading, layer, verdict));
    if (!verdict.problem.empty()) status = 1;
  }
  return status;
}

}  // namespace mount_oci
