// SPDX-License-Identifier: Apache-2.0
#include "layout_store.hpp"

#include <ranges>
#include <variant>

#include <unistd.h>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/fd.hpp>
#include <erofs_oci/digest/sha256.hpp>
#include <erofs_oci/oci/manifest.hpp>
#include <erofs_oci/posix/replace_file.hpp>
#include <erofs_oci/source/local.hpp>

namespace mount_oci {

using erofs_oci::Digest;

Result<LayoutStore> LayoutStore::open(std::string directory) {
  EROFS_OCI_TRY_ASSIGN(auto layout, erofs_oci::Layout::open(std::move(directory)));
  LayoutStore store(std::move(layout));
  auto const& manifests = store.layout_.index().manifests;
  for (auto const& entry : manifests) {
    auto const tag = entry.annotation(erofs_oci::Layout::ref_name);
    if (tag) store.names_->by_tag[std::string(*tag)] = entry.digest;
  }
  // A layout of one image without a name: what is asked for by default.
  if (store.names_->by_tag.empty() && manifests.size() == 1) {
    store.names_->by_tag["latest"] = manifests.front().digest;
  }
  return store;
}

std::optional<LayoutStore::Manifest> LayoutStore::manifest(std::string const& reference) const {
  auto digest = reference;
  {
    std::lock_guard const lock(names_->mutex);
    auto const tagged = names_->by_tag.find(reference);
    if (tagged != names_->by_tag.end()) digest = tagged->second.to_string();
  }
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
  std::lock_guard const lock(names_->mutex);
  auto const names = std::views::keys(names_->by_tag);
  return {names.begin(), names.end()};
}

Result<bool> LayoutStore::add_blob(std::string const& digest, std::string_view bytes) {
  auto const parsed = Digest::parse(digest);
  if (!parsed || erofs_oci::digest_of(erofs_oci::as_bytes(bytes), parsed->algorithm()) != *parsed) {
    return false;
  }
  auto const path = layout_.directory() + "/blobs/" +
                    std::string(erofs_oci::to_string(parsed->algorithm())) + "/" + parsed->hex();
  EROFS_OCI_TRY(erofs_oci::replace_file(
      path, 0644, [&](int fd) { return erofs_oci::write_full(fd, erofs_oci::as_bytes(bytes)); }));
  return true;
}

Result<std::string> LayoutStore::add_manifest(std::string const& reference,
                                              std::string const& body) {
  auto const bytes = erofs_oci::as_bytes(body);
  EROFS_OCI_TRY_ASSIGN(auto const document, erofs_oci::parse_document(bytes));
  auto const named = Digest::parse(reference);
  auto const digest =
      erofs_oci::digest_of(bytes, named ? named->algorithm() : erofs_oci::DigestAlgorithm::sha256);
  if (named && *named != digest) return erofs_oci::fail(Errc::corrupt, reference);
  EROFS_OCI_TRY(add_blob(digest.to_string(), body));
  std::lock_guard const lock(names_->mutex);
  if (!named) names_->by_tag[reference] = digest;
  auto const note = [&](auto const& parsed) {
    if (!parsed.subject) return;
    erofs_oci::Descriptor at;
    at.media_type = parsed.media_type;
    at.digest = digest;
    at.size = body.size();
    at.artifact_type = parsed.artifact_type;
    at.annotations = parsed.annotations;
    names_->by_subject.emplace(parsed.subject->digest.to_string(), std::move(at));
  };
  std::visit(note, document);
  return digest.to_string();
}

std::vector<erofs_oci::Descriptor> LayoutStore::referrers(std::string const& digest) const {
  std::lock_guard const lock(names_->mutex);
  auto const [begin, end] = names_->by_subject.equal_range(digest);
  std::vector<erofs_oci::Descriptor> out;
  for (auto it = begin; it != end; ++it) out.push_back(it->second);
  return out;
}

}  // namespace mount_oci
