// SPDX-License-Identifier: Apache-2.0
/// @file
/// What oci/manifest.hpp only declares.
#pragma once

#include <algorithm>
#include <cstddef>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <range/v3/range/conversion.hpp>
#include <range/v3/view/filter.hpp>

#include <erofs_oci/core/config.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/digest/sha256.hpp>
#include <erofs_oci/oci/descriptor.hpp>
#include <erofs_oci/oci/json.hpp>
#include <erofs_oci/oci/manifest.hpp>

namespace erofs_oci {

EROFS_OCI_BODY Descriptor descriptor_of(std::string_view media_type,
                                        std::span<std::byte const> bytes) {
  Descriptor out;
  out.media_type = media_type;
  out.digest = digest_of(bytes);
  out.size = bytes.size();
  return out;
}

EROFS_OCI_BODY bool is_image_entry(Descriptor const& entry) {
  if (entry.annotations.contains("vnd.docker.reference.type")) return false;
  for (auto const type : {media_type::soci_v1, media_type::soci_v2, media_type::index_artifact,
                          media_type::cosign_signatures}) {
    if (entry.artifact_type == type) return false;
  }
  return !entry.platform || entry.platform->os != "unknown" ||
         entry.platform->architecture != "unknown";
}

namespace detail {

/// What descriptors, manifests and indexes all may have.
template <class D>
Result<void> read_labels(json::Value const& value, D& out) {
  EROFS_OCI_TRY_ASSIGN(out.artifact_type, json::text(value, "artifactType"));
  EROFS_OCI_TRY_ASSIGN(out.annotations, json::text_map(value, "annotations"));
  return {};
}

inline Result<Descriptor> parse_descriptor(json::Value const& value) {
  if (!value.is_object()) return fail(Errc::corrupt, "descriptor is not an object");
  Descriptor out;
  EROFS_OCI_TRY_ASSIGN(out.media_type, json::text(value, "mediaType"));
  EROFS_OCI_TRY_ASSIGN(auto digest_text, json::text(value, "digest"));
  EROFS_OCI_TRY_ASSIGN(out.digest, Digest::parse(digest_text));
  EROFS_OCI_TRY_ASSIGN(out.size, json::count(value, "size"));

  EROFS_OCI_TRY(read_labels(value, out));
  EROFS_OCI_TRY_ASSIGN(out.urls, json::text_list(value, "urls"));
  if (auto const* const platform = json::find(value, "platform")) {
    if (!platform->is_object()) return fail(Errc::corrupt, "platform is not an object");
    auto os = json::text(*platform, "os");
    auto architecture = json::text(*platform, "architecture");
    auto variant = json::text(*platform, "variant");
    if (!os || !architecture || !variant) return fail(Errc::corrupt, "platform: not a string");
    out.platform = Platform{*std::move(os), *std::move(architecture), *std::move(variant)};
  }
  return out;
}

inline Result<std::vector<Descriptor>> parse_descriptors(json::Value const& value, char const* name,
                                                         std::size_t most) {
  auto const* const list = json::find(value, name);
  if (list == nullptr || !list->is_array()) {
    return fail(Errc::corrupt, std::string(name) + " is not a list");
  }
  if (list->size() > most) {
    return fail(Errc::unsupported, std::string(name) + ": " + std::to_string(list->size()) +
                                       " entries, at most " + std::to_string(most) + " are read");
  }
  std::vector<Descriptor> out;
  out.reserve(list->size());
  for (auto const& item : *list) {
    EROFS_OCI_TRY_ASSIGN(auto descriptor, parse_descriptor(item),
                         std::string(name) + "[" + std::to_string(out.size()) + "]");
    out.push_back(std::move(descriptor));
  }
  return out;
}

/// The members that Manifest and Index share.
template <class D>
Result<void> read_common(json::Value const& value, D& out) {
  if (auto const ok = read_labels(value, out); !ok) return ok;

  if (auto const* const subject = json::find(value, "subject")) {
    EROFS_OCI_TRY_ASSIGN(out.subject, parse_descriptor(*subject), "subject");
  }
  return {};
}

inline Result<Document> parse_manifest(json::Value const& value, std::string type) {
  Manifest out;
  out.media_type = type.empty() ? std::string(media_type::oci_manifest) : std::move(type);
  auto const* const config = json::find(value, "config");
  if (config == nullptr) return fail(Errc::corrupt, "config is missing");
  EROFS_OCI_TRY_ASSIGN(out.config, parse_descriptor(*config), "config");
  EROFS_OCI_TRY_ASSIGN(out.layers, parse_descriptors(value, "layers", max_manifest_layers));
  EROFS_OCI_TRY(read_common(value, out));
  return Document(std::move(out));
}

inline Result<Document> parse_index(json::Value const& value, std::string type) {
  Index out;
  out.media_type = type.empty() ? std::string(media_type::oci_index) : std::move(type);
  EROFS_OCI_TRY_ASSIGN(out.manifests, parse_descriptors(value, "manifests", max_index_manifests));
  EROFS_OCI_TRY(read_common(value, out));
  return Document(std::move(out));
}

/// The one media type that the server and the document agree on; empty if neither names one.
inline Result<std::string> agreed_type(json::Value const& value, std::string_view content_type) {
  auto const* const schema = json::find(value, "schemaVersion");
  if (media_type::is_schema1(content_type) ||
      (schema != nullptr && schema->is_number_integer() && *schema == 1)) {
    return fail(Errc::unsupported,
                "a Docker schema 1 manifest: push the image again with a newer tool");
  }
  auto own = json::text(value, "mediaType");
  if (!own) return own;
  if (media_type::is_schema1(*own)) return fail(Errc::unsupported, "Docker schema 1");
  auto const known = [](std::string_view type) {
    return media_type::is_index(type) || media_type::is_manifest(type);
  };
  if (!own->empty() && !known(*own)) {
    return fail(Errc::unsupported, "media type " + quote(*own));
  }
  // Servers of files call everything JSON or octets: that says nothing, so it contradicts nothing.
  if (!known(content_type)) return own;
  if (!own->empty() && *own != content_type) {
    return fail(Errc::mismatch,
                "it is " + quote(*own) + ", the server says " + quote(content_type));
  }
  return std::string(content_type);
}

inline json::Value to_json(Descriptor const& descriptor) {
  auto value = json::Value{{"mediaType", descriptor.media_type},
                           {"digest", descriptor.digest.to_string()},
                           {"size", descriptor.size}};
  if (!descriptor.artifact_type.empty()) value["artifactType"] = descriptor.artifact_type;
  if (!descriptor.annotations.empty()) value["annotations"] = descriptor.annotations;
  if (!descriptor.urls.empty()) value["urls"] = descriptor.urls;
  if (descriptor.platform) {
    auto platform = json::Value{{"os", descriptor.platform->os},
                                {"architecture", descriptor.platform->architecture}};
    if (!descriptor.platform->variant.empty()) platform["variant"] = descriptor.platform->variant;
    value["platform"] = std::move(platform);
  }
  return value;
}

inline json::Value to_json(std::vector<Descriptor> const& descriptors) {
  auto list = json::Value::array();
  for (auto const& descriptor : descriptors) list.push_back(to_json(descriptor));
  return list;
}

template <class D>
json::Value common_to_json(D const& document) {
  auto value = json::Value{{"schemaVersion", 2}, {"mediaType", document.media_type}};
  if (!document.artifact_type.empty()) value["artifactType"] = document.artifact_type;
  if (!document.annotations.empty()) value["annotations"] = document.annotations;
  if (document.subject) value["subject"] = to_json(*document.subject);
  return value;
}

/// For the message of a failed choice: at most 20 platforms.
inline std::string list_platforms(std::vector<Descriptor> const& entries) {
  if (entries.empty()) return "it holds no image";
  std::string out = "it has ";
  for (std::size_t i = 0; i < std::min<std::size_t>(entries.size(), 20); ++i) {
    if (i > 0) out += ", ";
    out += entries[i].platform ? entries[i].platform->to_string() : "an image of no platform";
  }
  std::ranges::replace_if(out, [](char c) { return c < ' ' || c > '~'; }, '?');
  return out + (entries.size() > 20 ? ", …" : "");
}

}  // namespace detail

EROFS_OCI_BODY Result<Document> parse_document(std::span<std::byte const> bytes,
                                               std::string_view content_type) {
  if (bytes.size() > max_document_size) {
    return fail(Errc::unsupported, "manifest of more than 4 MiB");
  }
  EROFS_OCI_TRY_ASSIGN(auto value, json::parse(bytes, "manifest"));
  EROFS_OCI_TRY_ASSIGN(auto type,
                       detail::agreed_type(value, media_type::without_parameters(content_type)),
                       "manifest");

  auto const has_manifests = json::find(value, "manifests") != nullptr;
  auto const has_layers = json::find(value, "layers") != nullptr;
  if (has_manifests == has_layers) {
    return fail(Errc::corrupt, has_layers ? "manifest: both layers and manifests"
                                          : "manifest: neither layers nor manifests");
  }
  if (!type.empty() && media_type::is_index(type) != has_manifests) {
    return fail(Errc::corrupt, "manifest: its members are not those of its media type");
  }
  auto document = has_manifests ? detail::parse_index(value, std::move(type))
                                : detail::parse_manifest(value, std::move(type));
  if (!document) return fail(std::move(document).error(), "manifest");
  return document;
}

EROFS_OCI_BODY std::string encode(Manifest const& manifest) {
  auto value = detail::common_to_json(manifest);
  value["config"] = detail::to_json(manifest.config);
  value["layers"] = detail::to_json(manifest.layers);
  return json::dump(value);
}

EROFS_OCI_BODY std::string encode(Index const& index) {
  auto value = detail::common_to_json(index);
  value["manifests"] = detail::to_json(index.manifests);
  return json::dump(value);
}

EROFS_OCI_BODY Result<Descriptor> choose_platform(Index const& index, Platform const& wanted) {
  auto const images =
      index.manifests | ranges::views::filter(is_image_entry) | ranges::to<std::vector>();
  constexpr auto never = std::numeric_limits<unsigned>::max();
  auto const distance = [&](Descriptor const& entry) {
    return entry.platform ? platform_distance(wanted, *entry.platform).value_or(never) : never;
  };
  auto const best = std::ranges::min_element(images, {}, distance);
  if (best != images.end() && distance(*best) != never) return *best;
  if (images.size() == 1 && !images.front().platform) return images.front();
  return fail(Errc::not_found, "no image for " + wanted.normalised().to_string() + "; " +
                                   detail::list_platforms(images));
}

}  // namespace erofs_oci
