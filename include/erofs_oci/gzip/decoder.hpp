// SPDX-License-Identifier: Apache-2.0
/// @file
/// GzipDecoder: the decoded bytes of a run of gzip members, entered at a start or a checkpoint.
#pragma once

#include <cstddef>
#include <span>

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
    framing_ = MemberFraming::inside_member();
    return inflater_.start(bits, first, window);
  }

  /// Decodes until `in` is used up, `out` is full, or the stream has ended.
  /// @param out  not empty
  /// @error{Errc::corrupt, the bytes are no gzip data\, or a member's CRC or length is wrong}
  [[nodiscard]] Result<Step> decode(std::span<std::byte const> in, std::span<std::byte> out) {
    Step step;
    for (;;) {
      if (framing_.phase() == Phase::trailing) {
        step.consumed = in.size();
        return step;
      }
      if (framing_.phase() == Phase::data) {
        EROFS_OCI_TRY(inflate(in.subspan(step.consumed), out.subspan(step.produced), step));
        if (framing_.phase() == Phase::data) return step;
      } else if (step.consumed == in.size()) {
        return step;
      } else
        EROFS_OCI_TRY(frame(in[step.consumed++]));
    }
  }

  /// Whether trailing data was met: nothing more will come.
  [[nodiscard]] bool ended() const noexcept { return framing_.phase() == Phase::trailing; }

  /// Whether the input may end here: behind a member, or in trailing data.
  [[nodiscard]] bool may_end() const noexcept { return framing_.may_end(); }

 private:
  using Phase = MemberFraming::Phase;

  Result<void> inflate(std::span<std::byte const> in, std::span<std::byte> out, Step& step) {
    if (out.empty()) return {};
    EROFS_OCI_TRY_ASSIGN(auto const done, inflater_.inflate(in, out));
    step.consumed += done.consumed;
    step.produced += done.produced;
    framing_.decoded(out.first(done.produced), I::crc32);
    if (!done.end) return {};
    framing_.end_data();
    for (auto const byte : std::span(done.unread).first(done.unread_size)) {
      if (auto const ok = frame(byte); !ok) return ok;
    }
    return {};
  }

  // A byte that is no deflate data.
  Result<void> frame(std::byte byte) {
    if (auto const ok = framing_.push(byte); !ok) return ok;
    if (framing_.phase() != Phase::data) return {};
    return inflater_.start(0, std::byte{0}, {});
  }

  I inflater_;
  MemberFraming framing_;
};

}  // namespace erofs_oci
