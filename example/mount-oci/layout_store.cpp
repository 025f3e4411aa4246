// SPDX-License-Identifier: Apache-2.0
#include "layout_store.hpp"

#include <variant>

#include <unistd.h>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/oci/manifest.hpp>
#include <erofs_oci/source/local.hpp>

namespace mount_oci {

using erofs_oci::Digest;
using erofs_oci::fail;

Result<LayoutStore> LayoutStore::open(std::string directory) {
  auto layout = erofs_oci::Layout::open(std::move(directory));
  if (!layout) return fail(std::move(layout).error());
  LayoutStore store(*std::move(layout));
  auto const& manifests = store.layout_.index().manifests;
  for (auto const& entry : manifests) {
    auto const tag = entry.annotation(erofs_oci::Layout::ref_name);
    if (tag) store.by_tag_[std::string(*tag)] = entry.digest;
  }
  // A layout of one image without a name: what is asked for by default.
  if (store.by_tag_.empty() && manifests.size() == 1) {
    store.by_tag_["latest"] = manifests.front().digest;
  }
  return store;
}

std::optional<LayoutStore::Manifest> LayoutStore::manifest(std::string const& reference) const {
  auto const tagged = by_tag_.find(reference);
  auto digest = tagged == by_tag_.end() ? reference : tagged->second.to_string();
  auto const path = blob_path(digest);
  if (!path) return std::nullopt;
  auto const file = erofs_oci::Local::open(*path);
  if (!file || file->size() > erofs_oci::max_document_size) return std::nullopt;
  erofs_oci::Bytes bytes(static_cast<std::size_t>(file->size()));
  if (!erofs_oci::read_exact(*file, 0, bytes)) return std::nullopt;
  auto const document = erofs_oci::parse_document(bytes);
  if (!document) return std::nullopt;  // a layer or a config
  auto const media_type = [](auto const& parsed) { return parsed.media_type; };
  return Manifest{std::move(digest), std::visit(media_type, *document),
                  std::string(erofs_oci::as_text(bytes))};
}

std::optional<std::string> LayoutStore::blob_path(std::string const& digest) const {
  auto const parsed = Digest::parse(digest);
  if (!parsed) return std::nullopt;
  auto path = layout_.directory() + "/blobs/" +
              std::string(erofs_oci::to_string(parsed->algorithm())) + "/" + parsed->hex();
  if (::access(path.c_str(), R_OK) != 0) return std::nullopt;
  return path;
}

std::vector<std::string> LayoutStore::tags() const {
  std::vector<std::string> names;
  for (auto const& [tag, digest] : by_tag_) names.push_back(tag);
  return names;
}

}  // namespace mount_oci
