// SPDX-License-Identifier: Apache-2.0
/// @file
/// Reads a range over HTTP: judges each response, and continues after a short one.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include <erofs_oci/core/result.hpp>
#include <erofs_oci/core/source.hpp>
#include <erofs_oci/source/http_response.hpp>
#include <erofs_oci/source/http_transport.hpp>

namespace erofs_oci {

/// Takes the answers to one request for the bytes [offset, offset + length) of an object of known
/// size, and passes on only bytes that are known to be those.
///
///   - 206: Content-Range must start at `offset` and name the object's size; its body must not be
///     longer than it says
///   - 200: the server ignores ranges; what lies before `offset` is dropped
///   - anything else, and any Content-Encoding but identity, is an error
class RangeReceiver {
 public:
  /// @param etag  the object's strong ETag if it is known: another one is an error
  RangeReceiver(std::uint64_t offset, std::uint64_t length, std::uint64_t size, ByteSink sink,
                std::string_view etag = {}) noexcept
      : offset_(offset), length_(length), size_(size), sink_(sink), etag_(etag) {}

  /// What to ask for: "bytes=A-B".
  [[nodiscard]] std::string range() const {
    return "bytes=" + std::to_string(offset_) + "-" + std::to_string(offset_ + length_ - 1);
  }

  /// Judges the head of the last response, redirects aside; says whether its body is wanted.
  [[nodiscard]] bool head(HttpHead const& response) {
    auto ok = judge(response);
    if (!ok) error_ = std::move(ok).error();
    return !error_;
  }

  /// Takes the next bytes of the body; says whether more are wanted.
  [[nodiscard]] bool body(std::span<std::byte const> bytes) {
    auto const skipped = static_cast<std::size_t>(std::min<std::uint64_t>(skip_, bytes.size()));
    skip_ -= skipped;
    bytes = bytes.subspan(skipped);
    auto const room = length_ - delivered_;
    auto const good = bytes.first(
        static_cast<std::size_t>(std::min<std::uint64_t>({room, declared_, bytes.size()})));
    if (good.size() < bytes.size() && good.size() == declared_) {
      error_ = Error{Errc::protocol, "the body is longer than its Content-Range"};
      return false;
    }
    declared_ -= good.size();
    delivered_ += good.size();
    if (!good.empty() && !sink_(good)) {
      stopped_ = true;
      return false;
    }
    // A body that ends where we do is read to its end, so that its connection can be used again.
    return delivered_ < length_ || declared_ == 0;
  }

  /// Forgets a response that brought nothing, so that another server may be asked.
  void restart() noexcept {
    error_.reset();
    skip_ = 0;
    declared_ = 0;
  }

  /// Bytes handed on so far.
  [[nodiscard]] std::uint64_t delivered() const noexcept { return delivered_; }

  /// Whether the sink wanted no more.
  [[nodiscard]] bool stopped() const noexcept { return stopped_; }

  /// Why the response cannot be used.
  [[nodiscard]] std::optional<Error> const& error() const noexcept { return error_; }

 private:
  Result<void> judge(HttpHead const& response) {
    if (response.status == 416) return judge_416(response);
    if (auto error = status_error(response)) return fail(*std::move(error));
    auto const encoding = response.find("Content-Encoding");
    if (encoding && !encoding->empty() && !equal_ignoring_case(*encoding, "identity")) {
      return fail(Errc::protocol, "the server packed the content, which was not asked for");
    }
    if (response.status == 206) return judge_206(response);
    if (response.status == 200) return judge_200(response);
    return fail(Errc::protocol,
                "HTTP status " + std::to_string(response.status) + " to a request for a range");
  }

  Result<void> judge_206(HttpHead const& response) {
    auto const value = response.find("Content-Range");
    auto const range = value ? ContentRange::parse(*value) : std::nullopt;
    if (!range || !range->bytes) {
      return fail(Errc::protocol, value ? "Content-Range makes no sense" : "no Content-Range");
    }
    auto const [first, last] = *range->bytes;
    if (first != offset_) {
      return fail(Errc::protocol, "the server sent bytes from offset " + std::to_string(first));
    }
    if (auto ok = same_object(response, range->total); !ok) return ok;
    declared_ = last - first + 1;
    if (auto const text = response.find("Content-Length")) {
      auto const length = parse_number(*text);
      if (!length || *length > declared_) {
        return fail(Errc::protocol, "Content-Length and Content-Range disagree");
      }
    }
    return {};
  }

  Result<void> judge_200(HttpHead const& response) {
    auto total = size_;
    if (auto const text = response.find("Content-Length")) {
      auto const length = parse_number(*text);
      if (!length) return fail(Errc::protocol, "Content-Length makes no sense");
      total = *length;
    }
    if (auto ok = same_object(response, total); !ok) return ok;
    skip_ = offset_;
    declared_ = size_ - offset_;
    return {};
  }

  Result<void> judge_416(HttpHead const& response) {
    auto const range = ContentRange::parse(response.find("Content-Range").value_or(""));
    if (range && range->total != size_) return same_object(response, range->total);
    return fail(Errc::protocol, "HTTP status 416 to a range inside the object");
  }

  Result<void> same_object(HttpHead const& response, std::uint64_t total) const {
    if (total != size_) {
      return fail(Errc::mismatch, "the object has " + std::to_string(total) +
                                      " bytes, expected are " + std::to_string(size_));
    }
    auto const etag = response.find("ETag");
    if (!etag_.empty() && etag && !etag->starts_with("W/") && *etag != etag_) {
      return fail(Errc::mismatch, "the object has changed: its ETag is another one");
    }
    return {};
  }

  std::uint64_t offset_;
  std::uint64_t length_;
  std::uint64_t size_;
  ByteSink sink_;
  std::string_view etag_;
  std::uint64_t skip_ = 0;      // bytes of the body still to drop
  std::uint64_t declared_ = 0;  // bytes from offset_ on that the head still promises
  std::uint64_t delivered_ = 0;
  bool stopped_ = false;
  std::optional<Error> error_;
};

/// Reads [offset, offset + length), which must lie inside the object, by several requests if
/// needed: after a body that ends early it continues at the next byte. Fails after an attempt
/// without a byte, and after the tenth that is not complete.
///
/// @param attempt  makes one exchange and feeds the RangeReceiver that it is given
/// @error{Errc::unavailable, attempts end without the bytes}
/// @error{whatever `attempt` or the receiver says, they fail}
template <class Attempt>
[[nodiscard]] Result<void> read_range(std::uint64_t offset, std::uint64_t length,
                                      std::uint64_t size, ByteSink sink, std::string_view etag,
                                      Attempt const& attempt) {
  constexpr unsigned most_attempts = 10;
  for (unsigned n = 0; length > 0; ++n) {
    RangeReceiver receiver(offset, length, size, sink, etag);
    auto const where = receiver.range();
    Result<void> done = attempt(receiver);
    if (receiver.stopped()) return {};
    if (receiver.error()) return fail(*receiver.error(), where);
    offset += receiver.delivered();
    length -= receiver.delivered();
    if (length == 0) return {};
    auto const again = receiver.delivered() > 0 && n + 1 < most_attempts &&
                       (done || done.error().code == Errc::unavailable);
    if (again) continue;
    if (!done) return fail(std::move(done).error(), where);
    return fail(Errc::unavailable, where + ": the body ends at offset " + std::to_string(offset));
  }
  return {};
}

/// Where redirects led last, so that the next read goes there at once. Signed URLs expire, so it is
/// a hint that is dropped when it fails.
///
/// @par Thread safety
/// All members, from any thread.
class TargetCache {
 public:
  /// The URL to try first, if there is one.
  [[nodiscard]] std::optional<Url> get() const {
    std::lock_guard const lock(mutex_);
    return target_;
  }

  /// Remembers `url`.
  void set(Url const& url) {
    std::lock_guard const lock(mutex_);
    target_ = url;
  }

  /// Forgets `url`, unless another one has taken its place.
  void drop(Url const& url) {
    std::lock_guard const lock(mutex_);
    if (target_ == url) target_.reset();
  }

  /// Whether a status from such a URL means that it has expired rather than that reading failed.
  [[nodiscard]] static constexpr bool expired(int status) noexcept {
    return status == 400 || status == 401 || status == 403 || status == 404 || status == 410;
  }

 private:
  mutable std::mutex mutex_;
  std::optional<Url> target_;
};

}  // namespace erofs_oci
