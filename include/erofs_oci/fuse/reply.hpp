// SPDX-License-Identifier: Apache-2.0
/// @file
/// The replies of FuseFile and FuseTree to the kernel when something fails, and the reports of it.
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <limits>
#include <new>
#include <span>
#include <stop_token>
#include <string_view>
#include <system_error>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/fuse/api.hpp>

namespace erofs_oci {

/// A request that was answered with an error because the image or its source failed.
struct FuseFailure {
  std::string_view operation;  ///< "lookup", "read", ...
  std::uint64_t nid = 0;       ///< of the file or directory; FuseFile: 0
  std::string_view name{};     ///< in that directory; only of a lookup
  std::uint64_t offset = 0;    ///< bytes; only of a read
  std::uint64_t length = 0;    ///< bytes; only of a read
  Error const& error;          ///< why
};

/// Called for each failure before the reader gets it, from any thread, several at once.
using OnFuseFailure = std::function<void(FuseFailure const&)>;

/// The errno that a reader gets for an error: EIO for every error of a source, except for a passed
/// deadline, a lack of memory and unsupported data.
[[nodiscard]] inline int to_fuse_errno(std::error_code code) noexcept {
  if (code == Errc::timed_out) return ETIMEDOUT;
  if (code == Errc::unsupported) return EOPNOTSUPP;
  if (code == Errc::stopping) return ESHUTDOWN;
  if (code == std::errc::not_enough_memory) return ENOMEM;
  return EIO;
}

namespace fuse::detail {

/// How long the kernel may cache a reply, in seconds: an image never changes.
inline constexpr double for_ever = 1e9;

/// Runs a handler whose last act is its one reply.
template <class F>
void handle(fuse_req_t request, F const& handler) noexcept {
  try {
    handler();
  } catch (std::bad_alloc const&) {
    ::fuse_reply_err(request, ENOMEM);
  } catch (std::exception const&) {
    ::fuse_reply_err(request, EIO);
  }
}

/// Reports a failure, then answers with its number; or does neither, if the request is left to the
/// next server.
inline void reply_failure(fuse_req_t request, OnFuseFailure const& report,
                          std::stop_token const& leave, FuseFailure const& failure) {
  if (leave.stop_requested()) return ::fuse_reply_none(request);
  if (report) report(failure);
  ::fuse_reply_err(request, to_fuse_errno(failure.error.code));
}

inline void reply_bytes(fuse_req_t request, std::span<std::byte const> bytes) noexcept {
  ::fuse_reply_buf(request, reinterpret_cast<char const*>(bytes.data()), bytes.size());
}

/// This thread's buffer, at least `size` bytes of whatever there was. It stays allocated, so that a
/// read of 1 MiB costs no page faults. Throws std::bad_alloc for more than any kernel asks for: the
/// request is from memory that a hostile worker has left.
[[nodiscard]] inline std::span<std::byte> scratch(std::size_t size) {
  constexpr std::size_t most = 256 * 65536;  // FUSE_MAX_MAX_PAGES of the largest pages
  if (size > most) throw std::bad_alloc();
  thread_local Bytes buffer;
  if (buffer.size() < size) buffer.resize(size);
  return std::span(buffer).first(size);
}

/// Asks for those of `wanted` that the kernel has.
inline void want(fuse_conn_info& connection, unsigned wanted) noexcept {
  connection.want |= connection.capable & wanted;
}

/// For files that never change: nothing is invalidated, and symbolic links are cached.
inline void want_caching(fuse_conn_info& connection) noexcept {
  connection.want &= ~unsigned{FUSE_CAP_AUTO_INVAL_DATA};
  want(connection, FUSE_CAP_EXPLICIT_INVAL_DATA | FUSE_CAP_CACHE_SYMLINKS | FUSE_CAP_ASYNC_READ |
                       FUSE_CAP_ASYNC_DIO | FUSE_CAP_PARALLEL_DIROPS);
}

}  // namespace fuse::detail
}  // namespace erofs_oci
