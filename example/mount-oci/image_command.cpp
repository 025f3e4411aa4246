// SPDX-License-Identifier: Apache-2.0
// image: what there is, without reading layers.
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <erofs_oci/core/source.hpp>

#include "image_config.hpp"
#include "indexing.hpp"
#include "layer_cache.hpp"
#include "progress.hpp"
#include "reading.hpp"

namespace mount_oci {
namespace {

using erofs_oci::fail;
using erofs_oci::json::Value;

/// What this machine has of a layer, in bytes of the blob.
struct Known {
  std::optional<std::uint64_t> unpacked;  ///< bytes when unpacked; empty: there is no index
  bool proved = false;                    ///< that index was made, or proved, by reading the layer
  std::uint64_t kept = 0;
};

Known what_is_known(FoundLayer const& layer, erofs_oci::IndexStore const* store,
                    std::optional<erofs_oci::Digest> const& claims, LayerCache& cache) {
  auto const& digest = layer.descriptor.digest;
  Known known;
  known.kept = is_remote(layer.blob) ? cache.kept(layer) : layer.blob.size();
  if (store == nullptr || digest == erofs_oci::Digest()) return known;
  auto const found = store->find_layer(digest, claims);
  if (!found || !*found) return known;
  known.unpacked = (*found)->index.index.decoded_size;
  known.proved = !(*found)->unproved;
  return known;
}

Value layer_json(FoundLayer const& layer, Known const& known) {
  auto const size = layer.blob.size();
  Value object{{"number", layer.number},
               {"size", size},
               {"indexed", known.unpacked.has_value()},
               {"indexed_bytes", known.unpacked ? size : 0},
               {"proved_bytes", known.proved ? size : 0},
               {"kept", known.kept == size},
               {"kept_bytes", known.kept}};
  if (known.unpacked) object["unpacked_bytes"] = *known.unpacked;
  auto const& at = layer.descriptor;
  if (at.digest != erofs_oci::Digest()) object["digest"] = at.digest.to_string();
  if (!at.media_type.empty()) object["media_type"] = at.media_type;
  return object;
}

Value image_json(FoundImage const& found, Value layers) {
  Value object{{"image", found.name}, {"layers", std::move(layers)}};
  if (found.digest) object["digest"] = found.digest->to_string();
  if (found.platform) object["platform"] = found.platform->to_string();
  if (found.config_at) object["config"] = found.config_at->digest.to_string();
  return object;
}

/// What a container of the image would run: a line each of what the configuration says.
std::string config_text(Value const& configuration, Output const& output) {
  std::string text;
  auto const* const config = erofs_oci::json::find(configuration, "config");
  if (config == nullptr || !config->is_object()) return text;
  for (auto const& [key, title] :
       {std::pair{"Entrypoint", "Entry:    "}, std::pair{"Cmd", "Command:  "},
        std::pair{"User", "User:     "}, std::pair{"WorkingDir", "Directory: "}}) {
    auto const* const value = erofs_oci::json::find(*config, key);
    if (value == nullptr || value->empty() || *value == "") continue;
    auto const shown =
        value->is_string() ? value->get<std::string>() : erofs_oci::json::dump(*value);
    text += title + output.shown(shown) + "\n";
  }
  auto const environment = erofs_oci::json::text_list(*config, "Env");
  for (auto const& variable : environment.value_or(std::vector<std::string>())) {
    text += "Variable: " + output.shown(variable) + "\n";
  }
  return text;
}

std::string image_text(Value const& image, Output const& output) {
  auto text = "Image:    " + output.shown(image.at("image").get<std::string>()) + "\n";
  for (auto const& [key, title] :
       {std::pair{"digest", "Digest:   "}, std::pair{"platform", "Platform: "},
        std::pair{"config", "Config:   "}}) {
    if (image.contains(key)) text += title + output.shown(image.at(key).get<std::string>()) + "\n";
  }
  std::uint64_t total = 0;
  for (auto const& layer : image.at("layers")) {
    auto const size = layer.at("size").get<std::uint64_t>();
    total += size;
    text += "Layer " + std::to_string(layer.at("number").get<std::size_t>()) + ":  " +
            layer.value("digest", std::string("-")) + "  " + size_text(size) + "  " +
            output.shown(layer.value("media_type", std::string("-"))) + "  " +
            (layer.at("indexed").get<bool>() ? "indexed" : "not indexed") +
            (layer.at("kept").get<bool>() ? ", kept" : "") + "\n";
  }
  if (image.contains("configuration")) text += config_text(image.at("configuration"), output);
  return text + "Size:     " + size_text(total) + "\n";
}

}  // namespace

Result<Status> run_image(Reading const& reading) {
  auto const& options = reading.options.image;
  EROFS_OCI_TRY_ASSIGN(auto const found, find_image(options, reading.log));
  EROFS_OCI_TRY_ASSIGN(auto const store, open_store(options, reading.log));
  auto& cache = *options.layer_cache;
  auto layers = Value::array();
  for (auto const& layer : found.layers) {
    auto const known = what_is_known(layer, store.get(), claims_of(found, options), cache);
    layers.push_back(layer_json(layer, known));
  }
  auto image = image_json(found, std::move(layers));
  auto config = read_config_of(found);
  if (!config) {
    reading.log.say(Level::warning, "its configuration: " + config.error().message());
  } else if (*config) {
    image["configuration"] = **std::move(config);
  }
  EROFS_OCI_TRY(reading.options.read.json ? reading.output.put_json(image)
                                          : reading.output.put(image_text(image, reading.output)));
  return 0;
}

}  // namespace mount_oci
