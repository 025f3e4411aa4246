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
/// challenge says. At most one login runs at a time; who needs its outcome waits for it.
///
/// Credentials go to the registry itself and to the realm that it names, nowhere else.
///
/// @par Thread safety
/// All members, from any thread.
template <HttpTransport Transport, Clock Time>
class BasicAuthenticator {
 public:
  /// @param registry    only its scheme, host and port count
  /// @param repository  the name that is pulled from
  BasicAuthenticator(Transport transport, Time time, Url registry, std::string repository,
                     CredentialLookup lookup, HttpLimits limits)
      : transport_(std::move(transport)),
        time_(std::move(time)),
        registry_(std::move(registry)),
        repository_(std::move(repository)),
        lookup_(std::move(lookup)),
        limits_(limits) {}

  /// What to send now. Renews a token shortly before it expires; should that fail, the old one is
  /// used as long as it lives, and the registry's refusal thereafter says what is wrong.
  [[nodiscard]] Authorization authorization(std::chrono::steady_clock::time_point deadline) {
    std::unique_lock lock(mutex_);
    auto const now = time_.now();
    if (!bearer_ || early_failed_ || now < renew_at_) return current_;
    if (login_runs_) {
      if (now >= expires_) finished_.wait(lock, [this] { return !login_runs_; });
      return current_;
    }
    auto const challenge = *bearer_;
    (void)login(lock, {challenge}, deadline);  // its error is the registry's to tell, see above
    return current_;
  }

  /// What to send after a 401.
  /// @param failed  the generation of what was sent
  /// @error{Errc::unauthorized, there are no credentials\, or they are refused}
  /// @error{Errc::protocol, the challenge or the token server makes no sense}
  /// @error{as HttpTransport, the token server cannot be asked}
  [[nodiscard]] Result<Authorization> renew(std::uint64_t failed, HttpHead const& refusal,
                                            std::chrono::steady_clock::time_point deadline) {
    std::unique_lock lock(mutex_);
    if (current_.generation != failed) return current_;
    if (login_runs_) {
      finished_.wait(lock, [this] { return !login_runs_; });
      if (last_error_) return fail(*last_error_);
      return current_;
    }
    auto ok = login(lock, challenges_of(refusal), deadline);
    if (!ok) return fail(std::move(ok).error());
    return current_;
  }

 private:
  struct Login {
    std::string value;
    std::optional<Challenge> bearer;  // to be used again before the token expires
    std::chrono::seconds lifetime{0};
  };

  /// Runs one login without the lock and publishes its outcome.
  Result<void> login(std::unique_lock<std::mutex>& lock, std::vector<Challenge> const& challenges,
                     std::chrono::steady_clock::time_point deadline) {
    login_runs_ = true;
    last_error_.reset();
    lock.unlock();
    auto const asked = time_.now();
    auto outcome = ask(challenges, deadline);
    lock.lock();
    login_runs_ = false;
    finished_.notify_all();
    early_failed_ = !outcome;
    if (!outcome) {
      last_error_ = outcome.error();
      return fail(std::move(outcome).error(), registry_.authority() + ": login");
    }
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
    auto credentials = find_credentials();
    if (!credentials) return fail(std::move(credentials).error(), "credentials");
    if (bearer != challenges.end()) return ask_bearer(*bearer, *credentials, deadline);
    if (!*credentials || (*credentials)->username.empty()) {
      return fail(Errc::unauthorized, "the registry wants a user name and password");
    }
    return Login{basic_authorization(**credentials), {}, {}};
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
    auto request =
        token_request(challenge, registry_, "repository:" + repository_ + ":pull", credentials);
    if (!request) return fail(std::move(request).error());
    request->limits = limits_;
    request->deadline = deadline;
    auto body = fetch(*request);
    if (!body) return fail(std::move(body).error(), "token server");
    auto token = parse_token(*body);
    if (!token) return fail(std::move(token).error());
    return Login{"Bearer " + token->text, challenge, token->lifetime};
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
    auto done = request.method == HttpMethod::post ? transport_.exchange(request, head, take)
                                                   : follow(transport_, request, head, take);
    if (!done) return fail(std::move(done).error());
    if (error) return fail(*std::move(error), where);
    return body;
  }

  /// Looked up once. Only one login runs at a time, so this needs no lock.
  Result<std::optional<Credentials>> find_credentials() {
    if (!lookup_) return std::optional<Credentials>();
    if (!credentials_) {
      auto found = lookup_(registry_.authority(), repository_);
      if (!found) return found;
      credentials_ = *std::move(found);
    }
    return *credentials_;
  }

  Transport transport_;
  Time time_;
  Url registry_;
  std::string repository_;
  CredentialLookup lookup_;
  HttpLimits limits_;

  std::mutex mutex_;
  std::condition_variable finished_;
  bool login_runs_ = false;
  bool early_failed_ = false;  // a token gets one early try
  std::optional<Error> last_error_;
  Authorization current_;
  std::optional<Challenge> bearer_;  // there is a token that expires
  std::chrono::steady_clock::time_point expires_{};
  std::chrono::steady_clock::time_point renew_at_{};
  std::optional<std::optional<Credentials>> credentials_;  // used by the running login alone
};

}  // namespace erofs_oci
