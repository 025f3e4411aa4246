// SPDX-License-Identifier: Apache-2.0
/// @file
/// NBD's transmission phase as bytes: requests, simple replies, reply chunks. No I/O.
#pragma once

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <system_error>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/endian.hpp>
#include <erofs_oci/core/result.hpp>

namespace erofs_oci::nbd {

/// The longest READ that is answered and the longest WRITE that is read to its end, in bytes.
inline constexpr std::uint32_t max_payload = 32 * 1024 * 1024;

/// The longest text in an error chunk or a handshake string, in bytes.
/// @spec{NBD proto.md: strings are at most 4096 bytes}
inline constexpr std::size_t max_string = 4096;

/// What BLOCK_STATUS replies call the one metadata context that there is, base:allocation.
inline constexpr std::uint32_t base_allocation_id = 1;

/// @name Magic numbers
/// @{

inline constexpr std::uint32_t request_magic = 0x25609513;
inline constexpr std::uint32_t extended_request_magic = 0x21e41c71;  ///< never negotiated here
inline constexpr std::uint32_t simple_reply_magic = 0x67446698;
inline constexpr std::uint32_t chunk_magic = 0x668e33ef;
/// @}

/// Unsigned integers as they are on the wire: big endian, one after the other.
template <std::unsigned_integral... Fields>
[[nodiscard]] constexpr auto to_wire(Fields... fields) noexcept {
  std::array<std::byte, (sizeof(Fields) + ...)> bytes{};
  std::span<std::byte> rest(bytes);
  ((store_be(fields, rest.first<sizeof(Fields)>()), rest = rest.subspan(sizeof(Fields))), ...);
  return bytes;
}

/// What a request asks for. The wire may hold any other 16-bit number too.
enum class Command : std::uint16_t {
  read = 0,
  write = 1,
  disconnect = 2,
  flush = 3,
  trim = 4,
  cache = 5,
  write_zeroes = 6,
  block_status = 7,
};

/// Bits of Request::flags.
namespace command_flag {
inline constexpr std::uint16_t fua = 1;
inline constexpr std::uint16_t no_hole = 2;
inline constexpr std::uint16_t df = 4;       ///< READ: answer in one content chunk
inline constexpr std::uint16_t req_one = 8;  ///< BLOCK_STATUS: exactly one extent
inline constexpr std::uint16_t fast_zero = 16;
}  // namespace command_flag

/// Bits that describe an export to its client.
namespace transmission_flag {
inline constexpr std::uint16_t has_flags = 1;
inline constexpr std::uint16_t read_only = 2;
inline constexpr std::uint16_t send_df = 128;  ///< only with structured replies
inline constexpr std::uint16_t can_multi_conn = 256;
}  // namespace transmission_flag

/// What every export of this library says: its bytes never change, so any number of connections
/// sees the same.
inline constexpr std::uint16_t export_flags =
    transmission_flag::has_flags | transmission_flag::read_only | transmission_flag::can_multi_conn;

/// The error numbers that the protocol knows; they are not the host's errno.
enum class Errno : std::uint32_t {
  none = 0,
  perm = 1,
  io = 5,
  nomem = 12,
  inval = 22,
  nospc = 28,
  overflow = 75,
  notsup = 95,
  shutdown = 108,
};

/// The protocol's number for an error. Every error of a source is EIO, whether the source is
/// corrupt, truncated, unauthorized, late or unreachable: a client would treat them alike.
[[nodiscard]] inline Errno to_errno(std::error_code code) noexcept {
  if (!code) return Errno::none;
  if (code == Errc::stopping) return Errno::shutdown;
  if (code == std::errc::result_out_of_range) return Errno::inval;
  if (code == std::errc::not_enough_memory) return Errno::nomem;
  return Errno::io;
}

/// One request, without a WRITE's payload.
///
/// On the wire: 28 bytes, big endian. @spec{NBD proto.md, "Request message"}
struct Request {
  static constexpr std::size_t wire_size = 28;  ///< bytes

  std::uint16_t flags = 0;   ///< [4, 6)   command_flag
  std::uint16_t type = 0;    ///< [6, 8)   Command, or a number that no Command has
  std::uint64_t cookie = 0;  ///< [8, 16)  opaque, echoed in the reply
  std::uint64_t offset = 0;  ///< [16, 24) bytes
  std::uint32_t length = 0;  ///< [24, 28) bytes

  bool operator==(Request const&) const = default;

  /// Whether this is a request for `command`.
  [[nodiscard]] bool is(Command command) const noexcept {
    return type == static_cast<std::uint16_t>(command);
  }
};

/// @error{Errc::protocol, the magic number is not a compact request's}
[[nodiscard]] inline Result<Request> decode_request(
    std::span<std::byte const, Request::wire_size> raw) {
  auto const magic = load_be<std::uint32_t>(raw.subspan<0, 4>());
  if (magic == extended_request_magic) {
    return fail(Errc::protocol, "nbd request with an extended header, which was not negotiated");
  }
  if (magic != request_magic) {
    return fail(Errc::protocol, "nbd request with the magic number " + hex(raw.first<4>()));
  }
  return Request{
      load_be<std::uint16_t>(raw.subspan<4, 2>()), load_be<std::uint16_t>(raw.subspan<6, 2>()),
      load_be<std::uint64_t>(raw.subspan<8, 8>()), load_be<std::uint64_t>(raw.subspan<16, 8>()),
      load_be<std::uint32_t>(raw.subspan<24, 4>())};
}

/// The bytes that a client sends.
[[nodiscard]] constexpr std::array<std::byte, Request::wire_size> encode(
    Request const& request) noexcept {
  return to_wire(request_magic, request.flags, request.type, request.cookie, request.offset,
                 request.length);
}

/// The header of a simple reply; a READ's data follows it if `error` is none.
///
/// On the wire: 16 bytes, big endian. @spec{NBD proto.md, "Simple reply message"}
struct SimpleReply {
  static constexpr std::size_t wire_size = 16;  ///< bytes

  Errno error = Errno::none;  ///< [4, 8)
  std::uint64_t cookie = 0;   ///< [8, 16)

  bool operator==(SimpleReply const&) const = default;
};

/// The bytes that a server sends.
[[nodiscard]] constexpr std::array<std::byte, SimpleReply::wire_size> encode(
    SimpleReply const& reply) noexcept {
  return to_wire(simple_reply_magic, static_cast<std::uint32_t>(reply.error), reply.cookie);
}

/// @error{Errc::protocol, the magic number is another}
[[nodiscard]] inline Result<SimpleReply> decode_simple_reply(
    std::span<std::byte const, SimpleReply::wire_size> raw) {
  if (load_be<std::uint32_t>(raw.subspan<0, 4>()) != simple_reply_magic) {
    return fail(Errc::protocol, "nbd simple reply with the magic number " + hex(raw.first<4>()));
  }
  return SimpleReply{Errno{load_be<std::uint32_t>(raw.subspan<4, 4>())},
                     load_be<std::uint64_t>(raw.subspan<8, 8>())};
}

/// What a chunk of a structured reply holds.
enum class ChunkType : std::uint16_t {
  none = 0,               ///< nothing
  offset_data = 1,        ///< u64 offset, data
  block_status = 5,       ///< u32 context, then one or more Extent
  error = 0x8001,         ///< u32 error, u16 length of a text, the text
  error_offset = 0x8002,  ///< the same, then u64 offset
};

/// The header of one chunk of a structured reply; `length` bytes of payload follow.
///
/// On the wire: 20 bytes, big endian. @spec{NBD proto.md, "Structured reply chunk message"}
struct Chunk {
  static constexpr std::size_t wire_size = 20;  ///< bytes
  static constexpr std::uint16_t done = 1;      ///< in `flags`: the reply's last chunk

  std::uint16_t flags = 0;           ///< [4, 6)
  ChunkType type = ChunkType::none;  ///< [6, 8)
  std::uint64_t cookie = 0;          ///< [8, 16)
  std::uint32_t length = 0;          ///< [16, 20) bytes of payload

  bool operator==(Chunk const&) const = default;
};

/// The bytes that a server sends.
[[nodiscard]] constexpr std::array<std::byte, Chunk::wire_size> encode(
    Chunk const& chunk) noexcept {
  return to_wire(chunk_magic, chunk.flags, static_cast<std::uint16_t>(chunk.type), chunk.cookie,
                 chunk.length);
}

/// @error{Errc::protocol, the magic number is another}
[[nodiscard]] inline Result<Chunk> decode_chunk(std::span<std::byte const, Chunk::wire_size> raw) {
  if (load_be<std::uint32_t>(raw.subspan<0, 4>()) != chunk_magic) {
    return fail(Errc::protocol, "nbd reply chunk with the magic number " + hex(raw.first<4>()));
  }
  return Chunk{load_be<std::uint16_t>(raw.subspan<4, 2>()),
               ChunkType{load_be<std::uint16_t>(raw.subspan<6, 2>())},
               load_be<std::uint64_t>(raw.subspan<8, 8>()),
               load_be<std::uint32_t>(raw.subspan<16, 4>())};
}

/// A run of bytes in a BLOCK_STATUS reply.
struct Extent {
  static constexpr std::size_t wire_size = 8;  ///< bytes
  static constexpr std::uint32_t hole = 1;     ///< base:allocation: takes no space
  static constexpr std::uint32_t zero = 2;     ///< base:allocation: reads as zeros

  std::uint32_t length = 0;  ///< bytes, > 0
  std::uint32_t flags = 0;

  bool operator==(Extent const&) const = default;
};

/// The bytes that a server sends.
[[nodiscard]] constexpr std::array<std::byte, Extent::wire_size> encode(
    Extent const& extent) noexcept {
  return to_wire(extent.length, extent.flags);
}

/// At most `limit` bytes of a UTF-8 text, never ending inside a character.
[[nodiscard]] constexpr std::string_view clip(std::string_view text, std::size_t limit) noexcept {
  if (text.size() <= limit) return text;
  while (limit > 0 && (static_cast<unsigned char>(text[limit]) & 0xc0U) == 0x80U) --limit;
  return text.substr(0, limit);
}

}  // namespace erofs_oci::nbd
