// SPDX-License-Identifier: Apache-2.0
/// @file
/// BasicHttp: a source over one URL.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include <erofs_oci/core/clock.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/core/source.hpp>
#include <erofs_oci/source/http_range.hpp>
#include <erofs_oci/source/http_response.hpp>
#include <erofs_oci/source/http_transport.hpp>
#include <erofs_oci/source/url.hpp>

namespace erofs_oci {

/// How a source reads over HTTP.
struct HttpOptions {
  HttpLimits limits{};
  /// Sent with every request; Authorization and Cookie only to the URL's own host.
  HttpHeaders headers{};
};

/// The object behind one URL, read by range requests. The server must know ranges to be of use;
/// with one that does not, each read costs all that lies before it.
///
/// Retries only a body that ends early, from its next byte on: put a Retry above. Messages name the
/// URL without its query, which may hold a signature.
///
/// @par Thread safety
/// All const members, from any thread, if the transport allows it.
template <HttpTransport Transport, Clock Time = SteadyClock>
class BasicHttp {
 public:
  /// Asks for the first byte, and learns the size from the answer.
  /// @error{Errc::invalid_argument, `url` is not a URL}
  /// @error{Errc::unsupported, the server does not tell the size}
  /// @error{as read_at(), as read_at()}
  [[nodiscard]] static Result<BasicHttp> open(std::string_view url, HttpOptions options,
                                              Transport transport, Time time = {}) {
    EROFS_OCI_TRY_ASSIGN(auto parsed, Url::parse(url));
    BasicHttp source(std::move(parsed), std::move(options), std::move(transport), std::move(time));
    EROFS_OCI_TRY(source.learn_size(), source.state_->url.without_query());
    return source;
  }

  /// The same with options and a transport of its own, made by default.
  [[nodiscard]] static Result<BasicHttp> open(std::string_view url, HttpOptions options = {})
    requires std::default_initializable<Transport>
  {
    return open(url, std::move(options), Transport());
  }

  /// @name RandomAccessSource
  /// @{

  /// One request, or more after bodies that end early. Never touches `out` past the bytes read.
  /// @error{Errc::unavailable, 408\, 429\, 500\, 502\, 503\, 504\, no connection\, or it broke}
  /// @error{Errc::timed_out, a limit of time passed}
  /// @error{Errc::unauthorized, 401 or 403}
  /// @error{Errc::not_found, 404 or 410}
  /// @error{Errc::mismatch, the object is not what it was at open()}
  /// @error{Errc::protocol, any other answer that does not hold the bytes}
  [[nodiscard]] std::uint64_t size() const noexcept { return state_->size; }

  [[nodiscard]] Result<std::size_t> read_at(std::uint64_t offset, std::span<std::byte> out) const {
    return read_by(size(), offset, out, [&](std::uint64_t at, std::uint64_t length, ByteSink sink) {
      return fetch(at, length, sink, state_->options.limits.total);
    });
  }

  /// One request, however long.
  [[nodiscard]] Result<void> stream(std::uint64_t offset, std::uint64_t length,
                                    ByteSink sink) const {
    length = streamable(size(), offset, length);
    return fetch(offset, length, sink, state_->options.limits.stream_total(length));
  }

  [[nodiscard]] bool is_remote() const noexcept { return true; }
  /// @}

  /// The URL, without its query.
  [[nodiscard]] std::string describe() const { return state_->url.without_query(); }

 private:
  struct State {
    State(Url u, HttpOptions o, Transport t, Time c)
        : url(std::move(u)), options(std::move(o)), transport(std::move(t)), time(std::move(c)) {}

    Url url;
    HttpOptions options;
    Transport transport;
    Time time;
    std::uint64_t size = 0;
    std::string etag;  // strong, or empty
    TargetCache target;
  };

  BasicHttp(Url url, HttpOptions options, Transport transport, Time time)
      : state_(std::make_unique<State>(std::move(url), std::move(options), std::move(transport),
                                       std::move(time))) {}

  HttpRequest request(Url const& url, std::string range,
                      std::chrono::steady_clock::time_point deadline) const {
    auto headers = state_->options.headers;
    if (!url.same_origin(state_->url)) drop_secrets(headers);
    headers.push_back({"Range", std::move(range)});
    headers.push_back({"Accept-Encoding", "identity"});
    return {HttpMethod::get,
            url,
            std::move(headers),
            {},
            state_->options.limits,
            deadline,
            url == state_->url ? std::string() : state_->url.host};
  }

  Result<void> learn_size() {
    std::optional<HttpHead> answer;
    auto ask = request(state_->url, "bytes=0-0", state_->time.now() + state_->options.limits.total);
    auto const head = [&](HttpHead const& response) {
      answer = response;
      return response.status == 206;  // its one byte is worth a connection that can be used again
    };
    std::size_t seen = 0;
    auto const body = [&](std::span<std::byte const> bytes) { return (seen += bytes.size()) <= 1; };
    if (auto ok = follow(state_->transport, ask, head, body); !ok) return ok;

    auto const range = ContentRange::parse(answer->find("Content-Range").value_or(""));
    auto const length = parse_number(answer->find("Content-Length").value_or(""));
    if ((answer->status == 206 || answer->status == 416) && range) {
      state_->size = range->total;
    } else if (auto error = status_error(*answer)) {
      return fail(*std::move(error));
    } else if (length && answer->status == 200) {
      state_->size = *length;
    } else {
      return fail(Errc::unsupported, "the server does not tell the size");
    }
    if (auto const tag = answer->find("ETag"); tag && !tag->starts_with("W/")) state_->etag = *tag;
    if (ask.url != state_->url) state_->target.set(ask.url);
    return {};
  }

  Result<void> fetch(std::uint64_t offset, std::uint64_t length, ByteSink sink,
                     std::chrono::milliseconds total) const {
    auto const deadline = state_->time.now() + total;
    auto const attempt = [&](RangeReceiver& receiver) { return exchange(receiver, deadline); };
    EROFS_OCI_TRY(read_range(offset, length, size(), sink, state_->etag, attempt), describe());
    return {};
  }

  /// One exchange with the server, or two if the place that it once sent us to has expired.
  Result<void> exchange(RangeReceiver& receiver,
                        std::chrono::steady_clock::time_point deadline) const {
    auto const body = [&](std::span<std::byte const> bytes) { return receiver.body(bytes); };
    if (auto const target = state_->target.get()) {
      bool expired = false;
      auto const head = [&](HttpHead const& response) {
        expired = TargetCache::expired(response.status);
        return !expired && receiver.head(response);
      };
      auto ask = request(*target, receiver.range(), deadline);
      auto done = follow(state_->transport, ask, head, body);
      if (!expired && done && !receiver.error()) return done;
      state_->target.drop(*target);
      if (!expired) return done;
    }
    auto ask = request(state_->url, receiver.range(), deadline);
    auto const head = [&](HttpHead const& response) { return receiver.head(response); };
    auto done = follow(state_->transport, ask, head, body);
    if (done && !receiver.error() && ask.url != state_->url) state_->target.set(ask.url);
    return done;
  }

  std::unique_ptr<State> state_;
};

}  // namespace erofs_oci
