// SPDX-License-Identifier: Apache-2.0
/// @file
/// BasicPusher: puts blobs and manifests into one repository of a registry.
#pragma once

#include <algorithm>
#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include <erofs_oci/core/backoff.hpp>
#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/clock.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/core/text.hpp>
#include <erofs_oci/digest/digest.hpp>
#include <erofs_oci/digest/sha256.hpp>
#include <erofs_oci/oci/auth.hpp>
#include <erofs_oci/oci/detail/registry_answers.hpp>
#include <erofs_oci/oci/manifest.hpp>
#include <erofs_oci/oci/reference.hpp>
#include <erofs_oci/oci/registry.hpp>
#include <erofs_oci/oci/registry_host.hpp>
#include <erofs_oci/oci/session.hpp>
#include <erofs_oci/source/http_response.hpp>
#include <erofs_oci/source/http_transport.hpp>
#include <erofs_oci/source/url.hpp>

namespace erofs_oci {

/// How a repository is pushed to.
struct PushOptions {
  std::uint64_t chunk =
      8 << 20;            ///< bytes of one request; a registry may want more. Default: 8 MiB
  unsigned attempts = 5;  ///< for each step, after transient errors. Default: 5
  std::chrono::milliseconds pause{500};  ///< before the second attempt; doubles each time
  /// Repositories of the same registry that blobs may be taken from.
  std::vector<std::string> mount_from{};
};

/// How a blob came into a repository.
enum class BlobPush : std::uint8_t {
  was_there,  ///< the repository had it
  mounted,    ///< the registry took it from another repository
  uploaded,   ///< its bytes were sent
};

namespace detail {

/// How far an upload has come.
struct Upload {
  std::optional<Url> location;  // of the next request; empty: not begun
  std::uint64_t sent = 0;       // bytes that the registry has
  std::uint64_t least = 1;      // bytes that it wants in each request but the last
  bool in_doubt = false;        // a request has failed: the registry knows what it has
  bool mounted = false;         // it needs no bytes
};

/// What the registry says of an upload: "0-N" is N + 1 bytes. "0-0" is one byte or, with some
/// registries before the first one, none. @spec{OCI distribution-spec 1.1, pushing blobs}
[[nodiscard]] inline std::optional<std::uint64_t> upload_range(std::string_view text) {
  if (text.starts_with("bytes=")) text.remove_prefix(6);
  auto const dash = text.find('-');
  if (dash == text.npos || parse_number(text.substr(0, dash)) != std::uint64_t{0}) return {};
  auto const last = parse_number(text.substr(dash + 1));
  if (!last || *last == UINT64_MAX) return {};
  return *last + 1;
}

}  // namespace detail

/// Pushes to one repository of a registry. Copies share logins and connections. Mirrors get
/// nothing: what is pushed goes to the registry itself.
///
/// @par Thread safety
/// All const members, from any thread.
template <HttpTransport Transport, Clock Time = SteadyClock>
class BasicPusher {
 public:
  /// The repository that `reference` names; its tag and digest do not count. Makes no request.
  /// @param options       of them server, protocol, credentials and limits
  /// @param transport_of  yields the Transport for a RegistryHost
  /// @error{as BasicRegistry::make(), as there}
  template <std::invocable<RegistryHost const&> TransportOf>
  [[nodiscard]] static Result<BasicPusher> make(Reference const& reference, RegistryOptions options,
                                                TransportOf const& transport_of,
                                                PushOptions push = {}, Time time = {}) {
    options.mirrors.clear();
    options.local = {};
    EROFS_OCI_TRY_ASSIGN(auto const host, own_host(reference, options));
    EROFS_OCI_TRY_ASSIGN(auto registry, Registry::make(reference, options, transport_of, time));
    Result<Transport> transport = transport_of(host);
    if (!transport) return fail(std::move(transport).error(), host.api.authority());
    Session session(*std::move(transport), time, host, {}, reference.repository,
                    options.credentials, options.limits, {true, push.mount_from});
    return BasicPusher(std::move(registry), std::move(session), options.limits, std::move(push),
                       std::move(time));
  }

  /// Puts a blob there, unless the repository has it or the registry can take it from one of
  /// PushOptions::mount_from. An upload that breaks goes on where the registry says it stands.
  /// @error{Errc::unauthorized, the registry does not allow it}
  /// @error{Errc::protocol, the registry refuses it\, or its answers make no sense}
  /// @error{as HttpTransport, after all attempts}
  [[nodiscard]] Result<BlobPush> put_blob(Digest const& digest,
                                          std::span<std::byte const> bytes) const {
    EROFS_OCI_TRY_ASSIGN(auto const there, trying([&] { return has_blob(digest); }));
    if (there) return BlobPush::was_there;
    detail::Upload upload;
    auto done = put_from(upload, digest, bytes, 0);
    for (unsigned n = 1; !done && pauses(n, done.error()); ++n) {
      auto const before = upload.sent;
      upload.in_doubt = true;
      done = put_from(upload, digest, bytes, n);
      if (upload.sent > before) n = 0;  // it gets on
    }
    if (!done) return fail(std::move(done).error(), where() + ": blob " + digest.to_string());
    return upload.mounted ? BlobPush::mounted : BlobPush::uploaded;
  }

  /// Whether the repository has a blob.
  /// @error{as HttpTransport, as there}
  [[nodiscard]] Result<bool> has_blob(Digest const& digest) const {
    EROFS_OCI_TRY_ASSIGN(auto const reply,
                         send(HttpMethod::head, session_.url("blobs/" + digest.to_string())));
    if (reply.head.status == 404) return false;
    EROFS_OCI_TRY(check(reply));
    return true;
  }

  /// Puts a manifest or an index there, under its digest or a tag.
  /// @return whether the registry has noted what the manifest refers to, see attach()
  /// @error{as put_blob(), as there; the registry may miss a blob that the manifest names}
  [[nodiscard]] Result<bool> put_manifest(std::string const& tag_or_digest,
                                          std::string_view media_type,
                                          std::string const& text) const {
    auto const put = [&]() -> Result<bool> {
      EROFS_OCI_TRY_ASSIGN(auto const reply,
                           send(HttpMethod::put, session_.url("manifests/" + tag_or_digest),
                                {{"Content-Type", std::string(media_type)}}, text));
      EROFS_OCI_TRY(check(reply));
      return reply.head.find("OCI-Subject").has_value();
    };
    auto done = trying(put);
    if (!done) return fail(std::move(done).error(), where() + ": manifest " + tag_or_digest);
    return done;
  }

  /// Puts a manifest there that refers to another one, so that BasicRegistry::referrers() finds it.
  /// A registry without the referrers API gets it into the list under the tag that stands for the
  /// API. Its blobs must be there.
  /// @param artifact  with a subject
  /// @return what points to it
  /// @error{as put_manifest(), as there}
  /// @error{Errc::unavailable, others change the list all the time}
  [[nodiscard]] Result<Descriptor> attach(Manifest const& artifact) const {
    auto const text = encode(artifact);
    auto at = descriptor_of(artifact.media_type, as_bytes(text));
    at.artifact_type = artifact.artifact_type;
    at.annotations = artifact.annotations;
    EROFS_OCI_TRY_ASSIGN(auto const noted,
                         put_manifest(at.digest.to_string(), at.media_type, text));
    if (!noted) EROFS_OCI_TRY(add_to_list(artifact.subject->digest, at));
    return at;
  }

  /// What the repository has under a tag or digest.
  /// @error{as BasicRegistry::document(), as there}
  [[nodiscard]] Result<FoundDocument> document(std::string const& tag_or_digest) const {
    return registry_.document(tag_or_digest);
  }

  /// For reading from the same repository.
  [[nodiscard]] BasicRegistry<Transport, Time> const& registry() const noexcept {
    return registry_;
  }

 private:
  using Registry = BasicRegistry<Transport, Time>;
  using Session = BasicSession<Transport, Time>;

  struct Reply {
    HttpHead head;
    Url url;
    std::string text;  // of a refusal
  };

  BasicPusher(Registry registry, Session session, HttpLimits limits, PushOptions push, Time time)
      : registry_(std::move(registry)),
        session_(std::move(session)),
        limits_(limits),
        push_(std::move(push)),
        time_(std::move(time)) {}

  [[nodiscard]] std::string where() const { return session_.describe(); }

  // Lets the pause before attempt `n`, from 1, pass, if there is to be one. A registry that asks
  // for more than 30 s is asked again then: how often counts, not how long it has taken.
  [[nodiscard]] bool pauses(unsigned n, Error error) const {
    constexpr std::chrono::milliseconds longest{30'000};
    if (error.retry_after) error.retry_after = std::min(*error.retry_after, longest);
    Backoff const backoff{push_.attempts, push_.pause, longest, longest, 0};
    auto const pause = backoff.next(n - 1, error, std::chrono::milliseconds(0));
    return pause && time_.sleep(*pause);
  }

  template <class F>
  [[nodiscard]] auto trying(F const& step) const {
    auto done = step();
    for (unsigned n = 1; !done && pauses(n, done.error()); ++n) done = step();
    return done;
  }

  [[nodiscard]] Result<Reply> send(HttpMethod method, Url const& url, HttpHeaders headers = {},
                                   std::string body = {}) const {
    constexpr std::size_t longest = 64 * 1024;
    auto const deadline = time_.now() + limits_.stream_total(body.size());
    HttpRequest const request{method, url, std::move(headers), std::move(body), limits_, deadline};
    Reply reply;
    Bytes text;
    auto const head = [&](HttpHead const& response) {
      reply.head = response;
      return true;
    };
    auto const take = [&](std::span<std::byte const> bytes) {
      if (bytes.size() > longest - text.size()) return false;
      text.insert(text.end(), bytes.begin(), bytes.end());
      return true;
    };
    EROFS_OCI_TRY_ASSIGN(reply.url, session_.exchange(request, head, take), url.without_query());
    if (reply.head.status >= 400) reply.text = detail::read_refusal(text).text();
    return reply;
  }

  [[nodiscard]] Result<void> check(Reply const& reply) const {
    auto error = session_.status_error(reply.head, reply.url);
    // A redirect is not followed by what changes something.
    if (!error && (reply.head.status < 200 || reply.head.status > 299)) {
      error = Error{Errc::protocol, "HTTP status " + std::to_string(reply.head.status)};
    }
    if (!error) return {};
    if (!reply.text.empty()) error->context += " " + reply.text;
    return fail(*std::move(error), reply.url.without_query());
  }

  // One attempt to bring all of a blob there.
  [[nodiscard]] Result<void> put_from(detail::Upload& upload, Digest const& digest,
                                      std::span<std::byte const> bytes, unsigned attempt) const {
    if (attempt > 0) {  // the answer to the last request may have been lost
      EROFS_OCI_TRY_ASSIGN(auto const there, has_blob(digest));
      if (there) return {};
    }
    if (upload.location && upload.in_doubt) EROFS_OCI_TRY(ask(upload, bytes.size()));
    if (!upload.location) EROFS_OCI_TRY(begin(upload, digest, attempt));
    if (upload.mounted) return {};
    auto const chunk = std::max({push_.chunk, upload.least, std::uint64_t{1}});
    while (bytes.size() - upload.sent > chunk) {
      EROFS_OCI_TRY(send_chunk(upload, bytes.subspan(static_cast<std::size_t>(upload.sent),
                                                     static_cast<std::size_t>(chunk))));
    }
    return finish(upload, digest, bytes.subspan(static_cast<std::size_t>(upload.sent)));
  }

  // Begins an upload, or has the registry take the blob from another repository: each of them is
  // asked once. @spec{OCI distribution-spec 1.1, mounting a blob from another repository}
  [[nodiscard]] Result<void> begin(detail::Upload& upload, Digest const& digest,
                                   unsigned attempt) const {
    upload = {};
    std::vector<std::string> queries;
    if (attempt == 0) {
      for (auto const& from : push_.mount_from) {
        queries.push_back("?mount=" + percent_encode(digest.to_string()) +
                          "&from=" + percent_encode(from));
      }
    }
    if (queries.empty()) queries.emplace_back();
    for (auto const& query : queries) {
      EROFS_OCI_TRY_ASSIGN(auto const reply,
                           send(HttpMethod::post, session_.url("blobs/uploads/" + query)));
      EROFS_OCI_TRY(check(reply));
      upload.mounted = !query.empty() && reply.head.status == 201;
      if (upload.mounted) return {};
      EROFS_OCI_TRY(take_location(upload, reply));
    }
    return {};
  }

  [[nodiscard]] static Result<void> take_location(detail::Upload& upload, Reply const& reply) {
    auto const location = reply.head.find("Location");
    auto const at = reply.url.without_query();
    if (!location) return fail(Errc::protocol, at + ": the registry does not say where to upload");
    EROFS_OCI_TRY_ASSIGN(auto url, reply.url.resolve(*location), at + ": Location");
    if (reply.url.is_secure() && !url.is_secure()) {
      return fail(Errc::protocol,
                  at + ": the upload would go from https to " + url.without_query());
    }
    upload.location = std::move(url);
    if (auto const least = reply.head.find("OCI-Chunk-Min-Length")) {
      constexpr std::uint64_t most = std::uint64_t{1} << 30;
      upload.least = std::min(parse_number(*least).value_or(1), most);
    }
    return {};
  }

  // Asks the registry how far an upload has come; if it does not know, the upload begins anew.
  [[nodiscard]] Result<void> ask(detail::Upload& upload, std::uint64_t size) const {
    EROFS_OCI_TRY_ASSIGN(auto const reply, send(HttpMethod::get, *upload.location));
    auto const range = reply.head.find("Range");
    auto const sent = range ? detail::upload_range(*range) : std::nullopt;
    if (check(reply) && sent && *sent <= size && *sent > 1 &&
        (!reply.head.find("Location") || take_location(upload, reply))) {
      upload.sent = *sent;
      upload.in_doubt = false;
      return {};
    }
    upload = {};
    return {};
  }

  [[nodiscard]] Result<void> send_chunk(detail::Upload& upload,
                                        std::span<std::byte const> part) const {
    auto const range =
        std::to_string(upload.sent) + "-" + std::to_string(upload.sent + part.size() - 1);
    EROFS_OCI_TRY_ASSIGN(auto const reply, send(HttpMethod::patch, *upload.location,
                                                {{"Content-Type", "application/octet-stream"},
                                                 {"Content-Range", range}},
                                                std::string(as_text(part))));
    if (reply.head.status == 416 ||
        reply.head.status == 404) {  // it has something else than we know
      return fail(Errc::unavailable,
                  reply.url.without_query() + ": the registry has lost the place");
    }
    EROFS_OCI_TRY(check(reply));
    auto const came = reply.head.find("Range");
    if (came && detail::upload_range(*came) != upload.sent + part.size()) {
      return fail(Errc::unavailable, reply.url.without_query() + ": the registry has taken a part");
    }
    upload.sent += part.size();
    return take_location(upload, reply);
  }

  [[nodiscard]] Result<void> finish(detail::Upload& upload, Digest const& digest,
                                    std::span<std::byte const> rest) const {
    auto url = *upload.location;
    url.target += (url.target.find('?') == url.target.npos ? "?digest=" : "&digest=") +
                  percent_encode(digest.to_string());
    HttpHeaders headers{{"Content-Type", "application/octet-stream"}};
    if (upload.sent > 0 && !rest.empty()) {
      headers.push_back({"Content-Range", std::to_string(upload.sent) + "-" +
                                              std::to_string(upload.sent + rest.size() - 1)});
    }
    EROFS_OCI_TRY_ASSIGN(auto const reply, send(HttpMethod::put, url, std::move(headers),
                                                std::string(as_text(rest))));
    if (reply.head.status == 416 || reply.head.status == 404) {
      return fail(Errc::unavailable,
                  reply.url.without_query() + ": the registry has lost the place");
    }
    return check(reply);
  }

  // Adds to the list that stands for the referrers API. Others may write it at the same time, so it
  // is read again. @spec{OCI distribution-spec 1.1, referrers tag schema}
  [[nodiscard]] Result<void> add_to_list(Digest const& subject, Descriptor const& added) const {
    constexpr unsigned most = 5;
    auto const tag = referrers_tag(subject);
    for (unsigned n = 0;; ++n) {
      EROFS_OCI_TRY_ASSIGN(auto index, list(tag));
      if (std::ranges::find(index.manifests, added.digest, &Descriptor::digest) !=
          index.manifests.end()) {
        return {};
      }
      if (n == most) {
        return fail(Errc::unavailable, where() + ": others change the tag " + tag);
      }
      index.manifests.push_back(added);
      EROFS_OCI_TRY(put_manifest(tag, index.media_type, encode(index)));
    }
  }

  [[nodiscard]] Result<Index> list(std::string const& tag) const {
    Index empty;
    empty.media_type = media_type::oci_index;
    auto found = trying([&] { return registry_.document(tag); });
    if (!found && found.error().code == Errc::not_found) return empty;
    if (!found) return fail(std::move(found).error());
    auto* const index = std::get_if<Index>(&found->document);
    if (index == nullptr) return fail(Errc::corrupt, "referrers tag " + tag + " is not an index");
    return std::move(*index);
  }

  Registry registry_;
  Session session_;
  HttpLimits limits_;
  PushOptions push_;
  Time time_;
};

}  // namespace erofs_oci
