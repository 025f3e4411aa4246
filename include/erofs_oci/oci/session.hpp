// SPDX-License-Identifier: Apache-2.0
/// @file
/// BasicSession: authorized requests to one repository of one registry.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include <erofs_oci/core/clock.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/oci/authenticator.hpp>
#include <erofs_oci/source/http_response.hpp>
#include <erofs_oci/source/http_transport.hpp>
#include <erofs_oci/source/url.hpp>

namespace erofs_oci {

/// A repository of a registry, or of a mirror of one. Copies share one login.
///
/// @par Thread safety
/// All const members, from any thread.
template <HttpTransport Transport, Clock Time>
class BasicSession {
 public:
  /// @param registry  scheme, host and port of the API
  BasicSession(Transport transport, Time time, Url registry, std::string repository,
               CredentialLookup lookup, HttpLimits limits)
      : state_(std::make_shared<State>(std::move(transport), std::move(time), std::move(registry),
                                       std::move(repository), std::move(lookup), limits)) {}

  /// GET of `/v2/REPOSITORY/path`, with one login if the registry refuses; follows redirects.
  ///
  /// @param deadline  the end of all of it
  /// @return where the last response came from
  /// @error{as HttpTransport and BasicAuthenticator::renew(), as they say}
  [[nodiscard]] Result<Url> get(std::string_view path, HttpHeaders const& headers,
                                HttpLimits const& limits,
                                std::chrono::steady_clock::time_point deadline, HttpHeadSink head,
                                ByteSink body) const {
    return get(url(path), headers, limits, deadline, head, body);
  }

  /// The same for any URL of the registry.
  [[nodiscard]] Result<Url> get(Url const& url, HttpHeaders const& headers,
                                HttpLimits const& limits,
                                std::chrono::steady_clock::time_point deadline, HttpHeadSink head,
                                ByteSink body) const {
    auto authorization = state_->authenticator.authorization(deadline);
    for (bool again = true;; again = false) {
      HttpRequest request;
      request.url = url;
      request.headers = headers;
      if (!authorization.value.empty()) {
        request.headers.push_back({"Authorization", authorization.value});
      }
      request.limits = limits;
      request.deadline = deadline;
      std::optional<HttpHead> refusal;
      auto const on_head = [&](HttpHead const& response) {
        // A 401 from where a redirect led is not about this login.
        if (!again || response.status != 401 || !request.url.same_origin(url))
          return head(response);
        refusal = response;
        return true;
      };
      auto const on_body = [&](std::span<std::byte const> bytes) {
        return refusal ? true : body(bytes);
      };
      auto done = follow(state_->transport, request, on_head, on_body);
      if (!refusal) {
        if (!done) return fail(std::move(done).error());
        return request.url;
      }
      auto renewed = state_->authenticator.renew(authorization.generation, *refusal, deadline);
      if (!renewed) return fail(std::move(renewed).error());
      authorization = *std::move(renewed);
    }
  }

  /// The URL of `/v2/REPOSITORY/path`. `path` must be fit for a URL.
  [[nodiscard]] Url url(std::string_view path) const {
    auto out = state_->registry;
    out.target = "/v2/" + state_->repository + "/" + std::string(path);
    return out;
  }

  /// `host[:port]/repository`, for messages.
  [[nodiscard]] std::string describe() const {
    return state_->registry.authority() + "/" + state_->repository;
  }

  [[nodiscard]] Transport const& transport() const noexcept { return state_->transport; }

 private:
  struct State {
    State(Transport t, Time time, Url r, std::string name, CredentialLookup lookup,
          HttpLimits limits)
        : transport(std::move(t)),
          registry(std::move(r)),
          repository(std::move(name)),
          authenticator(transport, std::move(time), registry, repository, std::move(lookup),
                        limits) {}

    Transport transport;
    Url registry;
    std::string repository;
    BasicAuthenticator<Transport, Time> authenticator;
  };

  std::shared_ptr<State> state_;
};

}  // namespace erofs_oci
