// SPDX-License-Identifier: Apache-2.0
/// @file
/// What FuseFile and FuseTree tell the kernel, and whoever watches them, when something fails.
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <limits>
#include <new>
#include <span>
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

/// Told of each failure, from any thread, several at once, before the reader is.
using OnFuseFailure = std::function<void(FuseFailure const&)>;

/// What a reader is told. Whatever may befall a source is EIO, except that a passed deadline and a
/// lack of memory have numbers of their own, as has what we cannot read.
[[nodiscard]] inline int to_fuse_errno(std::error_code code) noexcept {
  if (code == Errc::timed_out) return ETIMEDOUT;
  if (code == Errc::unsupported) return EOPNOTSUPP;
  if (code == Errc::stopping) return ESHUTDOWN;
  if (code == std::errc::not_enough_memory) return ENOMEM;
  return EIO;
}

namespace fuse::detail {

/// How long the kernel may believe what it was told, in seconds: an image never changes.
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

/// Reports a failure, then answers with its number.
inline void reply_failure(fuse_req_t request, OnFuseFailure const& report,
                          FuseFailure const& failure) {
  if (report) report(failure);
  ::fuse_reply_err(request, to_fuse_errno(failure.error.code));
}

inline void reply_bytes(fuse_req_t request, std::span<std::byte const> bytes) noexcept {
  ::fuse_reply_buf(request, reinterpret_cast<char const*>(bytes.data()), bytes.size());
}

/// This thread's buffer, at least `size` bytes of whatever there was. It stays allocated, so that a
/// read of 1 MiB costs no page faults.
[[nodiscard]] inline std::span<std::byte> scratch(std::size_t size) {
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
