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
#include <vector>

#include <erofs_oci/core/clock.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/core/text.hpp>
#include <erofs_oci/oci/authenticator.hpp>
#include <erofs_oci/oci/registry_host.hpp>
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
  /// @param host     where it is asked
  /// @param registry  `host[:port]` of the registry whose images `host` has, if that is another
  /// one:
  ///                  mirrors of several registries are told, as by containerd; else empty
  /// @param scope     what it logs in for. Default: to pull
  BasicSession(Transport transport, Time time, RegistryHost host, std::string registry,
               std::string repository, CredentialLookup lookup, HttpLimits limits,
               LoginScope scope = {})
      : login_(std::make_shared<Authenticator>(std::move(transport), std::move(time), host.api,
                                               std::move(repository), std::move(lookup), limits,
                                               std::move(scope))),
        host_(std::make_shared<RegistryHost const>(std::move(host))),
        query_(registry.empty() ? "" : "ns=" + percent_encode(registry)) {}

  /// GET of a URL of the registry, with one login if the registry refuses; follows redirects. A 403
  /// is such a refusal if it says how to log in, or answers a login that may have expired.
  ///
  /// @param deadline  the end of all of it
  /// @return where the last response came from
  /// @error{as HttpTransport and BasicAuthenticator::renew(), as they say}
  [[nodiscard]] Result<Url> get(Url const& url, HttpHeaders const& headers,
                                HttpLimits const& limits,
                                std::chrono::steady_clock::time_point deadline, HttpHeadSink head,
                                ByteSink body) const {
    return exchange({HttpMethod::get, url, headers, {}, limits, deadline}, head, body);
  }

  /// Any request, with one login if the registry refuses. Only those that change nothing follow
  /// redirects. One to another host than the registry's, where an upload may lead, goes without the
  /// login and without the host's headers.
  /// @return where the last response came from
  /// @error{as get(), as get()}
  [[nodiscard]] Result<Url> exchange(HttpRequest const& wanted, HttpHeadSink head,
                                     ByteSink body) const {
    auto const follows = is_safe(wanted.method);
    auto const make = [&](HttpRequest& request, HttpHeadSink on_head, ByteSink on_body) {
      return follows ? follow(login_->transport(), request, on_head, on_body)
                     : login_->transport().exchange(request, on_head, on_body);
    };
    if (!wanted.url.same_origin(host_->api)) {
      auto request = wanted;
      request.named_by = host_->api.host;
      EROFS_OCI_TRY(make(request, head, body));
      return request.url;
    }
    auto authorization = login_->authorization(wanted.deadline);
    for (bool again = true;; again = false) {
      auto request = wanted;
      request.headers.insert(request.headers.begin(), host_->headers.begin(), host_->headers.end());
      if (!authorization.value.empty()) {
        std::erase_if(request.headers, [](HttpHeader const& header) {
          return equal_ignoring_case(header.name, "Authorization");
        });
        request.headers.push_back({"Authorization", authorization.value});
      }
      std::optional<HttpHead> refusal;
      auto const on_head = [&](HttpHead const& response) {
        // A refusal from where a redirect led is not about this login.
        auto const about_login = response.status == 401 ||
                                 (response.status == 403 && (!authorization.value.empty() ||
                                                             response.find("WWW-Authenticate")));
        if (!again || !about_login || !request.url.same_origin(wanted.url)) return head(response);
        refusal = response;
        return true;
      };
      auto const on_body = [&](std::span<std::byte const> bytes) {
        return refusal ? true : body(bytes);
      };
      auto done = make(request, on_head, on_body);
      if (!refusal) {
        if (!done) return fail(std::move(done).error());
        return request.url;
      }
      EROFS_OCI_TRY_ASSIGN(authorization,
                           login_->renew(authorization.generation, *refusal, wanted.deadline));
    }
  }

  /// The error of a response's status, as erofs_oci::status_error(). If that refuses the login,
  /// the error names the login.
  /// @param from  where the response came from
  [[nodiscard]] std::optional<Error> status_error(HttpHead const& head, Url const& from) const {
    auto error = erofs_oci::status_error(head);
    if (error && error->code == Errc::unauthorized && from.same_origin(host_->api)) {
      auto const login = login_->describe_login();
      error->context += login.empty() ? " without a login" : " to " + login;
    }
    return error;
  }

  /// The URL of `API/REPOSITORY/path`. `path` must be fit for a URL.
  [[nodiscard]] Url url(std::string_view path) const {
    auto out = host_->api;
    out.target += "/" + login_->repository() + "/" + std::string(path);
    if (!query_.empty()) out.target += (path.find('?') == path.npos ? '?' : '&') + query_;
    return out;
  }

  /// Where it is asked, and for what.
  [[nodiscard]] RegistryHost const& host() const noexcept { return *host_; }

  /// `host[:port]/repository`, for messages.
  [[nodiscard]] std::string describe() const {
    return login_->registry().authority() + "/" + login_->repository();
  }

  [[nodiscard]] Transport const& transport() const noexcept { return login_->transport(); }

 private:
  using Authenticator = BasicAuthenticator<Transport, Time>;

  std::shared_ptr<Authenticator> login_;
  std::shared_ptr<RegistryHost const> host_;
  std::string query_;
};

}  // namespace erofs_oci
