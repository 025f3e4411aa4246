// SPDX-License-Identifier: Apache-2.0
/// @file
/// What source/http_response.hpp only declares.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include <erofs_oci/core/config.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/core/text.hpp>
#include <erofs_oci/source/http_response.hpp>
#include <erofs_oci/source/http_transport.hpp>

namespace erofs_oci {
namespace detail {

constexpr std::string_view trim(std::string_view text) noexcept {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

}  // namespace detail

EROFS_OCI_BODY std::optional<std::uint64_t> parse_number(std::string_view text) noexcept {
  return whole_number<std::uint64_t>(detail::trim(text));
}

EROFS_OCI_BODY std::optional<ContentRange> ContentRange::parse(std::string_view text) noexcept {
  text = detail::trim(text);
  if (text.size() < 6 || !equal_ignoring_case(text.substr(0, 6), "bytes ")) return std::nullopt;
  text = detail::trim(text.substr(6));
  ContentRange out;
  if (!take_char(text, '*')) {
    auto const first = take_number<std::uint64_t>(text);
    if (!first || !take_char(text, '-')) return std::nullopt;
    auto const last = take_number<std::uint64_t>(text);
    if (!last || *last < *first) return std::nullopt;
    out.bytes = {*first, *last};
  }
  if (!take_char(text, '/')) return std::nullopt;
  auto const total = take_number<std::uint64_t>(text);
  if (!total || !text.empty()) return std::nullopt;
  if (out.bytes && out.bytes->second >= *total) return std::nullopt;
  out.total = *total;
  return out;
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`, the one form of date that servers may still send.
/// @spec{RFC 9110 5.6.7}
inline std::optional<std::chrono::sys_seconds> parse_http_date(std::string_view text) noexcept {
  constexpr std::string_view months = "JanFebMarAprMayJunJulAugSepOctNovDec";
  text = detail::trim(text);
  if (text.size() != 29 || text.substr(3, 2) != ", " || text.substr(25) != " GMT") return {};
  if (text[7] != ' ' || text[11] != ' ' || text[16] != ' ' || text[19] != ':' || text[22] != ':') {
    return {};
  }
  auto const number = [text](std::size_t at, std::size_t length) {
    return parse_number(text.substr(at, length));
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
                    std::chrono::day(static_cast<unsigned>(*day));
  if (!date.ok()) return {};
  return std::chrono::sys_days(date) + std::chrono::hours(*hour) + std::chrono::minutes(*minute) +
         std::chrono::seconds(*second);
}

EROFS_OCI_BODY std::optional<std::chrono::milliseconds> parse_retry_after(
    std::string_view text, std::chrono::system_clock::time_point now) noexcept {
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

EROFS_OCI_BODY std::optional<Error> status_error(HttpHead const& head) {
  if (head.status >= 200 && head.status < 300) return std::nullopt;
  Error error{Errc::protocol, "HTTP status " + std::to_string(head.status)};
  auto const is_one_of = [&](auto... statuses) { return ((head.status == statuses) || ...); };
  if (is_one_of(401, 403, 407)) error.code = Errc::unauthorized;
  if (is_one_of(404, 410)) error.code = Errc::not_found;
  if (is_one_of(408, 429, 500, 502, 503, 504)) {
    error.code = Errc::unavailable;
    if (auto const value = head.find("Retry-After")) error.retry_after = parse_retry_after(*value);
  }
  return error;
}

EROFS_OCI_BODY void drop_secrets(HttpHeaders& headers) {
  std::erase_if(headers, [](HttpHeader const& header) {
    return header.secret || equal_ignoring_case(header.name, "Authorization") ||
           equal_ignoring_case(header.name, "Cookie") ||
           equal_ignoring_case(header.name, "Proxy-Authorization");
  });
}

EROFS_OCI_BODY Result<void> redirect(HttpRequest& request, HttpHead const& head) {
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
  if (request.named_by.empty()) request.named_by = request.url.host;
  request.url = *std::move(next);
  return {};
}

}  // namespace erofs_oci
