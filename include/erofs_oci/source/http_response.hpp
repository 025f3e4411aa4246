// SPDX-License-Identifier: Apache-2.0
/// @file
/// What responses mean: statuses as errors, Content-Range, Retry-After, redirects.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <utility>

#include <erofs_oci/core/result.hpp>
#include <erofs_oci/source/http_transport.hpp>

namespace erofs_oci {

/// whole_number() of a header's value: with blanks around it, too.
[[nodiscard]] std::optional<std::uint64_t> parse_number(std::string_view text) noexcept;

/// `bytes FIRST-LAST/TOTAL` or `bytes */TOTAL`. @spec{RFC 9110 14.4}
struct ContentRange {
  std::optional<std::pair<std::uint64_t, std::uint64_t>> bytes;  ///< first and last, inclusive
  std::uint64_t total = 0;

  /// Empty for anything else, an unknown total included: we always want to compare it.
  [[nodiscard]] static std::optional<ContentRange> parse(std::string_view text) noexcept;

  friend bool operator==(ContentRange const&, ContentRange const&) = default;
};

/// How long a Retry-After header asks us to wait: seconds or a date, at most a day; a date that has
/// passed is 0.
[[nodiscard]] std::optional<std::chrono::milliseconds> parse_retry_after(
    std::string_view text,
    std::chrono::system_clock::time_point now = std::chrono::system_clock::now()) noexcept;

/// Whether a status is a redirect that we follow.
[[nodiscard]] constexpr bool is_redirect(int status) noexcept {
  return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

/// The error that a status stands for, or nothing for 200 to 299.
///
/// 408, 429, 500, 502, 503, 504: Errc::unavailable, with Retry-After; 401, 403, 407:
/// Errc::unauthorized; 404, 410: Errc::not_found; all others: Errc::protocol.
[[nodiscard]] std::optional<Error> status_error(HttpHead const& head);

/// Takes away what only the first server may see.
void drop_secrets(HttpHeaders& headers);

/// Turns `request` into the one that a redirect asks for. Secrets are dropped as soon as scheme,
/// host or port change, and stay dropped.
/// @error{Errc::protocol, there is no usable Location\, or it leads from https to http}
[[nodiscard]] Result<void> redirect(HttpRequest& request, HttpHead const& head);

/// Most redirects that one request follows.
inline constexpr unsigned max_redirects = 10;

/// An exchange that follows redirects: `head` and `body` see only the last response.
/// @param request  changed along the way; its url is where the last response came from
/// @error{as HttpTransport, as HttpTransport}
/// @error{Errc::protocol, as redirect()\, or more than max_redirects of them}
template <HttpTransport Transport>
[[nodiscard]] Result<void> follow(Transport const& transport, HttpRequest& request,
                                  HttpHeadSink head, ByteSink body) {
  constexpr std::size_t most_junk = 64 * 1024;  // a longer body of a redirect costs a connection
  for (unsigned redirects = 0;; ++redirects) {
    std::optional<HttpHead> moved;
    std::size_t junk = 0;
    auto const on_head = [&](HttpHead const& response) {
      if (!is_redirect(response.status)) return head(response);
      moved = response;
      return true;
    };
    auto const on_body = [&](std::span<std::byte const> bytes) {
      if (!moved) return body(bytes);
      junk += bytes.size();
      return junk <= most_junk;
    };
    auto done = transport.exchange(request, on_head, on_body);
    if (!moved) {
      if (!done) return fail(std::move(done).error(), request.url.without_query());
      return done;
    }
    if (redirects == max_redirects) {
      return fail(Errc::protocol, request.url.without_query() + ": too many redirects");
    }
    auto const from = request.url.without_query();
    EROFS_OCI_TRY(redirect(request, *moved), from);
  }
}

}  // namespace erofs_oci

#ifndef EROFS_OCI_COMPILED
#include <erofs_oci/source/detail/http_response_body.hpp>
#endif
