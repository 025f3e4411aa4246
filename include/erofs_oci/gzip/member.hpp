// SPDX-License-Identifier: Apache-2.0
/// @file
/// The header and the trailer of a gzip member, a byte at a time, without I/O.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include <erofs_oci/core/endian.hpp>
#include <erofs_oci/core/result.hpp>

namespace erofs_oci {

/// Takes a member header apart, fed a byte at a time; keeps none of its optional fields.
/// @spec{RFC 1952 2.3}
class MemberHeaderParser {
 public:
  /// What a byte led to.
  enum class State {
    more,          ///< the header goes on
    done,          ///< this byte was its last; deflate data follows
    not_a_header,  ///< the bytes so far are no gzip magic: trailing data
  };

  /// Takes the next byte. Not to be called again after anything but State::more.
  /// @error{Errc::corrupt, the magic is right but a reserved flag is set}
  [[nodiscard]] Result<State> push(std::byte byte) {
    auto const value = std::to_integer<std::uint8_t>(byte);
    auto const at = taken_++;
    switch (field_) {
      case Field::fixed: return push_fixed(at, value);
      case Field::extra_length:
        left_ |= static_cast<std::uint32_t>(value) << (8 * length_bytes_++);
        if (length_bytes_ == 2) return left_ > 0 ? enter(Field::extra) : next(Field::extra);
        return State::more;
      case Field::extra: return --left_ > 0 ? State::more : next(Field::extra);
      case Field::name: return value != 0 ? State::more : next(Field::name);
      case Field::comment: return value != 0 ? State::more : next(Field::comment);
      case Field::header_crc: return --left_ > 0 ? State::more : next(Field::header_crc);
    }
    return State::more;
  }

  /// Bytes taken so far; after State::done, the header's length.
  [[nodiscard]] std::uint64_t taken() const noexcept { return taken_; }

 private:
  enum class Field { fixed, extra_length, extra, name, comment, header_crc };

  [[nodiscard]] Result<State> push_fixed(std::uint64_t at, std::uint8_t value) {
    constexpr std::array<std::uint8_t, 3> magic{0x1f, 0x8b, 8};
    if (at < magic.size()) return value == magic[at] ? State::more : State::not_a_header;
    if (at == 3) {
      flags_ = value;
      if ((flags_ & 0xe0) != 0) {
        return fail(Errc::corrupt, "gzip member header: reserved flags set");
      }
    }
    return at < 9 ? State::more : next(Field::fixed);
  }

  State enter(Field field) noexcept {
    field_ = field;
    return State::more;
  }

  // The first field after `done` that the flags announce.
  State next(Field done) noexcept {
    if (done < Field::extra_length && (flags_ & 4) != 0) return enter(Field::extra_length);
    if (done < Field::name && (flags_ & 8) != 0) return enter(Field::name);
    if (done < Field::comment && (flags_ & 16) != 0) return enter(Field::comment);
    if (done < Field::header_crc && (flags_ & 2) != 0) {
      left_ = 2;
      return enter(Field::header_crc);
    }
    return State::done;
  }

  std::uint64_t taken_ = 0;
  std::uint32_t left_ = 0;
  unsigned length_bytes_ = 0;
  std::uint8_t flags_ = 0;
  Field field_ = Field::fixed;
};

/// The eight bytes after a member's deflate data.
struct MemberTrailer {
  static constexpr std::size_t on_disk_size = 8;  ///< bytes

  std::uint32_t crc = 0;   ///< [0, 4)  CRC-32 of the member's decoded bytes
  std::uint32_t size = 0;  ///< [4, 8)  their number, modulo 2^32

  /// Total: every 8 bytes are some trailer.
  [[nodiscard]] static constexpr MemberTrailer decode(
      std::span<std::byte const, on_disk_size> raw) noexcept {
    return {load_le<std::uint32_t>(raw.first<4>()), load_le<std::uint32_t>(raw.subspan<4, 4>())};
  }
};

}  // namespace erofs_oci
