// SPDX-License-Identifier: Apache-2.0
/// @file
/// Checked reads and streams of another source: a combinator of several sources must notice when
/// one of them yields too few bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include <erofs_oci/core/source.hpp>

namespace erofs_oci {

namespace detail {

/// The error of a source that broke law S1: its bytes end at `offset`, below its size.
[[nodiscard]] auto ended_early(RandomAccessSource auto const& source, std::uint64_t offset) {
  return fail(Errc::truncated, describe(source) + ": the data end at offset " +
                                   std::to_string(offset) + ", the size is " +
                                   std::to_string(source.size()));
}

}  // namespace detail

/// Fills `out`, which lies inside `source`, with one read. Unlike read_exact() it says which source
/// gave too little.
/// @error{Errc::truncated, the source gives fewer bytes than its size promises}
[[nodiscard]] Result<void> read_inside(RandomAccessSource auto const& source, std::uint64_t offset,
                                       std::span<std::byte> out) {
  EROFS_OCI_TRY_ASSIGN(auto n, source.read_at(offset, out));
  if (n < out.size()) return detail::ended_early(source, offset + n);
  return {};
}

/// How a watched stream went.
struct Streamed {
  std::uint64_t bytes = 0;  ///< how many the sink has had, the last piece included
  bool stopped = false;     ///< whether the sink ended it
  Result<void> status{};    ///< the source's error; Errc::truncated if it ended early without one
};

/// Streams `length` bytes, which lie inside `source`. The sink never gets a byte beyond `length`,
/// nor a call after it has had all or has said false, whatever `source` does.
[[nodiscard]] Streamed stream_inside(RandomAccessSource auto const& source, std::uint64_t offset,
                                     std::uint64_t length, ByteSink sink) {
  Streamed result;
  if (length == 0) return result;
  auto const watch = [&](std::span<std::byte const> piece) {
    auto const left = length - result.bytes;
    if (piece.size() > left) piece = piece.first(static_cast<std::size_t>(left));
    if (left == 0 || result.stopped) return false;
    result.bytes += piece.size();
    result.stopped = !sink(piece);
    return !result.stopped;
  };
  result.status = erofs_oci::stream(source, offset, length, watch);
  if (result.stopped) result.status = {};
  if (result.status && !result.stopped && result.bytes < length) {
    result.status = detail::ended_early(source, offset + result.bytes);
  }
  return result;
}

/// @name Sources made of parts
/// `visit(f)` calls `f(part, offset in the part, bytes)` for each part that holds some of the bytes
/// asked for, in order, until it says false.
/// @{

/// Fills `out`, which is as long as the visited bytes, with one read a part.
/// @error{Errc::truncated, a part gives fewer bytes than its size promises}
template <class Visit>
[[nodiscard]] Result<std::size_t> read_parts(std::span<std::byte> out, Visit const& visit) {
  std::size_t done = 0;
  Result<void> status;
  visit([&](auto const& part, std::uint64_t at, std::uint64_t n) {
    auto const piece = out.subspan(done, static_cast<std::size_t>(n));
    status = read_inside(part, at, piece);
    done += piece.size();
    return status.has_value();
  });
  if (!status) return fail(std::move(status).error());
  return done;
}

/// One inner stream a part.
/// @error{Errc::truncated, a part gives fewer bytes than its size promises}
template <class Visit>
[[nodiscard]] Result<void> stream_parts(ByteSink sink, Visit const& visit) {
  Streamed streamed;
  visit([&](auto const& part, std::uint64_t at, std::uint64_t n) {
    streamed = stream_inside(part, at, n, sink);
    return streamed.status && !streamed.stopped;
  });
  return std::move(streamed.status);
}
/// @}

}  // namespace erofs_oci
