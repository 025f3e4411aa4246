// SPDX-License-Identifier: Apache-2.0
/// @file
/// FakeRegistry: a registry in memory, which takes pushes, behind a FakeTransport.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/clock.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/digest/digest.hpp>
#include <erofs_oci/digest/sha256.hpp>
#include <erofs_oci/digest/signature.hpp>
#include <erofs_oci/oci/descriptor.hpp>
#include <erofs_oci/oci/manifest.hpp>
#include <erofs_oci/oci/push.hpp>
#include <erofs_oci/oci/reference.hpp>
#include <erofs_oci/oci/registry.hpp>
#include <erofs_oci/oci/registry_host.hpp>
#include <erofs_oci/source/http_transport.hpp>
#include <erofs_oci/testing/fake_transport.hpp>

namespace erofs_oci::testing {

/// What the registry does not have, or does.
struct FakeRegistryHabits {
  bool has_referrers = true;      ///< the referrers API
  bool mounts = true;             ///< takes blobs from other repositories
  std::uint64_t least_chunk = 0;  ///< OCI-Chunk-Min-Length; 0: none
  /// Asked first; an answer is given in place of the registry's own.
  std::function<std::optional<FakeReply>(HttpRequest const&, std::size_t number)> instead{};
};

/// All repositories of a registry. Copies share all.
///
/// @par Thread safety
/// All members, from any thread, but for the fields, which are set before the first request.
class FakeRegistry {
 public:
  using Habits = FakeRegistryHabits;

  explicit FakeRegistry(Habits habits = {})
      : state_(std::make_shared<State>()),
        transport_([state = state_](HttpRequest const& request, std::size_t number) {
          return state->answer(request, number);
        }) {
    state_->habits = std::move(habits);
  }

  [[nodiscard]] FakeTransport const& transport() const noexcept { return transport_; }

  /// Puts something into a repository, as a push would.
  Descriptor add_blob(std::string const& repository, std::string_view content) const {
    Descriptor at;
    at.digest = digest_of(as_bytes(content));
    at.size = content.size();
    std::lock_guard const lock(state_->mutex);
    state_->blobs[repository][at.digest.to_string()] = content;
    return at;
  }
  Descriptor add_manifest(std::string const& repository, std::string const& tag,
                          std::string const& text) const {
    std::lock_guard const lock(state_->mutex);
    state_->put_manifest(repository, tag, text);
    Descriptor at;
    at.media_type = media_type::oci_manifest;
    at.digest = digest_of(as_bytes(text));
    at.size = text.size();
    return at;
  }

  /// What a repository has under a digest or a tag; empty: nothing.
  [[nodiscard]] std::string blob(std::string const& repository, Digest const& digest) const {
    std::lock_guard const lock(state_->mutex);
    return state_->blobs[repository][digest.to_string()];
  }
  [[nodiscard]] std::string manifest(std::string const& repository, std::string const& name) const {
    std::lock_guard const lock(state_->mutex);
    return state_->manifests[repository][name];
  }

 private:
  using Texts = std::map<std::string, std::string>;

  struct Upload {
    std::string repository;
    std::string bytes;
  };

  struct State {
    Habits habits;
    std::mutex mutex;
    std::map<std::string, Texts> blobs;      // by repository and digest
    std::map<std::string, Texts> manifests;  // by repository, and digest or tag
    std::map<std::string, Upload> uploads;
    std::size_t next_upload = 0;

    FakeReply answer(HttpRequest const& request, std::size_t number) {
      if (habits.instead) {
        auto reply = habits.instead(request, number);
        if (reply) return *std::move(reply);
      }
      std::lock_guard const lock(mutex);
      auto path = std::string_view(request.url.target);
      if (!path.starts_with("/v2/")) return {404};
      path.remove_prefix(4);
      auto const query = path.find('?');
      auto const parameters = query == path.npos ? "" : std::string(path.substr(query + 1));
      path = path.substr(0, query);
      for (std::string_view const part :
           {"/blobs/uploads/", "/blobs/", "/manifests/", "/referrers/"}) {
        auto const at = path.find(part);
        if (at == path.npos) continue;
        auto const repository = std::string(path.substr(0, at));
        auto const name = std::string(path.substr(at + part.size()));
        if (part == "/blobs/uploads/") return upload(request, repository, name, parameters);
        if (part == "/blobs/") return found(request, blobs[repository], name);
        if (part == "/referrers/") return referrers(repository, name);
        if (request.method == HttpMethod::put) return take_manifest(request, repository, name);
        return found(request, manifests[repository], name);
      }
      return {404};
    }

    static std::string parameter(std::string_view parameters, std::string_view name) {
      auto const key = std::string(name) + "=";
      while (!parameters.empty()) {
        auto const one = parameters.substr(0, parameters.find('&'));
        parameters.remove_prefix(std::min(one.size() + 1, parameters.size()));
        if (!one.starts_with(key)) continue;
        std::string out(one.substr(key.size()));
        for (auto const& [code, text] : {std::pair("%3A", ":"), std::pair("%2F", "/")}) {
          for (auto at = out.find(code); at != out.npos; at = out.find(code)) {
            out.replace(at, 3, text);
          }
        }
        return out;
      }
      return {};
    }

    static FakeReply found(HttpRequest const& request, Texts const& texts,
                           std::string const& name) {
      auto const text = texts.find(name);
      if (text == texts.end()) return {404};
      return serve(request, as_bytes(text->second));
    }

    FakeReply upload(HttpRequest const& request, std::string const& repository,
                     std::string const& id, std::string const& parameters) {
      if (request.method == HttpMethod::post) return begin_upload(repository, parameters);
      auto const there = uploads.find(id);
      if (there == uploads.end()) return {404};
      auto& bytes = there->second.bytes;
      auto const range = "0-" + std::to_string(bytes.empty() ? 0 : bytes.size() - 1);
      if (request.method == HttpMethod::get) {
        return {204,
                {{"Location", "/v2/" + repository + "/blobs/uploads/" + id}, {"Range", range}}};
      }
      auto const part = header_of(request, "Content-Range");
      if (!part.empty() && !part.starts_with(std::to_string(bytes.size()) + "-")) return {416};
      if (request.method == HttpMethod::patch) {
        if (request.body.size() < habits.least_chunk) return {400};
        bytes += request.body;
        return {202,
                {{"Location", "/v2/" + repository + "/blobs/uploads/" + id},
                 {"Range", "0-" + std::to_string(bytes.size() - 1)}}};
      }
      bytes += request.body;
      auto const digest = parameter(parameters, "digest");
      if (digest_of(as_bytes(bytes)).to_string() != digest) return {400};
      blobs[repository][digest] = std::move(bytes);
      uploads.erase(there);
      return {201};
    }

    FakeReply begin_upload(std::string const& repository, std::string const& parameters) {
      auto const digest = parameter(parameters, "mount");
      auto const from = parameter(parameters, "from");
      if (!digest.empty() && habits.mounts && blobs[from].contains(digest)) {
        blobs[repository][digest] = blobs[from][digest];
        return {201};
      }
      auto const id = std::to_string(next_upload++);
      uploads[id] = {repository, {}};
      HttpHeaders headers{{"Location", "/v2/" + repository + "/blobs/uploads/" + id}};
      if (habits.least_chunk > 0) {
        headers.push_back({"OCI-Chunk-Min-Length", std::to_string(habits.least_chunk)});
      }
      return {202, std::move(headers)};
    }

    void put_manifest(std::string const& repository, std::string const& name,
                      std::string const& text) {
      auto& all = manifests[repository];
      all[digest_of(as_bytes(text)).to_string()] = text;
      if (!Digest::parse(name)) all[name] = text;
    }

    FakeReply take_manifest(HttpRequest const& request, std::string const& repository,
                            std::string const& name) {
      auto const document = parse_document(as_bytes(request.body));
      if (!document) return {400};
      if (auto const digest = Digest::parse(name)) {
        if (digest_of(as_bytes(request.body)) != *digest) return {400};
      }
      put_manifest(repository, name, request.body);
      HttpHeaders headers;
      auto const* const manifest = std::get_if<Manifest>(&*document);
      if (habits.has_referrers && manifest != nullptr && manifest->subject) {
        headers.push_back({"OCI-Subject", manifest->subject->digest.to_string()});
      }
      return {201, std::move(headers)};
    }

    FakeReply referrers(std::string const& repository, std::string const& digest) {
      if (!habits.has_referrers) return {404};
      Index index;
      index.media_type = media_type::oci_index;
      for (auto const& [name, text] : manifests[repository]) {
        auto const document = parse_document(as_bytes(text));
        auto const* const manifest = document ? std::get_if<Manifest>(&*document) : nullptr;
        if (manifest == nullptr || !manifest->subject || !Digest::parse(name)) continue;
        if (manifest->subject->digest.to_string() != digest) continue;
        Descriptor at;
        at.media_type = manifest->media_type;
        at.digest = *Digest::parse(name);
        at.size = text.size();
        at.artifact_type = manifest->artifact_type;
        index.manifests.push_back(std::move(at));
      }
      return {200, {}, to_bytes(encode(index))};
    }
  };

  std::shared_ptr<State> state_;
  FakeTransport transport_;
};

/// Pushes to a FakeRegistry; no pause takes time.
using FakePusher = BasicPusher<FakeTransport, ManualClock>;

/// Pushes to its repository `n/m`, and reads from there.
[[nodiscard]] inline FakePusher fake_pusher(FakeRegistry const& registry, PushOptions push = {},
                                            RegistryOptions options = {}) {
  auto const transport_of = [&](RegistryHost const&) -> Result<FakeTransport> {
    return registry.transport();
  };
  return *FakePusher::make(*Reference::parse("r.x/n/m"), std::move(options), transport_of,
                           std::move(push));
}

/// An Ed25519 key, made by `openssl genpkey`; for tests alone.
[[nodiscard]] inline PrivateKey const& signing_key() {
  static auto const key = PrivateKey::from_pem(
      "-----BEGIN PRIVATE KEY-----\n"
      "MC4CAQAwBQYDK2VwBCIEIEHPkRbXfRKXkVBYSIXlC5tScsrXQh0dXF9foIZGxR5/\n"
      "-----END PRIVATE KEY-----\n");
  return *key;
}

}  // namespace erofs_oci::testing
