// SPDX-License-Identifier: Apache-2.0
/// @file
/// BasicRegistry: one repository of a registry: its images, its blobs, what refers to them.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/clock.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/digest/sha256.hpp>
#include <erofs_oci/oci/auth.hpp>
#include <erofs_oci/oci/blob.hpp>
#include <erofs_oci/oci/image.hpp>
#include <erofs_oci/oci/manifest.hpp>
#include <erofs_oci/oci/reference.hpp>
#include <erofs_oci/oci/session.hpp>
#include <erofs_oci/source/http_response.hpp>
#include <erofs_oci/source/http_transport.hpp>
#include <erofs_oci/source/url.hpp>

namespace erofs_oci {

/// How a registry is spoken to.
enum class RegistryProtocol : std::uint8_t {
  https,  ///< always right
  http,   ///< only where the user asks for it; refused for Docker Hub
};

/// Another registry that has the same repositories.
struct Mirror {
  std::string registry;  ///< `host[:port]`
  RegistryProtocol protocol = RegistryProtocol::https;
};

/// How a repository is read.
struct RegistryOptions {
  RegistryProtocol protocol = RegistryProtocol::https;
  /// Asked before the registry, in order; the registry answers what they do not.
  std::vector<Mirror> mirrors{};
  /// Asked once a registry or mirror wants a login. Default: anonymous.
  CredentialLookup credentials{};
  /// For each manifest, login and read_at() of a blob.
  HttpLimits limits{};
  /// For a whole stream() of a blob. Default: 10 minutes.
  std::chrono::milliseconds stream_total{600'000};
};

/// A repository of a registry. Copies share logins and connections.
///
/// @par Thread safety
/// All const members, from any thread.
template <HttpTransport Transport, Clock Time = SteadyClock>
class BasicRegistry {
 public:
  /// Its blobs, as sources.
  using Blob = BasicOciBlob<Transport, Time>;

  /// The repository that `reference` names. Makes no request.
  /// @error{Errc::invalid_argument, http to Docker Hub\, or a mirror that is no host}
  [[nodiscard]] static Result<BasicRegistry> make(Reference reference, RegistryOptions options,
                                                  Transport transport, Time time = {});

  /// The same with a transport of its own, made by default.
  [[nodiscard]] static Result<BasicRegistry> make(Reference reference, RegistryOptions options = {})
    requires std::default_initializable<Transport>
  {
    return make(std::move(reference), std::move(options), Transport());
  }

  /// Follows the reference to the image for `platform`: one request for a manifest, two through an
  /// index. What was asked by digest is checked; a tag's digest is computed.
  /// @error{Errc::not_found, no such image\, or none for that platform}
  /// @error{Errc::digest_mismatch, the registry sent something else than was asked for}
  /// @error{as parse_document() and BasicOciBlob::read_at(), as they say}
  [[nodiscard]] Result<Image> resolve(Platform const& platform) const;

  /// One manifest or index, by tag or digest.
  /// @param size  its bytes, if they are known; another size is an error
  /// @error{as resolve(), as resolve()}
  [[nodiscard]] Result<std::pair<Digest, Document>> document(
      std::string const& tag_or_digest, std::optional<std::uint64_t> size = std::nullopt) const;

  /// A blob of this repository, as a source. Makes no request: a blob that is not there is an
  /// error of the first read.
  [[nodiscard]] Blob blob(Descriptor const& descriptor) const {
    return Blob(sessions_, descriptor.digest, descriptor.size, options_.limits,
                options_.stream_total, time_);
  }

  /// What refers to a manifest: the referrers API, or the tag that stands in for it.
  /// @param artifact_type  only those; empty: all
  /// @error{as document(), as document(); nothing found is an empty list}
  [[nodiscard]] Result<std::vector<Descriptor>> referrers(Digest const& digest,
                                                          std::string_view artifact_type) const;

  [[nodiscard]] Reference const& reference() const noexcept { return reference_; }

 private:
  using Session = BasicSession<Transport, Time>;

  /// A response whose body is small enough to be kept.
  struct Page {
    HttpHead head;
    Bytes body;
    Url url;
  };

  BasicRegistry(Reference reference, RegistryOptions options, Time time)
      : reference_(std::move(reference)), options_(std::move(options)), time_(std::move(time)) {}

  Result<void> add_session(std::string const& registry, RegistryProtocol protocol,
                           Transport const& transport);
  Result<Page> fetch(Session const& session, Url const& url, HttpHeaders const& headers) const;
  Result<std::pair<Digest, Document>> document_from(Session const& session,
                                                    std::string const& tag_or_digest,
                                                    std::optional<std::uint64_t> size) const;
  Result<std::vector<Descriptor>> referrers_by_tag(Digest const& digest) const;
  static std::optional<std::string> next_page(HttpHead const& head);

  Reference reference_;
  RegistryOptions options_;
  Time time_;
  std::vector<Session> sessions_;  // mirrors, then the registry
};

template <HttpTransport Transport, Clock Time>
Result<BasicRegistry<Transport, Time>> BasicRegistry<Transport, Time>::make(Reference reference,
                                                                            RegistryOptions options,
                                                                            Transport transport,
                                                                            Time time) {
  if (reference.is_docker_hub() && options.protocol == RegistryProtocol::http) {
    return fail(Errc::invalid_argument, "Docker Hub is never used over http");
  }
  BasicRegistry out(std::move(reference), std::move(options), std::move(time));
  for (auto const& mirror : out.options_.mirrors) {
    auto const ok = out.add_session(mirror.registry, mirror.protocol, transport);
    if (!ok) return fail(ok.error(), "mirror " + detail::quote(mirror.registry));
  }
  auto const ok = out.add_session(out.reference_.registry, out.options_.protocol, transport);
  if (!ok) return fail(ok.error(), "registry " + detail::quote(out.reference_.registry));
  return out;
}

template <HttpTransport Transport, Clock Time>
Result<void> BasicRegistry<Transport, Time>::add_session(std::string const& registry,
                                                         RegistryProtocol protocol,
                                                         Transport const& transport) {
  if (!is_registry(registry)) return fail(Errc::invalid_argument, "not a registry host");
  auto const* const scheme = protocol == RegistryProtocol::http ? "http://" : "https://";
  auto url = Url::parse(scheme + registry);
  if (!url) return fail(std::move(url).error());
  sessions_.emplace_back(transport, time_, *std::move(url), reference_.repository,
                         options_.credentials, options_.limits);
  return {};
}

template <HttpTransport Transport, Clock Time>
auto BasicRegistry<Transport, Time>::fetch(Session const& session, Url const& url,
                                           HttpHeaders const& headers) const -> Result<Page> {
  Page page;
  std::optional<Error> error;
  auto const head = [&](HttpHead const& response) {
    page.head = response;
    error = status_error(response);
    auto const encoding = response.find("Content-Encoding");
    if (!error && encoding && !encoding->empty() && !equal_ignoring_case(*encoding, "identity")) {
      error = Error{Errc::protocol, "the server packed the content, which was not asked for"};
    }
    return !error;
  };
  auto const body = [&](std::span<std::byte const> bytes) {
    if (bytes.size() > max_document_size - page.body.size()) {
      error = Error{Errc::unsupported, "manifest of more than 4 MiB"};
      return false;
    }
    page.body.insert(page.body.end(), bytes.begin(), bytes.end());
    return true;
  };
  auto const deadline = time_.now() + options_.limits.total;
  auto from = session.get(url, headers, options_.limits, deadline, head, body);
  if (!from) return fail(std::move(from).error());
  if (error) return fail(*std::move(error), url.without_query());
  page.url = *std::move(from);
  return page;
}

template <HttpTransport Transport, Clock Time>
Result<std::pair<Digest, Document>> BasicRegistry<Transport, Time>::document_from(
    Session const& session, std::string const& tag_or_digest,
    std::optional<std::uint64_t> size) const {
  auto const url = session.url("manifests/" + tag_or_digest);
  HttpHeaders headers{{"Accept-Encoding", "identity"}};
  for (auto const type : {media_type::oci_index, media_type::docker_list, media_type::oci_manifest,
                          media_type::docker_manifest}) {
    headers.push_back({"Accept", std::string(type)});
  }
  auto page = fetch(session, url, headers);
  if (!page) return fail(std::move(page).error());

  // What a tag leads to is believed, but not if the registry contradicts itself.
  auto const said = page->head.find("Docker-Content-Digest");
  auto asked = Digest::parse(tag_or_digest);
  if (!asked && said) asked = Digest::parse(*said);
  auto const algorithm = asked ? asked->algorithm() : DigestAlgorithm::sha256;
  auto const computed = digest_of(page->body, algorithm);
  if (asked && computed != *asked) {
    return fail(Errc::digest_mismatch, url.without_query() + ": expected " + asked->to_string() +
                                           ", the body is " + computed.to_string());
  }
  if (size && page->body.size() != *size) {
    return fail(Errc::mismatch, url.without_query() + ": " + std::to_string(page->body.size()) +
                                    " bytes, expected are " + std::to_string(*size));
  }
  auto document = parse_document(page->body, page->head.find("Content-Type").value_or(""));
  if (!document) return fail(std::move(document).error(), url.without_query());
  return std::pair(computed, *std::move(document));
}

template <HttpTransport Transport, Clock Time>
Result<std::pair<Digest, Document>> BasicRegistry<Transport, Time>::document(
    std::string const& tag_or_digest, std::optional<std::uint64_t> size) const {
  for (auto const& mirror : std::span(sessions_).first(sessions_.size() - 1)) {
    auto found = document_from(mirror, tag_or_digest, size);
    if (found) return found;  // else the registry's own word counts
  }
  return document_from(sessions_.back(), tag_or_digest, size);
}

template <HttpTransport Transport, Clock Time>
Result<Image> BasicRegistry<Transport, Time>::resolve(Platform const& platform) const {
  auto const fetch_one = [this](std::string const& target, std::optional<std::uint64_t> size) {
    return document(target, size);
  };
  return resolve_image(fetch_one, reference_.target(), platform);
}

template <HttpTransport Transport, Clock Time>
std::optional<std::string> BasicRegistry<Transport, Time>::next_page(HttpHead const& head) {
  auto const link = head.find("Link");
  if (!link || link->find("rel=\"next\"") == std::string_view::npos) return std::nullopt;
  auto const begin = link->find('<');
  auto const end = link->find('>');
  if (begin == std::string_view::npos || end == std::string_view::npos || end < begin) return {};
  return std::string(link->substr(begin + 1, end - begin - 1));
}

template <HttpTransport Transport, Clock Time>
Result<std::vector<Descriptor>> BasicRegistry<Transport, Time>::referrers_by_tag(
    Digest const& digest) const {
  auto const tag = std::string(to_string(digest.algorithm())) + "-" + digest.hex();
  auto found = document_from(sessions_.back(), tag.substr(0, 128), std::nullopt);
  if (!found && found.error().code == Errc::not_found) return std::vector<Descriptor>();
  if (!found) return fail(std::move(found).error());
  auto* const index = std::get_if<Index>(&found->second);
  if (index == nullptr) return fail(Errc::corrupt, "referrers tag " + tag + " is not an index");
  return std::move(index->manifests);
}

template <HttpTransport Transport, Clock Time>
Result<std::vector<Descriptor>> BasicRegistry<Transport, Time>::referrers(
    Digest const& digest, std::string_view artifact_type) const {
  constexpr unsigned most_pages = 100;
  auto const& session = sessions_.back();
  auto url = session.url(
      "referrers/" + digest.to_string() +
      (artifact_type.empty() ? std::string() : "?artifactType=" + percent_encode(artifact_type)));
  std::vector<Descriptor> out;
  for (unsigned pages = 0;; ++pages) {
    auto page = fetch(session, url, {{"Accept", std::string(media_type::oci_index)}});
    if (!page && page.error().code == Errc::not_found && pages == 0) {
      auto by_tag = referrers_by_tag(digest);
      if (!by_tag) return by_tag;
      out = *std::move(by_tag);
      break;
    }
    if (!page) return fail(std::move(page).error());
    auto document = parse_document(page->body, page->head.find("Content-Type").value_or(""));
    if (!document) return fail(std::move(document).error(), url.without_query());
    auto const* const index = std::get_if<Index>(&*document);
    if (index == nullptr) return fail(Errc::corrupt, url.without_query() + ": not an index");
    out.insert(out.end(), index->manifests.begin(), index->manifests.end());
    auto const next = next_page(page->head);
    if (!next) break;
    auto const next_url = url.resolve(*next);
    if (!next_url || !next_url->same_origin(url) || pages + 1 == most_pages) {
      return fail(Errc::protocol, url.without_query() + ": bad link to the next page");
    }
    url = *next_url;
  }
  if (!artifact_type.empty()) {
    std::erase_if(out, [&](Descriptor const& d) { return d.artifact_type != artifact_type; });
  }
  return out;
}

}  // namespace erofs_oci
