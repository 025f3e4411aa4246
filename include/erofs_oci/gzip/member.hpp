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

/// Goes through members, but for their deflate data: headers, trailers, and where it all ends. What
/// follows a member and is no header is trailing data: the stream has ended, as for gzip(1).
class MemberFraming {
 public:
  /// What the next byte belongs to.
  enum class Phase { header, data, trailer, trailing };

  /// Expects a header, or goes on inside a member whose start nobody saw: its CRC and length
  /// cannot be checked.
  MemberFraming() = default;
  [[nodiscard]] static MemberFraming inside_member() noexcept {
    MemberFraming framing;
    framing.phase_ = Phase::data;
    framing.members_ = 1;
    framing.start_seen_ = false;
    return framing;
  }

  [[nodiscard]] Phase phase() const noexcept { return phase_; }

  /// Takes a byte of a header or trailer. Phase::data afterwards: a member has begun.
  /// @error{Errc::corrupt, no gzip\, a reserved flag\, or a member's CRC or length is wrong}
  [[nodiscard]] Result<void> push(std::byte byte) {
    if (phase_ == Phase::trailing) return {};
    if (phase_ == Phase::trailer) {
      trailer_[trailer_size_++] = byte;
      return trailer_size_ == trailer_.size() ? end_member() : Result<void>{};
    }
    EROFS_OCI_TRY_ASSIGN(auto const state, header_.push(byte));
    if (state == MemberHeaderParser::State::not_a_header) {
      if (members_ == 0) return fail(Errc::corrupt, "gzip: not a gzip stream");
      phase_ = Phase::trailing;
    }
    if (state == MemberHeaderParser::State::done) {
      phase_ = Phase::data;
      start_seen_ = true;
      crc_ = 0;
      size_ = 0;
      ++members_;
    }
    return {};
  }

  /// Counts decoded bytes. `crc32(crc, bytes)` continues a CRC, as Inflater's.
  template <class Crc32>
  void decoded(std::span<std::byte const> bytes, Crc32 const& crc32) {
    if (start_seen_) crc_ = crc32(crc_, bytes);
    size_ += bytes.size();
  }

  /// Says that the member's deflate data have ended; the trailer follows.
  void end_data() noexcept {
    phase_ = Phase::trailer;
    trailer_size_ = 0;
  }

  /// Decoded bytes of the member so far.
  [[nodiscard]] std::uint64_t size() const noexcept { return size_; }

  /// Whether the input may end here: behind a member, or in trailing data.
  [[nodiscard]] bool may_end() const noexcept {
    constexpr std::uint64_t magic_size = 3;  // fewer bytes than that are no member yet
    return phase_ == Phase::trailing ||
           (phase_ == Phase::header && members_ > 0 && header_.taken() < magic_size);
  }

 private:
  [[nodiscard]] Result<void> end_member() {
    phase_ = Phase::header;
    header_ = {};
    if (!start_seen_) return {};
    std::span const raw(trailer_);
    if (load_le<std::uint32_t>(raw.first<4>()) != crc_) {
      return fail(Errc::corrupt, "gzip: CRC of a member is wrong");
    }
    if (load_le<std::uint32_t>(raw.last<4>()) != static_cast<std::uint32_t>(size_)) {
      return fail(Errc::corrupt, "gzip: length of a member is wrong");
    }
    return {};
  }

  MemberHeaderParser header_;
  std::array<std::byte, 8> trailer_{};  // CRC-32 of the decoded bytes, and their number mod 2^32
  std::size_t trailer_size_ = 0;
  std::uint64_t size_ = 0;
  std::uint64_t members_ = 0;
  std::uint32_t crc_ = 0;
  bool start_seen_ = false;
  Phase phase_ = Phase::header;
};

}  // namespace erofs_oci
