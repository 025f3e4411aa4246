// SPDX-License-Identifier: Apache-2.0
/// @file
/// BasicRegistry: one repository of a registry: its images, its blobs, what refers to them.
#pragma once

#include <algorithm>
#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
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
#include <erofs_oci/core/text.hpp>
#include <erofs_oci/digest/sha256.hpp>
#include <erofs_oci/oci/auth.hpp>
#include <erofs_oci/oci/blob.hpp>
#include <erofs_oci/oci/detail/registry_answers.hpp>
#include <erofs_oci/oci/image.hpp>
#include <erofs_oci/oci/manifest.hpp>
#include <erofs_oci/oci/reference.hpp>
#include <erofs_oci/oci/registry_host.hpp>
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

/// A manifest or index that is kept on this machine.
struct LocalDocument {
  Digest digest;
  std::string media_type;  ///< as the registry said; may be empty
  Bytes body;
};

/// What is kept of a registry's documents, by tag or digest. Each function may be empty.
struct LocalDocuments {
  /// Asked first; the registry is asked if the answer is empty, but not if it is an error.
  std::function<Result<std::optional<LocalDocument>>(std::string const& tag_or_digest)> find{};
  /// Asked for what to take when the registry has failed; an empty answer is that failure.
  std::function<std::optional<LocalDocument>(std::string const& tag_or_digest, Error const& why)>
      instead{};
  /// Told what the registry has sent.
  std::function<void(std::string const& tag_or_digest, LocalDocument const& sent)> keep{};
  /// Whether nothing is known to refer to a manifest: then the registry is not asked what does.
  std::function<bool(Digest const& subject, std::string_view artifact_type)> none_refers{};
  /// Told that the registry knows of nothing that does.
  std::function<void(Digest const& subject, std::string_view artifact_type)> keep_none{};
};

/// How a repository is read.
struct RegistryOptions {
  RegistryProtocol protocol = RegistryProtocol::https;
  /// Asked before the registry, in order; the registry answers what they do not.
  std::vector<RegistryHost> mirrors{};
  /// Asked in place of the registry's own host. Default: that host, by `protocol`
  std::optional<RegistryHost> server{};
  /// Asked once a registry or mirror wants a login. Default: anonymous.
  CredentialLookup credentials{};
  /// For each manifest, login and read of a blob.
  HttpLimits limits{};
  /// Asked for manifests and indexes before and after the registry. Default: nothing is kept
  LocalDocuments local{};
};

/// The host of the registry that a reference names, by RegistryOptions::protocol or as
/// RegistryOptions::server says.
/// @error{Errc::invalid_argument, http to Docker Hub}
[[nodiscard]] inline Result<RegistryHost> own_host(Reference const& reference,
                                                   RegistryOptions const& options) {
  auto const* const scheme = options.protocol == RegistryProtocol::http ? "http://" : "https://";
  EROFS_OCI_TRY_ASSIGN(auto host, RegistryHost::parse(scheme + reference.registry), "registry");
  if (options.server) host = *options.server;
  if (host.api.host == Reference::docker_hub && !host.api.is_secure()) {
    return fail(Errc::invalid_argument, "Docker Hub is never used over http");
  }
  return host;
}

/// The tag under which a registry without the referrers API has the list of what refers to a
/// manifest. @spec{OCI distribution-spec 1.1, referrers tag schema}
[[nodiscard]] inline std::string referrers_tag(Digest const& subject) {
  return (std::string(to_string(subject.algorithm())) + "-" + subject.hex()).substr(0, 128);
}

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
  /// @param transport_of  yields the Transport for a RegistryHost
  /// @error{Errc::invalid_argument, http to Docker Hub\, or no host may be pulled from}
  /// @error{as transport_of\, it fails}
  template <std::invocable<RegistryHost const&> TransportOf>
  [[nodiscard]] static Result<BasicRegistry> make(Reference reference, RegistryOptions options,
                                                  TransportOf const& transport_of, Time time = {}) {
    auto hosts = options.mirrors;
    auto const* const scheme = options.protocol == RegistryProtocol::http ? "http://" : "https://";
    EROFS_OCI_TRY_ASSIGN(auto const own, RegistryHost::parse(scheme + reference.registry),
                         "registry");
    hosts.push_back(options.server.value_or(own));
    BasicRegistry out(std::move(reference), std::move(options), std::move(time));
    for (auto const& host : hosts) {
      if (host.api.host == Reference::docker_hub && !host.api.is_secure()) {
        return fail(Errc::invalid_argument, "Docker Hub is never used over http");
      }
      auto const other = host.api.authority() != own.api.authority();
      Result<Transport> transport = transport_of(host);
      if (!transport) return fail(std::move(transport).error(), host.api.authority());
      out.sessions_.emplace_back(*std::move(transport), out.time_, host,
                                 !other                           ? ""
                                 : out.reference_.is_docker_hub() ? "docker.io"
                                                                  : out.reference_.registry,
                                 out.reference_.repository, out.options_.credentials,
                                 out.options_.limits);
    }
    if (std::ranges::none_of(hosts, &RegistryHost::pulls)) {
      return fail(Errc::invalid_argument,
                  out.reference_.registry + ": no host may be pulled from, by its hosts.toml");
    }
    return out;
  }

  /// The same with one transport for all hosts.
  [[nodiscard]] static Result<BasicRegistry> make(Reference reference, RegistryOptions options,
                                                  Transport transport, Time time = {}) {
    auto const same = [&](RegistryHost const&) -> Result<Transport> { return transport; };
    return make(std::move(reference), std::move(options), same, std::move(time));
  }

  /// The same with a transport of its own, made by default.
  [[nodiscard]] static Result<BasicRegistry> make(Reference reference, RegistryOptions options = {})
    requires std::default_initializable<Transport>
  {
    return make(std::move(reference), std::move(options), Transport());
  }

  /// Follows the reference to the image for `platform`: one request for a manifest, two through an
  /// index. What was asked by digest is checked; a tag's digest is computed.
  /// @error{Errc::not_found, no such image\, or none for that platform; the message names tags that
  /// there are}
  /// @error{Errc::digest_mismatch, the registry sent something else than was asked for}
  /// @error{as parse_document() and BasicOciBlob::read_at(), as they say}
  [[nodiscard]] Result<Image> resolve(Platform const& platform) const {
    auto const fetch_one = [this](std::string const& target, std::optional<std::uint64_t> size) {
      return document(target, size);
    };
    return resolve_image(fetch_one, reference_.target(), platform);
  }

  /// One manifest or index, by tag or digest.
  /// @param size  its bytes, if they are known; another size is an error
  /// @error{as resolve(), as resolve()}
  [[nodiscard]] Result<FoundDocument> document(
      std::string const& tag_or_digest, std::optional<std::uint64_t> size = std::nullopt) const {
    auto const& local = options_.local;
    if (local.find) {
      EROFS_OCI_TRY_ASSIGN(auto const kept, local.find(tag_or_digest));
      if (kept) return local_document(*kept, tag_or_digest, size);
    }
    auto const may = Digest::parse(tag_or_digest) ? &RegistryHost::pulls : &RegistryHost::resolves;
    Result<FoundDocument> found = fail(no_host());
    Session const* asked = nullptr;
    for (auto const& session : sessions_) {
      if (!(session.host().*may)) continue;
      asked = &session;
      found = document_from(session, tag_or_digest, size);
      if (found) break;  // else the last one's word counts
    }
    if (!found && local.instead) {
      auto const kept = local.instead(tag_or_digest, found.error());
      if (kept) return local_document(*kept, tag_or_digest, size);
    }
    if (!found && found.error().code == Errc::not_found && !Digest::parse(tag_or_digest)) {
      return fail(no_such_tag(*asked, tag_or_digest, std::move(found).error()));
    }
    return found;
  }

  /// A blob of this repository, as a source. Makes no request: a blob that is not there is an
  /// error of the first read.
  [[nodiscard]] Blob blob(Descriptor const& descriptor) const {
    auto sessions = sessions_;
    std::erase_if(sessions, [](Session const& session) { return !session.host().pulls; });
    return Blob(std::move(sessions), descriptor.digest, descriptor.size, options_.limits, time_);
  }

  /// What refers to a manifest: the referrers API, or the tag that stands in for it. Nothing, and
  /// no request, if LocalDocuments::none_refers says so.
  /// @param artifact_type  only those; empty: all
  /// @error{as document(), as document(); nothing found is an empty list}
  [[nodiscard]] Result<std::vector<Descriptor>> referrers(Digest const& digest,
                                                          std::string_view artifact_type) const {
    constexpr unsigned most_pages = 100;
    if (options_.local.none_refers && options_.local.none_refers(digest, artifact_type)) {
      return std::vector<Descriptor>();
    }
    auto const resolving =
        std::ranges::find_if(sessions_.rbegin(), sessions_.rend(),
                             [](Session const& session) { return session.host().resolves; });
    if (resolving == sessions_.rend()) return fail(no_host());
    auto const& session = *resolving;
    auto url = session.url(
        "referrers/" + digest.to_string() +
        (artifact_type.empty() ? std::string() : "?artifactType=" + percent_encode(artifact_type)));
    std::vector<Descriptor> out;
    for (unsigned pages = 0;; ++pages) {
      auto page = fetch(session, url, {{"Accept", std::string(media_type::oci_index)}});
      if (!page && page.error().code == Errc::not_found && pages == 0) {
        EROFS_OCI_TRY_ASSIGN(out, referrers_by_tag(session, digest));
        break;
      }
      if (!page) return fail(std::move(page).error());
      EROFS_OCI_TRY_ASSIGN(auto document, page->document(), url.without_query());
      auto const* const index = std::get_if<Index>(&document);
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
    if (out.empty() && options_.local.keep_none) options_.local.keep_none(digest, artifact_type);
    return out;
  }

  [[nodiscard]] Reference const& reference() const noexcept { return reference_; }

  /// For what waits between its requests.
  [[nodiscard]] Time const& time() const noexcept { return time_; }

 private:
  using Session = BasicSession<Transport, Time>;

  /// A response whose body is small enough to be kept.
  struct Page {
    HttpHead head;
    Bytes body;

    Result<Document> document() const {
      return parse_document(body, head.find("Content-Type").value_or(""));
    }
  };

  BasicRegistry(Reference reference, RegistryOptions options, Time time)
      : reference_(std::move(reference)), options_(std::move(options)), time_(std::move(time)) {}

  [[nodiscard]] Error no_host() const {
    return {Errc::invalid_argument,
            reference_.registry + ": no host may resolve a tag, by its hosts.toml"};
  }

  static Result<FoundDocument> local_document(LocalDocument const& kept,
                                              std::string const& tag_or_digest,
                                              std::optional<std::uint64_t> size) {
    auto const asked = Digest::parse(tag_or_digest);
    if (asked && *asked != kept.digest) return fail(Errc::digest_mismatch, tag_or_digest);
    if (size && kept.body.size() != *size) {
      return detail::wrong_size(tag_or_digest, kept.body.size(), *size);
    }
    EROFS_OCI_TRY_ASSIGN(auto document, parse_document(kept.body, kept.media_type), tag_or_digest);
    return FoundDocument{kept.digest, kept.body.size(), std::move(document)};
  }

  /// The error of a tag that is not there, with what there is in its place, as far as the registry
  /// tells within 5 s; else `error` itself.
  Error no_such_tag(Session const& session, std::string const& tag, Error error) const {
    constexpr std::size_t most = 10;  // tags in the message
    auto const limit =
        std::min<std::chrono::milliseconds>(options_.limits.total, std::chrono::seconds(5));
    auto const page =
        fetch(session, session.url("tags/list?n=" + std::to_string(most + 1)), {}, limit);
    if (!page) {
      if (page.error().code != Errc::not_found) return error;
      return explain(Errc::not_found, session.host().api.authority() + " has no repository " +
                                          detail::quote(reference_.repository));
    }
    auto const tags = detail::read_tag_list(page->body);
    if (!tags || std::ranges::find(*tags, tag) != tags->end()) return error;
    return explain(Errc::not_found, session.describe() + " has no tag " + detail::quote(tag) +
                                        "; " + detail::list_tags(*tags, most));
  }

  Result<Page> fetch(Session const& session, Url const& url, HttpHeaders const& headers) const {
    return fetch(session, url, headers, options_.limits.total);
  }

  Result<Page> fetch(Session const& session, Url const& url, HttpHeaders const& headers,
                     std::chrono::milliseconds limit) const {
    constexpr std::size_t longest_refusal = 64 * 1024;
    Page page;
    std::optional<Error> error;
    auto const head = [&](HttpHead const& response) {
      page.head = response;
      if (response.status >= 400) return true;  // its body may say why
      error = erofs_oci::status_error(response);
      auto const encoding = response.find("Content-Encoding");
      if (!error && encoding && !encoding->empty() && !equal_ignoring_case(*encoding, "identity")) {
        error = Error{Errc::protocol, "the server packed the content, which was not asked for"};
      }
      return !error;
    };
    auto const body = [&](std::span<std::byte const> bytes) {
      if (page.head.status >= 400 && bytes.size() > longest_refusal - page.body.size())
        return false;
      if (bytes.size() > max_document_size - page.body.size()) {
        error = Error{Errc::unsupported, "manifest of more than 4 MiB"};
        return false;
      }
      page.body.insert(page.body.end(), bytes.begin(), bytes.end());
      return true;
    };
    auto const from = session.get(url, headers, options_.limits, time_.now() + limit, head, body);
    if (page.head.status >= 400) {
      error = session.status_error(page.head, from.value_or(url));
      auto const why = detail::read_refusal(page.body).text();
      if (error && !why.empty()) error->context += " " + why;
    } else if (!from) {
      return fail(from.error());
    }
    if (error) return fail(*std::move(error), url.without_query());
    return page;
  }

  Result<FoundDocument> document_from(Session const& session, std::string const& tag_or_digest,
                                      std::optional<std::uint64_t> size) const {
    auto const url = session.url("manifests/" + tag_or_digest);
    HttpHeaders headers{{"Accept-Encoding", "identity"}};
    for (auto const type : {media_type::oci_index, media_type::docker_list,
                            media_type::oci_manifest, media_type::docker_manifest}) {
      headers.push_back({"Accept", std::string(type)});
    }
    EROFS_OCI_TRY_ASSIGN(auto page, fetch(session, url, headers));

    // What a tag leads to is believed, but not if the registry contradicts itself.
    auto const said = page.head.find("Docker-Content-Digest");
    auto asked = Digest::parse(tag_or_digest);
    if (!asked && said) asked = Digest::parse(*said);
    auto const algorithm = asked ? asked->algorithm() : DigestAlgorithm::sha256;
    auto const computed = digest_of(page.body, algorithm);
    if (asked && computed != *asked) {
      return fail(Errc::digest_mismatch, url.without_query() + ": expected " + asked->to_string() +
                                             ", the body is " + computed.to_string());
    }
    if (size && page.body.size() != *size) {
      return detail::wrong_size(url.without_query(), page.body.size(), *size);
    }
    EROFS_OCI_TRY_ASSIGN(auto document, page.document(), url.without_query());
    auto const bytes = page.body.size();
    if (options_.local.keep) {
      options_.local.keep(tag_or_digest,
                          {computed, std::string(page.head.find("Content-Type").value_or("")),
                           std::move(page.body)});
    }
    return FoundDocument{computed, bytes, std::move(document)};
  }

  Result<std::vector<Descriptor>> referrers_by_tag(Session const& session,
                                                   Digest const& digest) const {
    auto const tag = referrers_tag(digest);
    auto found = document_from(session, tag, std::nullopt);
    if (!found && found.error().code == Errc::not_found) return std::vector<Descriptor>();
    if (!found) return fail(std::move(found).error());
    auto* const index = std::get_if<Index>(&found->document);
    if (index == nullptr) return fail(Errc::corrupt, "referrers tag " + tag + " is not an index");
    return std::move(index->manifests);
  }

  static std::optional<std::string> next_page(HttpHead const& head) {
    auto const link = head.find("Link");
    if (!link || link->find("rel=\"next\"") == std::string_view::npos) return std::nullopt;
    auto const begin = link->find('<');
    auto const end = link->find('>');
    if (begin == std::string_view::npos || end == std::string_view::npos || end < begin) return {};
    return std::string(link->substr(begin + 1, end - begin - 1));
  }

  Reference reference_;
  RegistryOptions options_;
  Time time_;
  std::vector<Session> sessions_;  // of options_.mirrors, then of the server or registry
};

}  // namespace erofs_oci
