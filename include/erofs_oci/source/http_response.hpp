// SPDX-License-Identifier: Apache-2.0
/// @file
/// What responses mean: statuses as errors, Content-Range, Retry-After, redirects.
#pragma once

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include <erofs_oci/core/arithmetic.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/source/http_transport.hpp>

namespace erofs_oci {

namespace detail {

/// Takes a run of decimal digits off the front; empty if there is none or it overflows.
inline std::optional<std::uint64_t> take_number(std::string_view& text) noexcept {
  if (text.empty() || text.front() < '0' || text.front() > '9') return std::nullopt;
  std::uint64_t value = 0;
  while (!text.empty() && text.front() >= '0' && text.front() <= '9') {
    auto const tens = checked_mul<std::uint64_t>(value, 10);
    if (!tens) return std::nullopt;
    auto const sum = checked_add<std::uint64_t>(*tens, static_cast<std::uint64_t>(text[0] - '0'));
    if (!sum) return std::nullopt;
    value = *sum;
    text.remove_prefix(1);
  }
  return value;
}

constexpr std::string_view trim(std::string_view text) noexcept {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

}  // namespace detail

/// A whole number in decimal and nothing else.
[[nodiscard]] inline std::optional<std::uint64_t> parse_number(std::string_view text) noexcept {
  text = detail::trim(text);
  auto const value = detail::take_number(text);
  return text.empty() ? value : std::nullopt;
}

/// `bytes FIRST-LAST/TOTAL` or `bytes */TOTAL`. @spec{RFC 9110 14.4}
struct ContentRange {
  std::optional<std::pair<std::uint64_t, std::uint64_t>> bytes;  ///< first and last, inclusive
  std::uint64_t total = 0;

  /// Empty for anything else, an unknown total included: we always want to compare it.
  [[nodiscard]] static std::optional<ContentRange> parse(std::string_view text) noexcept {
    text = detail::trim(text);
    if (text.size() < 6 || !equal_ignoring_case(text.substr(0, 6), "bytes ")) return std::nullopt;
    text = detail::trim(text.substr(6));
    ContentRange out;
    if (text.starts_with('*')) {
      text.remove_prefix(1);
    } else {
      auto const first = detail::take_number(text);
      if (!first || !text.starts_with('-')) return std::nullopt;
      text.remove_prefix(1);
      auto const last = detail::take_number(text);
      if (!last || *last < *first) return std::nullopt;
      out.bytes = {*first, *last};
    }
    if (!text.starts_with('/')) return std::nullopt;
    text.remove_prefix(1);
    auto const total = detail::take_number(text);
    if (!total || !text.empty()) return std::nullopt;
    if (out.bytes && out.bytes->second >= *total) return std::nullopt;
    out.total = *total;
    return out;
  }

  friend bool operator==(ContentRange const&, ContentRange const&) = default;
};

/// `Sun, 06 Nov 1994 08:49:37 GMT`, the one form of date that servers may still send.
/// @spec{RFC 9110 5.6.7}
[[nodiscard]] inline std::optional<std::chrono::sys_seconds> parse_http_date(
    std::string_view text) noexcept {
  constexpr std::string_view months = "JanFebMarAprMayJunJulAugSepOctNovDec";
  text = detail::trim(text);
  if (text.size() != 29 || text.substr(3, 2) != ", " || text.substr(25) != " GMT") return {};
  if (text[7] != ' ' || text[11] != ' ' || text[16] != ' ' || text[19] != ':' || text[22] != ':') {
    return {};
  }
  auto const number = [text](std::size_t at, std::size_t length) -> std::optional<unsigned> {
    auto const value = parse_number(text.substr(at, length));
    if (!value) return std::nullopt;
    return static_cast<unsigned>(*value);
  };
  auto const month = months.find(text.substr(8, 3));
  auto const day = number(5, 2);
  auto const year = number(12, 4);
  auto const hour = number(17, 2);
  auto const minute = number(20, 2);
  auto const second = number(23, 2);
  if (month % 3 != 0 || month >= months.size() || !day || !year || !hour || !minute || !second) {
    return {};
  }
  if (*hour > 23 || *minute > 59 || *second > 60) return {};
  auto const date = std::chrono::year(static_cast<int>(*year)) /
                    std::chrono::month(static_cast<unsigned>(month / 3 + 1)) /
                    std::chrono::day(*day);
  if (!date.ok()) return {};
  return std::chrono::sys_days(date) + std::chrono::hours(*hour) + std::chrono::minutes(*minute) +
         std::chrono::seconds(*second);
}

/// How long a Retry-After header asks us to wait: seconds or a date, at most a day; a date that has
/// passed is 0.
[[nodiscard]] inline std::optional<std::chrono::milliseconds> parse_retry_after(
    std::string_view text,
    std::chrono::system_clock::time_point now = std::chrono::system_clock::now()) noexcept {
  constexpr std::chrono::milliseconds longest = std::chrono::hours(24);
  if (auto const seconds = parse_number(text)) {
    return std::chrono::seconds(std::min<std::uint64_t>(*seconds, 24 * 3600));
  }
  auto const date = parse_http_date(text);
  if (!date) return std::nullopt;
  // In milliseconds throughout: the year 9999 is beyond a clock that counts nanoseconds.
  std::chrono::milliseconds const wait = *date - std::chrono::floor<std::chrono::milliseconds>(now);
  return std::clamp(wait, std::chrono::milliseconds(0), longest);
}

/// Whether a status is a redirect that we follow.
[[nodiscard]] constexpr bool is_redirect(int status) noexcept {
  return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

/// The error that a status stands for, or nothing for 200 to 299.
///
/// 408, 429, 500, 502, 503, 504: Errc::unavailable, with Retry-After; 401, 403, 407:
/// Errc::unauthorized; 404, 410: Errc::not_found; all others: Errc::protocol.
[[nodiscard]] inline std::optional<Error> status_error(HttpHead const& head) {
  if (head.status >= 200 && head.status < 300) return std::nullopt;
  Error error{Errc::protocol, "HTTP status " + std::to_string(head.status)};
  switch (head.status) {
    case 408:
    case 429:
    case 500:
    case 502:
    case 503:
    case 504:
      error.code = Errc::unavailable;
      if (auto const value = head.find("Retry-After")) {
        error.retry_after = parse_retry_after(*value);
      }
      break;
    case 401:
    case 403:
    case 407: error.code = Errc::unauthorized; break;
    case 404:
    case 410: error.code = Errc::not_found; break;
    default: break;
  }
  return error;
}

/// Takes away what only the first server may see.
inline void drop_secrets(HttpHeaders& headers) {
  std::erase_if(headers, [](HttpHeader const& header) {
    return equal_ignoring_case(header.name, "Authorization") ||
           equal_ignoring_case(header.name, "Cookie") ||
           equal_ignoring_case(header.name, "Proxy-Authorization");
  });
}

/// Turns `request` into the one that a redirect asks for. Secrets are dropped as soon as scheme,
/// host or port change, and stay dropped.
/// @error{Errc::protocol, there is no usable Location\, or it leads from https to http}
[[nodiscard]] inline Result<void> redirect(HttpRequest& request, HttpHead const& head) {
  auto const location = head.find("Location");
  if (!location) {
    return fail(Errc::protocol, "HTTP status " + std::to_string(head.status) + " without Location");
  }
  auto next = request.url.resolve(*location);
  if (!next) return fail(Errc::protocol, "redirect: " + next.error().message());
  if (request.url.is_secure() && !next->is_secure()) {
    return fail(Errc::protocol, "redirect from https to http refused");
  }
  if (!next->same_origin(request.url)) drop_secrets(request.headers);
  if (head.status == 303 || (request.method == HttpMethod::post && head.status < 307)) {
    if (request.method == HttpMethod::post) request.method = HttpMethod::get;
    request.body.clear();
  }
  request.url = *std::move(next);
  return {};
}

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
    if (auto ok = redirect(request, *moved); !ok) return fail(std::move(ok).error(), from);
  }
}

}  // namespace erofs_oci
