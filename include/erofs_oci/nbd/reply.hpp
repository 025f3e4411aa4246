// SPDX-License-Identifier: Apache-2.0
/// @file
/// Reply: the bytes of the reply to each request. No I/O.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <new>
#include <optional>
#include <span>
#include <string_view>
#include <utility>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/endian.hpp>
#include <erofs_oci/nbd/buffer_pool.hpp>
#include <erofs_oci/nbd/connect.hpp>
#include <erofs_oci/nbd/protocol.hpp>

namespace erofs_oci::nbd {

/// One reply, whole: what is in `head`, then what is in `body`.
struct Reply {
  std::array<std::byte, 64> head;
  std::size_t head_size = 0;  ///< bytes
  Buffer body{};
  std::size_t body_size = 0;  ///< bytes
  std::size_t charge = 0;     ///< what it holds of the Window, in bytes

  /// The bytes to send.
  [[nodiscard]] std::array<std::span<std::byte const>, 2> parts() const noexcept {
    return {std::span(head).first(head_size), body.first(body_size)};
  }

  /// Adds to the head, which has room for any header of the protocol.
  void append(std::span<std::byte const> bytes) noexcept {
    std::copy_n(bytes.data(), bytes.size(), head.data() + head_size);
    head_size += bytes.size();
  }
};

/// What the reply to `request` may hold in memory, in bytes.
[[nodiscard]] inline std::size_t charge(Request const& request) noexcept {
  return request.is(Command::read) && request.length <= max_payload ? request.length : 0;
}

/// A reply without a byte yet.
[[nodiscard]] inline Reply empty_reply(Request const& request) noexcept {
  Reply reply;
  reply.charge = charge(request);
  return reply;
}

/// Whether a request can be carried out at all, and if not, what to answer.
///
/// A READ or CACHE must lie inside the export and begin before its end. Whatever would change the
/// export is perm; a flag that was not negotiated, a command that is none, inval.
[[nodiscard]] inline Errno judge(Request const& request, Export const& served,
                                 Negotiated const& negotiated) noexcept {
  namespace flag = command_flag;
  auto const fits = [&](std::uint16_t known) { return (request.flags & ~known) == 0; };
  auto const inside =
      request.offset < served.size && request.length <= served.size - request.offset;
  auto const valid = [](bool condition) { return condition ? Errno::none : Errno::inval; };
  switch (Command{request.type}) {
    case Command::read:
      return valid(fits(negotiated.structured ? flag::df : std::uint16_t{0}) && inside &&
                   request.length <= max_payload);
    case Command::write:
    case Command::trim: return fits(flag::fua) ? Errno::perm : Errno::inval;
    case Command::write_zeroes:
      return fits(flag::fua | flag::no_hole | flag::fast_zero) ? Errno::perm : Errno::inval;
    case Command::flush: return valid(fits(0));
    case Command::cache: return valid(fits(0) && inside);
    case Command::block_status:
      return valid(fits(flag::req_one) && inside && request.length > 0 &&
                   negotiated.base_allocation);
    case Command::disconnect: break;  // has no answer
  }
  return Errno::inval;
}

/// "Done", without data.
[[nodiscard]] inline Reply success_reply(Request const& request,
                                         Negotiated const& negotiated) noexcept {
  auto reply = empty_reply(request);
  if (negotiated.structured) {
    reply.append(encode(Chunk{Chunk::done, ChunkType::none, request.cookie, 0}));
  } else {
    reply.append(encode(SimpleReply{Errno::none, request.cookie}));
  }
  return reply;
}

/// The header for the data of a READ of at least one byte, all of it in `reply.body`.
inline void head_data(Reply& reply, Request const& request, Negotiated const& negotiated) noexcept {
  if (!negotiated.structured) {
    return reply.append(encode(SimpleReply{Errno::none, request.cookie}));
  }
  reply.append(
      encode(Chunk{Chunk::done, ChunkType::offset_data, request.cookie, request.length + 8}));
  reply.append(to_wire(request.offset));
}

/// An error reply. With structured replies it has a text, which is left out if allocating it fails.
/// @param at  the first byte that cannot be had, if it is known; inside the request
[[nodiscard]] inline Reply error_reply(Request const& request, Negotiated const& negotiated,
                                       Errno error, std::string_view text,
                                       std::optional<std::uint64_t> at,
                                       BufferPool& buffers) noexcept {
  auto reply = empty_reply(request);
  if (!negotiated.structured) {
    reply.append(encode(SimpleReply{error, request.cookie}));
    return reply;
  }
  text = clip(text, max_string);
  try {
    reply.body = buffers.take(text.size() + 8);
  } catch (std::bad_alloc const&) {
    text = {};
    at.reset();
  }
  auto const type = at ? ChunkType::error_offset : ChunkType::error;
  reply.body_size = text.size() + (at ? 8 : 0);
  reply.append(encode(
      Chunk{Chunk::done, type, request.cookie, static_cast<std::uint32_t>(6 + reply.body_size)}));
  reply.append(to_wire(static_cast<std::uint32_t>(error), static_cast<std::uint16_t>(text.size())));
  auto const body = reply.body.first(reply.body_size);
  std::ranges::copy(as_bytes(text), body.begin());
  if (at) store_be(*at, body.last<8>());
  return reply;
}

/// The reply to a request that judge() refused.
[[nodiscard]] constexpr std::string_view explain(Errno error) noexcept {
  switch (error) {
    case Errno::perm: return "the export is read-only";
    case Errno::shutdown: return "the server is shutting down";
    case Errno::nomem: return "the server is out of memory";
    case Errno::inval: return "the export has no such command, flag, offset or length";
    default: return "the request failed";
  }
}

/// The extents of a BLOCK_STATUS: data up to served.zeros_from, a hole that reads as zeros behind.
[[nodiscard]] inline Reply block_status_reply(Request const& request,
                                              Export const& served) noexcept {
  constexpr std::uint32_t fill = Extent::hole | Extent::zero;
  auto const data = served.zeros_from <= request.offset
                        ? std::uint32_t{0}
                        : static_cast<std::uint32_t>(std::min<std::uint64_t>(
                              request.length, served.zeros_from - request.offset));
  auto const one = (request.flags & command_flag::req_one) != 0;
  auto const both = data > 0 && data < request.length && !one;

  auto reply = empty_reply(request);
  reply.append(
      encode(Chunk{Chunk::done, ChunkType::block_status, request.cookie, both ? 20U : 12U}));
  reply.append(to_wire(base_allocation_id));
  if (data > 0) reply.append(encode(Extent{data, 0}));
  if (data == 0 || both) reply.append(encode(Extent{request.length - data, fill}));
  return reply;
}

}  // namespace erofs_oci::nbd
