// SPDX-License-Identifier: Apache-2.0
/// @file
/// HttpTransport: one HTTP exchange, and the words of a request and a response.
#pragma once

#include <algorithm>
#include <array>
#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include <erofs_oci/core/function_ref.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/core/source.hpp>
#include <erofs_oci/core/text.hpp>
#include <erofs_oci/source/url.hpp>

namespace erofs_oci {

/// One header field.
struct HttpHeader {
  std::string name;
  std::string value;
  bool secret = false;  ///< for one host alone; Authorization and Cookie are in any case

  friend bool operator==(HttpHeader const&, HttpHeader const&) = default;
};

/// Header fields in the order of the message; names compare without regard to case.
using HttpHeaders = std::vector<HttpHeader>;

/// Whether two ASCII texts are equal but for case.
[[nodiscard]] constexpr bool equal_ignoring_case(std::string_view a, std::string_view b) noexcept {
  return std::ranges::equal(a, b, {}, to_lower, to_lower);
}

/// What is asked for.
enum class HttpMethod : std::uint8_t { get, head, post, put, patch };

/// Its name on the wire.
[[nodiscard]] constexpr char const* to_string(HttpMethod method) noexcept {
  constexpr std::array names{"GET", "HEAD", "POST", "PUT", "PATCH"};
  return names[static_cast<std::size_t>(method)];
}

/// Whether a server that gets the same request twice does no more than for one, and changes
/// nothing.
/// @spec{RFC 9110 9.2.1: safe methods}
[[nodiscard]] constexpr bool is_safe(HttpMethod method) noexcept {
  return method == HttpMethod::get || method == HttpMethod::head;
}

/// What an exchange may cost at most.
struct HttpLimits {
  std::chrono::milliseconds connect{5'000};  ///< until there is a connection. Default: 5 s
  std::chrono::milliseconds idle{10'000};    ///< without a single byte arriving. Default: 10 s
  std::chrono::milliseconds total{30'000};   ///< for a whole call, resumes included. Default: 30 s
  /// Bytes a second of a body over `rate_time`, below which the exchange fails as one that timed
  /// out, so that another connection may go on. Default: 1 KiB; 0: any speed will do.
  std::uint64_t least_rate = 1024;
  std::chrono::milliseconds rate_time{15'000};  ///< Default: 15 s
  /// Bytes a second that a stream must bring on average: one of N bytes ends after `total` and the
  /// time that N bytes take at this rate. Default: 64 KiB; > 0
  std::uint64_t stream_rate = 64 * 1024;
  std::size_t header = 64 * 1024;  ///< bytes of the response's head. Default: 64 KiB
  std::uint64_t body = std::numeric_limits<std::uint64_t>::max();  ///< bytes. Default: no limit

  /// How long a stream of so many bytes may take.
  [[nodiscard]] constexpr std::chrono::milliseconds stream_total(
      std::uint64_t length) const noexcept {
    constexpr std::uint64_t day = 86'400;
    auto const seconds = length / std::max<std::uint64_t>(stream_rate, 1);
    return total + std::chrono::seconds(std::min(seconds, 30 * day));
  }
};

/// One request. What it says is sent as it is: nothing is added that changes its meaning.
struct HttpRequest {
  HttpMethod method = HttpMethod::get;
  Url url;
  HttpHeaders headers;
  std::string body;  ///< of a POST, PUT or PATCH
  HttpLimits limits;
  std::chrono::steady_clock::time_point deadline{};  ///< the exchange ends by then; set it
  /// Host of the server that has named `url`, which need not be trusted; empty: the user has.
  std::string named_by{};
  std::stop_token stop{};  ///< ends the exchange at once. Default: nothing does
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
/// `request.deadline`, and at once when `request.stop` is requested, whatever the server does. It
/// does not follow redirects, does not decode content and does not repeat a request that a server
/// may have acted on. Its errors:
///   - Errc::unavailable: no connection, or it broke, or the body ended before its length
///   - Errc::timed_out: a limit of time passed
///   - Errc::stopping: a stop was requested
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
