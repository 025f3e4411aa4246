// SPDX-License-Identifier: Apache-2.0
/// @file
/// FakeTransport: scripted HTTP without a network.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/source/http_response.hpp>
#include <erofs_oci/source/http_transport.hpp>

namespace erofs_oci::testing {

/// The reply to one request.
struct FakeReply {
  int status = 200;
  HttpHeaders headers{};
  Bytes body{};
  /// Fails before any head, as a refused connection does.
  std::optional<Error> error{};
  /// Breaks the connection after so many bytes of the body.
  std::optional<std::size_t> reset_after{};
  /// Most bytes that arrive at once.
  std::size_t piece = 1000;
};

/// Answers each request by a function, and records the requests. Copies share all.
///
/// @par Thread safety
/// All members, from any thread; the function is called without a lock.
class FakeTransport {
 public:
  /// Called with a request and its number, from 0.
  using Server = std::function<FakeReply(HttpRequest const&, std::size_t)>;

  /// A peer that behaves as `server` says.
  explicit FakeTransport(Server server) : state_(std::make_shared<State>()) {
    state_->server = std::move(server);
  }

  /// HttpTransport.
  [[nodiscard]] Result<void> exchange(HttpRequest const& request, HttpHeadSink head,
                                      ByteSink body) const {
    std::size_t number = 0;
    {
      std::lock_guard const lock(state_->mutex);
      number = state_->requests.size();
      state_->requests.push_back(request);
    }
    auto const reply = state_->server(request, number);
    if (reply.error) return fail(*reply.error);
    if (!head({reply.status, reply.headers}) || request.method == HttpMethod::head) return {};
    auto const end = std::min(reply.body.size(), reply.reset_after.value_or(reply.body.size()));
    for (std::size_t at = 0; at < end; at += reply.piece) {
      auto const n = std::min(reply.piece, end - at);
      if (!body(std::span(reply.body).subspan(at, n))) return {};
    }
    if (reply.reset_after) return fail(Errc::unavailable, "connection reset");
    return {};
  }

  /// Every request so far, in order.
  [[nodiscard]] std::vector<HttpRequest> requests() const {
    std::lock_guard const lock(state_->mutex);
    return state_->requests;
  }

 private:
  struct State {
    Server server;
    std::mutex mutex;
    std::vector<HttpRequest> requests;
  };
  std::shared_ptr<State> state_;
};

static_assert(HttpTransport<FakeTransport>);

/// A request's header field, or an empty text.
[[nodiscard]] inline std::string header_of(HttpRequest const& request, std::string_view name) {
  return std::string(HttpHead{0, request.headers}.find(name).value_or(""));
}

/// The first and last byte that "Range: bytes=A-B" asks for.
[[nodiscard]] inline std::optional<std::pair<std::uint64_t, std::uint64_t>> range_of(
    HttpRequest const& request) {
  auto const value = header_of(request, "Range");
  auto rest = std::string_view(value);
  if (!rest.starts_with("bytes=")) return std::nullopt;
  rest.remove_prefix(6);
  auto const dash = rest.find('-');
  if (dash == std::string_view::npos) return std::nullopt;
  auto const first = parse_number(rest.substr(0, dash));
  auto const last = parse_number(rest.substr(dash + 1));
  if (!first || !last) return std::nullopt;
  return std::pair(*first, *last);
}

/// The reply of a correct server of `content`: 206, 200 without a range, 416 past the end.
[[nodiscard]] inline FakeReply serve(HttpRequest const& request,
                                     std::span<std::byte const> content) {
  auto const total = std::to_string(content.size());
  auto const range = range_of(request);
  if (!range) return {200, {{"Content-Length", total}}, to_bytes(content)};
  if (range->first >= content.size()) return {416, {{"Content-Range", "bytes */" + total}}};
  auto const first = static_cast<std::size_t>(range->first);
  auto const last =
      static_cast<std::size_t>(std::min<std::uint64_t>(range->second, content.size() - 1));
  return {206,
          {{"Content-Range",
            "bytes " + std::to_string(first) + "-" + std::to_string(last) + "/" + total},
           {"Content-Length", std::to_string(last - first + 1)}},
          to_bytes(content.subspan(first, last - first + 1))};
}

}  // namespace erofs_oci::testing
