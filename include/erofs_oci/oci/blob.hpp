// SPDX-License-Identifier: Apache-2.0
/// @file
/// BasicOciBlob: a source over one blob of a registry.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <erofs_oci/core/clock.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/core/source.hpp>
#include <erofs_oci/digest/digest.hpp>
#include <erofs_oci/oci/session.hpp>
#include <erofs_oci/source/http_range.hpp>
#include <erofs_oci/source/http_response.hpp>
#include <erofs_oci/source/http_transport.hpp>

namespace erofs_oci {

/// A blob by digest and size, read by range requests. Its bytes are as the registry sends them: a
/// range has no digest of its own: put a Verified above to check it.
///
/// Where the registry redirects to is remembered, so that a read is one request; when that place
/// refuses (signed URLs live minutes), the registry is asked again before anything counts as a
/// failure. Mirrors are asked first, and left alone for a minute after a failure. Transient errors
/// are not retried here: put a Retry above.
///
/// @par Thread safety
/// All const members, from any thread.
template <HttpTransport Transport, Clock Time = SteadyClock>
class BasicOciBlob {
 public:
  /// Makes no request.
  /// @param sessions      where to ask, in order; the last one is the registry itself
  /// @param digest        the blob's name
  /// @param size          its bytes, as the manifest says; a registry that disagrees is in error
  /// @param limits        for each read_at() and stream()
  BasicOciBlob(std::vector<BasicSession<Transport, Time>> sessions, Digest const& digest,
               std::uint64_t size, HttpLimits limits, Time time)
      : places_(std::make_unique<std::vector<Place>>(std::make_move_iterator(sessions.begin()),
                                                     std::make_move_iterator(sessions.end()))),
        digest_(digest),
        size_(size),
        limits_(limits),
        time_(std::move(time)) {}

  /// @name RandomAccessSource
  /// @{

  /// One request, or more after bodies that end early. Never touches `out` past the bytes read.
  /// @error{Errc::unavailable, 408\, 429\, 500\, 502\, 503\, 504\, no connection\, or it broke}
  /// @error{Errc::timed_out, a limit of time passed}
  /// @error{Errc::unauthorized, 401 after a renewed login\, or 403}
  /// @error{Errc::not_found, the registry has no such blob}
  /// @error{Errc::mismatch, the blob has another size than the manifest says}
  /// @error{Errc::protocol, any other answer that does not hold the bytes}
  [[nodiscard]] std::uint64_t size() const noexcept { return size_; }

  [[nodiscard]] Result<std::size_t> read_at(std::uint64_t offset, std::span<std::byte> out) const {
    return read_by(size(), offset, out, [&](std::uint64_t at, std::uint64_t length, ByteSink sink) {
      return fetch(at, length, sink, limits_.total);
    });
  }

  /// One request, however long.
  [[nodiscard]] Result<void> stream(std::uint64_t offset, std::uint64_t length,
                                    ByteSink sink) const {
    length = streamable(size(), offset, length);
    if (length == 0) return {};
    return fetch(offset, length, sink, limits_.stream_total(length));
  }

  [[nodiscard]] bool is_remote() const noexcept { return true; }
  /// @}

  /// `host/repository@sha256:…`
  [[nodiscard]] std::string describe() const {
    return places_->back().session.describe() + "@" + digest_.to_string();
  }

 private:
  using TimePoint = std::chrono::steady_clock::time_point;

  /// One registry that has the blob.
  struct Place {
    explicit Place(BasicSession<Transport, Time> s) : session(std::move(s)) {}

    BasicSession<Transport, Time> session;
    TargetCache target;
    std::atomic<TimePoint::rep> skip_until{TimePoint::min().time_since_epoch().count()};
  };

  Result<void> fetch(std::uint64_t offset, std::uint64_t length, ByteSink sink,
                     std::chrono::milliseconds total) const {
    auto const deadline = time_.now() + total;
    auto const attempt = [&](RangeReceiver& receiver) { return ask_places(receiver, deadline); };
    auto ok = read_range(offset, length, size(), sink, {}, attempt);
    if (!ok) return fail(std::move(ok).error(), describe());
    return ok;
  }

  /// Mirrors that have not just failed, then the registry.
  Result<void> ask_places(RangeReceiver& receiver, TimePoint deadline) const {
    for (auto& place : std::span(*places_).first(places_->size() - 1)) {
      auto const now = time_.now();
      if (now.time_since_epoch().count() < place.skip_until.load()) continue;
      auto done = ask(place, receiver, deadline);
      if (done && !receiver.error()) return done;
      place.skip_until = (now + std::chrono::minutes(1)).time_since_epoch().count();
      if (receiver.delivered() > 0) return done;
      receiver.restart();
    }
    return ask(places_->back(), receiver, deadline);
  }

  /// One exchange, or two if the place that the registry once sent us to has expired.
  Result<void> ask(Place& place, RangeReceiver& receiver, TimePoint deadline) const {
    auto const headers = HttpHeaders{{"Range", receiver.range()}, {"Accept-Encoding", "identity"}};
    auto const body = [&](std::span<std::byte const> bytes) { return receiver.body(bytes); };
    if (auto const target = place.target.get()) {
      bool expired = false;
      auto const head = [&](HttpHead const& response) {
        expired = TargetCache::expired(response.status);
        return !expired && receiver.head(response);
      };
      HttpRequest request{
          HttpMethod::get, *target, headers, {}, limits_, deadline, place.session.host().api.host};
      auto done = follow(place.session.transport(), request, head, body);
      if (!expired && done && !receiver.error()) return done;
      place.target.drop(*target);
      if (!expired) return done;
    }
    auto const url = place.session.url("blobs/" + digest_.to_string());
    auto const head = [&](HttpHead const& response) { return receiver.head(response); };
    EROFS_OCI_TRY_ASSIGN(auto const from,
                         place.session.get(url, headers, limits_, deadline, head, body));
    // Elsewhere on the same host a login may be needed, which only the registry's own path brings.
    if (!receiver.error() && !from.same_origin(url)) place.target.set(from);
    return {};
  }

  std::unique_ptr<std::vector<Place>> places_;  // never grows: its members do not move
  Digest digest_;
  std::uint64_t size_;
  HttpLimits limits_;
  Time time_;
};

}  // namespace erofs_oci
