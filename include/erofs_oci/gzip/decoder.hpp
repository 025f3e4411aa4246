// SPDX-License-Identifier: Apache-2.0
/// @file
/// GzipDecoder: the decoded bytes of a run of gzip members, entered at a start or a checkpoint.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include <erofs_oci/core/result.hpp>
#include <erofs_oci/gzip/checkpoint.hpp>
#include <erofs_oci/gzip/inflater.hpp>
#include <erofs_oci/gzip/member.hpp>
#ifdef EROFS_OCI_HAVE_ISAL
#include <erofs_oci/gzip/isal_inflater.hpp>
#endif

namespace erofs_oci {

#ifdef EROFS_OCI_HAVE_ISAL
/// The fastest Inflater that this build has: ISA-L.
using DefaultInflater = IsalInflater;
#else
/// The fastest Inflater that this build has: zlib.
using DefaultInflater = ZlibInflater;
#endif

/// Decodes gzip members one after another, fed with pieces of any size. Checks the CRC and the
/// length of each member that it saw from its start. What follows the last member and is no member
/// header is trailing data: the stream has ended, as for gzip(1). Not thread-safe.
template <Inflater I = DefaultInflater>
class GzipDecoder {
 public:
  /// What one call of decode() did.
  struct Step {
    std::size_t consumed = 0;  ///< bytes taken from the input
    std::size_t produced = 0;  ///< bytes written to the output
  };

  /// Expects a member header next: the state of a new decoder.
  GzipDecoder() = default;

  /// Goes on inside a member, from a checkpoint.
  /// @param bits    of the checkpoint
  /// @param first   the blob's byte `in` - 1; not looked at if `bits` is 0
  /// @param window  of the checkpoint
  [[nodiscard]] Result<void> enter(unsigned bits, std::byte first,
                                   std::span<std::byte const, gzip_window_size> window) {
    phase_ = Phase::deflate;
    crc_known_ = false;
    members_ = 1;
    return inflater_.start(bits, first, window);
  }

  /// Decodes until `in` is used up, `out` is full, or the stream has ended.
  /// @param out  not empty
  /// @error{Errc::corrupt, the bytes are no gzip data\, or a member's CRC or length is wrong}
  [[nodiscard]] Result<Step> decode(std::span<std::byte const> in, std::span<std::byte> out) {
    Step step;
    for (;;) {
      if (phase_ == Phase::end) {
        step.consumed = in.size();  // trailing data
        return step;
      }
      if (phase_ == Phase::deflate) {
        auto const ok = inflate(in.subspan(step.consumed), out.subspan(step.produced), step);
        if (!ok) return fail(ok.error());
        if (phase_ == Phase::deflate) return step;
      } else if (step.consumed == in.size()) {
        return step;
      } else if (auto const ok = frame(in[step.consumed++]); !ok) {
        return fail(ok.error());
      }
    }
  }

  /// Whether trailing data was met: nothing more will come.
  [[nodiscard]] bool ended() const noexcept { return phase_ == Phase::end; }

  /// Whether the input may end here: behind a member, or in trailing data.
  [[nodiscard]] bool may_end() const noexcept {
    constexpr std::uint64_t magic_size = 3;  // fewer bytes than that are no member yet
    return phase_ == Phase::end ||
           (phase_ == Phase::header && members_ > 0 && header_.taken() < magic_size);
  }

 private:
  enum class Phase { header, deflate, trailer, end };

  Result<void> inflate(std::span<std::byte const> in, std::span<std::byte> out, Step& step) {
    if (out.empty()) return {};
    auto const done = inflater_.inflate(in, out);
    if (!done) return fail(done.error());
    step.consumed += done->consumed;
    step.produced += done->produced;
    if (crc_known_) crc_ = I::crc32(crc_, out.first(done->produced));
    member_size_ += done->produced;
    if (!done->end) return {};
    phase_ = Phase::trailer;
    trailer_size_ = 0;
    for (auto const byte : std::span(done->unread).first(done->unread_size)) {
      if (auto const ok = frame(byte); !ok) return ok;
    }
    return {};
  }

  // A byte that is no deflate data.
  Result<void> frame(std::byte byte) {
    if (phase_ == Phase::end) return {};
    if (phase_ == Phase::deflate) return fail(Errc::corrupt, "gzip: member within read-ahead");
    if (phase_ == Phase::trailer) {
      trailer_[trailer_size_++] = byte;
      return trailer_size_ == trailer_.size() ? end_member() : Result<void>{};
    }
    auto const state = header_.push(byte);
    if (!state) return fail(state.error());
    if (*state == MemberHeaderParser::State::not_a_header) {
      if (members_ == 0) return fail(Errc::corrupt, "gzip: not a gzip stream");
      phase_ = Phase::end;
    }
    if (*state == MemberHeaderParser::State::done) {
      phase_ = Phase::deflate;
      crc_known_ = true;
      crc_ = 0;
      member_size_ = 0;
      ++members_;
      return inflater_.start(0, std::byte{0}, {});
    }
    return {};
  }

  Result<void> end_member() {
    phase_ = Phase::header;
    header_ = {};
    if (!crc_known_) return {};
    auto const trailer = MemberTrailer::decode(trailer_);
    if (trailer.crc != crc_) return fail(Errc::corrupt, "gzip: CRC of a member is wrong");
    if (trailer.size != static_cast<std::uint32_t>(member_size_)) {
      return fail(Errc::corrupt, "gzip: length of a member is wrong");
    }
    return {};
  }

  I inflater_;
  MemberHeaderParser header_;
  std::array<std::byte, MemberTrailer::on_disk_size> trailer_{};
  std::size_t trailer_size_ = 0;
  std::uint64_t member_size_ = 0;
  std::uint64_t members_ = 0;
  std::uint32_t crc_ = 0;
  bool crc_known_ = false;
  Phase phase_ = Phase::header;
};

}  // namespace erofs_oci
