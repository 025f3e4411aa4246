// SPDX-License-Identifier: Apache-2.0
/// @file
/// BasicAuthenticator: the Authorization header of one repository, got and renewed for all threads.
#pragma once

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/clock.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/oci/auth.hpp>
#include <erofs_oci/source/http_response.hpp>
#include <erofs_oci/source/http_transport.hpp>

namespace erofs_oci {

/// What to send, and which renewal it came from.
struct Authorization {
  std::string value;             ///< of the header; empty: send none
  std::uint64_t generation = 0;  ///< renew() is told which one failed
};

/// Logs in to one repository of one registry: anonymously until it is refused, then as the
/// challenge says. At most one login runs at a time; other threads wait for its outcome.
///
/// Credentials go to the registry itself and to the realm that it names, nowhere else.
///
/// @par Thread safety
/// All members, from any thread.
template <HttpTransport Transport, Clock Time>
class BasicAuthenticator {
 public:
  /// How long credentials that were refused are not tried again. Others are, at once.
  static constexpr std::chrono::seconds refused_for{5};

  /// @param registry    only its scheme, host and port count
  /// @param repository  the name that is pulled from
  BasicAuthenticator(Transport transport, Time time, Url registry, std::string repository,
                     CredentialLookup lookup, HttpLimits limits, LoginScope scope = {})
      : transport_(std::move(transport)),
        time_(std::move(time)),
        registry_(std::move(registry)),
        repository_(std::move(repository)),
        lookup_(std::move(lookup)),
        limits_(limits),
        scope_(std::move(scope)) {}

  /// What to send now. Renews a token shortly before it expires; should that fail, the old one is
  /// used as long as it lives, and the registry's refusal thereafter says what is wrong.
  [[nodiscard]] Authorization authorization(std::chrono::steady_clock::time_point deadline) {
    std::unique_lock lock(mutex_);
    auto const now = time_.now();
    if (!bearer_ || early_failed_ || now < renew_at_) return current_;
    if (login_runs_) {
      if (now >= expires_) (void)await_login(lock, deadline);
      return current_;
    }
    (void)login(lock, {*bearer_}, deadline);  // its error is the registry's to tell, see above
    return current_;
  }

  /// What to send after a 401, or a 403 to what authorization() gave: some registries answer a
  /// token that has expired so, without a challenge. The challenge of the last login counts then,
  /// and credentials that have been refused are looked up again, since a helper's may have expired.
  /// The same ones are not sent again within `refused_for`: many wrong logins lock accounts.
  /// @param failed  the generation of what was sent
  /// @error{Errc::unauthorized, there are no credentials\, or they are refused}
  /// @error{Errc::protocol, the challenge or the token server makes no sense}
  /// @error{as HttpTransport, the token server cannot be asked}
  /// @error{Errc::timed_out, the login of another thread takes longer than `deadline`}
  [[nodiscard]] Result<Authorization> renew(std::uint64_t failed, HttpHead const& refusal,
                                            std::chrono::steady_clock::time_point deadline) {
    std::unique_lock lock(mutex_);
    if (current_.generation != failed) return current_;
    if (login_runs_) {
      if (!await_login(lock, deadline)) {
        return fail(Errc::timed_out, registry_.authority() + ": waiting for a login");
      }
      if (last_error_) return fail(*last_error_);
      return current_;
    }
    auto challenges = challenges_of(refusal);
    if (challenges.empty()) challenges = challenges_;
    if (failed != 0) credentials_.reset();
    EROFS_OCI_TRY(login(lock, challenges, deadline));
    challenges_ = std::move(challenges);
    return current_;
  }

  /// Whose login authorization() yields, for messages: as describe(Credentials); empty: nobody's.
  [[nodiscard]] std::string describe_login() const {
    std::lock_guard const lock(mutex_);
    return whose_;
  }

  [[nodiscard]] Transport const& transport() const noexcept { return transport_; }
  [[nodiscard]] Url const& registry() const noexcept { return registry_; }
  [[nodiscard]] std::string const& repository() const noexcept { return repository_; }

 private:
  /// A login that was refused.
  struct Refused {
    std::optional<Credentials> credentials;
    std::chrono::steady_clock::time_point until;
    Error error;
  };

  struct Login {
    std::string value;
    std::optional<Challenge> bearer;  // to be used again before the token expires
    std::chrono::seconds lifetime{0};
  };

  /// Waits for the end of the login that runs; false if it does not end by `deadline`.
  bool await_login(std::unique_lock<std::mutex>& lock,
                   std::chrono::steady_clock::time_point deadline) {
    auto const longest =
        std::min<std::chrono::nanoseconds>(deadline - time_.now(), std::chrono::hours(24));
    return finished_.wait_for(lock, longest, [this] { return !login_runs_; });
  }

  /// Runs one login without the lock and publishes its outcome, an exception as an error.
  Result<void> login(std::unique_lock<std::mutex>& lock, std::vector<Challenge> const& challenges,
                     std::chrono::steady_clock::time_point deadline) {
    login_runs_ = true;
    last_error_.reset();
    lock.unlock();
    auto const asked = time_.now();
    auto outcome = without_throwing([&] { return ask(challenges, deadline); });
    lock.lock();
    login_runs_ = false;
    finished_.notify_all();
    early_failed_ = !outcome;
    auto const whose = credentials_ && *credentials_ ? describe(**credentials_) : std::string();
    if (!outcome) {
      last_error_ = outcome.error();
      if (outcome.error().code == Errc::unauthorized && credentials_) {
        auto const known = refused_ && refused_->credentials == *credentials_;
        if (!known || asked >= refused_->until) {
          refused_ = Refused{*credentials_, asked + refused_for, outcome.error()};
        }
        credentials_.reset();
      }
      return fail(std::move(outcome).error(),
                  registry_.authority() + ": login" + (whose.empty() ? "" : " as " + whose));
    }
    whose_ = whose;
    current_ = {std::move(outcome->value), current_.generation + 1};
    bearer_ = std::move(outcome->bearer);
    expires_ = asked + outcome->lifetime;
    renew_at_ = expires_ - std::min(std::chrono::seconds(30), outcome->lifetime / 4);
    return {};
  }

  Result<Login> ask(std::vector<Challenge> const& challenges,
                    std::chrono::steady_clock::time_point deadline) {
    auto const scheme = [&](char const* name) {
      return std::ranges::find(challenges, name, &Challenge::scheme);
    };
    auto const bearer = scheme("bearer");
    auto const basic = scheme("basic");
    if (bearer == challenges.end() && basic == challenges.end()) {
      return fail(Errc::unauthorized, challenges.empty()
                                          ? "the registry does not say how to log in"
                                          : "the registry offers no login but " +
                                                detail::quote(challenges.front().scheme));
    }
    EROFS_OCI_TRY_ASSIGN(auto const credentials, find_credentials(), "credentials");
    if (refused_ && refused_->credentials == credentials && time_.now() < refused_->until) {
      return fail(refused_->error);
    }
    if (bearer != challenges.end()) return ask_bearer(*bearer, credentials, deadline);
    if (!credentials || credentials->username.empty()) {
      return fail(explain(Errc::unauthorized, "the registry wants a user name and password"));
    }
    return Login{basic_authorization(*credentials), {}, {}};
  }

  Result<Login> ask_bearer(Challenge const& challenge,
                           std::optional<Credentials> const& credentials,
                           std::chrono::steady_clock::time_point deadline) {
    if (credentials && !credentials->registry_token.empty()) {
      if (!detail::is_visible(credentials->registry_token)) {
        return fail(Errc::invalid_argument, "the registry token has bad characters");
      }
      return Login{"Bearer " + credentials->registry_token, {}, {}};
    }
    EROFS_OCI_TRY_ASSIGN(auto request,
                         token_request(challenge, registry_, repository_, credentials, scope_));
    request.limits = limits_;
    request.deadline = deadline;
    EROFS_OCI_TRY_ASSIGN(auto body, fetch(request), "token server");
    EROFS_OCI_TRY_ASSIGN(auto token, parse_token(body), request.url.without_query());
    return Login{"Bearer " + token.text, challenge, token.lifetime};
  }

  Result<Bytes> fetch(HttpRequest& request) {
    constexpr std::size_t longest = 1024 * 1024;
    Bytes body;
    std::optional<Error> error;
    auto const head = [&](HttpHead const& response) {
      error = status_error(response);
      return !error;
    };
    auto const take = [&](std::span<std::byte const> bytes) {
      if (bytes.size() > longest - body.size()) {
        error = Error{Errc::protocol, "the answer is longer than 1 MiB"};
        return false;
      }
      body.insert(body.end(), bytes.begin(), bytes.end());
      return true;
    };
    // A form holds the secret itself, which no redirect may carry elsewhere.
    auto const where = request.url.without_query();
    EROFS_OCI_TRY(request.method == HttpMethod::post ? transport_.exchange(request, head, take)
                                                     : follow(transport_, request, head, take));
    if (error) return fail(*std::move(error), where);
    return body;
  }

  /// Looked up once. Only one login runs at a time, so this needs no lock.
  Result<std::optional<Credentials>> find_credentials() {
    if (!lookup_) return std::optional<Credentials>();
    if (!credentials_) {
      EROFS_OCI_TRY_ASSIGN(credentials_, lookup_(registry_.authority(), repository_));
    }
    return *credentials_;
  }

  Transport transport_;
  Time time_;
  Url registry_;
  std::string repository_;
  CredentialLookup lookup_;
  HttpLimits limits_;
  LoginScope scope_;

  mutable std::mutex mutex_;
  std::condition_variable finished_;
  bool login_runs_ = false;
  bool early_failed_ = false;  // a token gets one early try
  std::optional<Error> last_error_;
  Authorization current_;
  std::string whose_;
  std::vector<Challenge> challenges_;  // that the last renew() answered
  std::optional<Challenge> bearer_;    // there is a token that expires
  std::chrono::steady_clock::time_point expires_{};
  std::chrono::steady_clock::time_point renew_at_{};
  // Used by the running login alone:
  std::optional<std::optional<Credentials>> credentials_;
  std::optional<Refused> refused_;
};

}  // namespace erofs_oci
