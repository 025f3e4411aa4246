// SPDX-License-Identifier: Apache-2.0
/// @file
/// HttpTransport: one HTTP exchange, and the words of a request and a response.
#pragma once

#include <algorithm>
#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <erofs_oci/core/function_ref.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/core/source.hpp>
#include <erofs_oci/source/url.hpp>

namespace erofs_oci {

/// One header field.
struct HttpHeader {
  std::string name;
  std::string value;

  friend bool operator==(HttpHeader const&, HttpHeader const&) = default;
};

/// Header fields in the order of the message; names compare without regard to case.
using HttpHeaders = std::vector<HttpHeader>;

/// Whether two ASCII texts are equal but for case.
[[nodiscard]] constexpr bool equal_ignoring_case(std::string_view a, std::string_view b) noexcept {
  auto const lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; };
  return std::ranges::equal(a, b, {}, lower, lower);
}

/// What is asked for.
enum class HttpMethod : std::uint8_t { get, head, post };

/// Its name on the wire.
[[nodiscard]] constexpr char const* to_string(HttpMethod method) noexcept {
  switch (method) {
    case HttpMethod::get: return "GET";
    case HttpMethod::head: return "HEAD";
    case HttpMethod::post: return "POST";
  }
  return "";
}

/// What an exchange may cost at most.
struct HttpLimits {
  std::chrono::milliseconds connect{5'000};  ///< until there is a connection. Default: 5 s
  std::chrono::milliseconds idle{10'000};    ///< without a single byte arriving. Default: 10 s
  std::chrono::milliseconds total{30'000};   ///< for a whole call, resumes included. Default: 30 s
  std::size_t header = 64 * 1024;            ///< bytes of the response's head. Default: 64 KiB
  std::uint64_t body = std::numeric_limits<std::uint64_t>::max();  ///< bytes. Default: no limit
};

/// One request. What it says is sent as it is: nothing is added that changes its meaning.
struct HttpRequest {
  HttpMethod method = HttpMethod::get;
  Url url;
  HttpHeaders headers;
  std::string body;  ///< of a POST
  HttpLimits limits;
  std::chrono::steady_clock::time_point deadline{};  ///< the exchange ends by then; set it
};

/// The head of a response.
struct HttpHead {
  int status = 0;
  HttpHeaders headers;

  /// The first field of that name.
  [[nodiscard]] std::optional<std::string_view> find(std::string_view name) const {
    for (auto const& header : headers) {
      if (equal_ignoring_case(header.name, name)) return header.value;
    }
    return std::nullopt;
  }
};

/// Looks at the head of a response; false ends the exchange there, without its body.
using HttpHeadSink = FunctionRef<bool(HttpHead const&)>;

/// Makes HTTP exchanges. Copies share whatever connections there are.
///
/// exchange() sends `request`, calls `head` once and then `body` with the content as it arrives.
/// Either may return false to end the exchange early, which is a success. It ends by
/// `request.deadline`, whatever the server does. It does not follow redirects, does not decode
/// content and does not repeat a request that a server may have acted on. Its errors:
///   - Errc::unavailable: no connection, or it broke, or the body ended before its length
///   - Errc::timed_out: a limit of time passed
///   - Errc::protocol: what came is not HTTP, is too large, or TLS does not trust the server
///
/// @par Thread safety
/// exchange(), from any thread, several at once.
template <class T>
concept HttpTransport = std::copyable<T> && requires(T const& transport, HttpRequest const& request,
                                                     HttpHeadSink head, ByteSink body) {
  { transport.exchange(request, head, body) } -> std::same_as<Result<void>>;
};

}  // namespace erofs_oci
