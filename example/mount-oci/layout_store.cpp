// SPDX-License-Identifier: Apache-2.0
#include "layout_store.hpp"

#include <utility>

#include <unistd.h>

#include <nlohmann/json.hpp>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/source/local.hpp>

namespace mount_oci {
namespace {

using erofs_oci::fail;
using Json = nlohmann::json;

constexpr std::size_t most_json = 4u << 20;  // bytes, as registries limit a manifest

Result<std::string> read_text(std::string const& path) {
  auto const file = erofs_oci::Local::open(path);
  if (!file) return fail(file.error());
  if (file->size() > most_json) return fail(Errc::unsupported, path + ": more than 4 MiB");
  erofs_oci::Bytes bytes(static_cast<std::size_t>(file->size()));
  if (auto const ok = erofs_oci::read_exact(*file, 0, bytes); !ok) return fail(ok.error());
  return std::string(erofs_oci::as_text(bytes));
}

/// A text member, or the empty text.
std::string text_of(Json const& object, char const* key) {
  if (!object.is_object()) return {};
  auto const found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : std::string();
}

/// What a manifest without a mediaType is, by its members.
std::string guess_media_type(Json const& manifest) {
  if (!manifest.is_object()) return {};
  if (manifest.contains("manifests")) return "application/vnd.oci.image.index.v1+json";
  if (manifest.contains("layers")) return "application/vnd.oci.image.manifest.v1+json";
  return {};
}

}  // namespace

Result<LayoutStore> LayoutStore::open(std::string directory) {
  if (auto const marker = read_text(directory + "/oci-layout"); !marker) {
    return fail(marker.error(), directory + ": not an OCI image layout");
  }
  auto const path = directory + "/index.json";
  auto const text = read_text(path);
  if (!text) return fail(text.error());
  auto const index = Json::parse(*text, nullptr, false);
  if (!index.is_object() || !index.contains("manifests") || !index["manifests"].is_array()) {
    return fail(Errc::corrupt, path + ": not an image index");
  }
  LayoutStore store(std::move(directory));
  for (auto const& entry : index["manifests"]) {
    auto const digest = text_of(entry, "digest");
    auto const media_type = text_of(entry, "mediaType");
    store.media_types_[digest] = media_type;
    if (!entry.is_object() || !entry.contains("annotations")) continue;
    auto const tag = text_of(entry["annotations"], "org.opencontainers.image.ref.name");
    if (!tag.empty()) store.by_tag_[tag] = {digest, media_type};
  }
  // A layout of one image without a name: what is asked for by default.
  if (store.by_tag_.empty() && store.media_types_.size() == 1) {
    auto const& [digest, media_type] = *store.media_types_.begin();
    store.by_tag_["latest"] = {digest, media_type};
  }
  return store;
}

std::optional<LayoutStore::Manifest> LayoutStore::manifest(std::string const& reference) const {
  auto const tagged = by_tag_.find(reference);
  auto const digest = tagged == by_tag_.end() ? reference : tagged->second.digest;
  auto const path = blob_path(digest);
  if (!path) return std::nullopt;
  auto body = read_text(*path);
  if (!body) return std::nullopt;
  auto const json = Json::parse(*body, nullptr, false);
  auto media_type = text_of(json, "mediaType");
  if (auto const known = media_types_.find(digest); known != media_types_.end()) {
    if (!known->second.empty()) media_type = known->second;
  }
  if (media_type.empty()) media_type = guess_media_type(json);
  if (media_type.empty()) return std::nullopt;  // a layer or a config
  return Manifest{digest, std::move(media_type), *std::move(body)};
}

std::optional<std::string> LayoutStore::blob_path(std::string const& digest) const {
  auto const colon = digest.find(':');
  if (colon == std::string::npos) return std::nullopt;
  auto const algorithm = digest.substr(0, colon);
  auto const digits = digest.substr(colon + 1);
  auto const length = algorithm == "sha256" ? 64u : algorithm == "sha512" ? 128u : 0u;
  if (digits.size() != length ||
      digits.find_first_not_of("0123456789abcdef") != std::string::npos) {
    return std::nullopt;
  }
  auto path = directory_ + "/blobs/" + algorithm + "/" + digits;
  if (::access(path.c_str(), R_OK) != 0) return std::nullopt;
  return path;
}

std::vector<std::string> LayoutStore::tags() const {
  std::vector<std::string> names;
  for (auto const& [tag, entry] : by_tag_) names.push_back(tag);
  return names;
}

}  // namespace mount_oci
