// SPDX-License-Identifier: Apache-2.0
/// @file
/// GzipScanner: decodes a gzip stream once and chooses checkpoints on the way.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <utility>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/function_ref.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/gzip/block_decoder.hpp>
#include <erofs_oci/gzip/checkpoint.hpp>
#include <erofs_oci/gzip/member.hpp>

namespace erofs_oci {

/// What a GzipScanner tells while it works. All spans are valid during the call only.
struct GzipScanEvents {
  /// The next decoded bytes.
  std::function<Result<void>(std::span<std::byte const> bytes)> decoded;

  /// A checkpoint: decoded bytes after this call come from behind it. `window` is the decoded data
  /// before it, zeros where the member has none, and the compressed bytes follow in `compressed`.
  std::function<void(Checkpoint const& point, std::span<std::byte const, gzip_window_size> window)>
      checkpoint;

  /// The next compressed bytes, every one of them once, in order. A checkpoint is told before the
  /// byte at its `in`, and after all bytes before that.
  std::function<void(std::span<std::byte const> bytes)> compressed;
};

/// Takes a gzip stream in pieces of any size; checks the CRC and length of each member; chooses
/// checkpoints as SOCI and erofs-utils do: the first block, and each block that starts more than
/// `span_size` decoded bytes behind the checkpoint before it; where blocks decode to almost
/// nothing, also each that starts more than twice as many compressed bytes behind it. Not
/// thread-safe.
template <BlockDecoder D = DefaultBlockDecoder>
class GzipScanner {
 public:
  /// @param span_size  decoded bytes between checkpoints, at least; 0: each block has one
  GzipScanner(std::uint64_t span_size, GzipScanEvents events)
      : span_size_(span_size), events_(std::move(events)), history_(gzip_window_size + out_size) {}

  /// Takes the next compressed bytes.
  /// @error{Errc::corrupt, they are no gzip data\, or a member's CRC or length is wrong}
  [[nodiscard]] Result<void> push(std::span<std::byte const> piece) {
    staged_.insert(staged_.end(), piece.begin(), piece.end());
    EROFS_OCI_TRY(run(), "blob offset " + std::to_string(position()));
    drop_used();
    return {};
  }

  /// Says that no bytes follow.
  /// @error{Errc::truncated, the stream ends inside a member}
  [[nodiscard]] Result<void> finish() {
    auto const end = staged_begin_ + staged_.size();
    tell_compressed(end);
    if (framing_.may_end()) return {};
    return fail(Errc::truncated,
                "blob offset " + std::to_string(end) + ": the gzip stream ends inside a member");
  }

  /// Decoded bytes so far.
  [[nodiscard]] std::uint64_t decoded_size() const noexcept { return out_; }

 private:
  using Phase = MemberFraming::Phase;

  static constexpr std::size_t out_size = 1 << 20;  // bytes decoded in one call, at most
  static constexpr std::size_t keep = 16;           // used bytes that a block's end may give back

  [[nodiscard]] std::uint64_t position() const noexcept { return staged_begin_ + used_; }

  Result<void> run() {
    for (;;) {
      auto const in = std::span(std::as_const(staged_)).subspan(used_);
      if (framing_.phase() == Phase::trailing) {
        used_ = staged_.size();
        return {};
      }
      if (framing_.phase() == Phase::data) {
        EROFS_OCI_TRY_ASSIGN(auto const more, decode(in));
        if (!more) return {};
      } else if (in.empty()) {
        return {};
      } else {
        ++used_;
        if (auto const ok = frame(in.front()); !ok) return ok;
      }
    }
  }

  // One call of the decoder; false: it wants more input.
  Result<bool> decode(std::span<std::byte const> in) {
    auto const out = std::span(history_).subspan(gzip_window_size);
    EROFS_OCI_TRY_ASSIGN(auto const step, decoder_.decode(in, out));
    used_ += step.consumed;
    auto const bytes = out.first(step.produced);
    framing_.decoded(bytes, D::crc32);
    out_ += bytes.size();
    if (!bytes.empty()) {
      EROFS_OCI_TRY(events_.decoded(bytes));
      // The last 32 KiB become the window, right before `out`.
      std::ranges::copy(std::span(history_).subspan(bytes.size(), gzip_window_size),
                        history_.begin());
    }
    if (!step.block_end && !step.end) return step.produced > 0 || step.consumed > 0;
    used_ -= step.unread_bits / 8;
    auto const bits = step.unread_bits % 8;
    if (step.end) {
      framing_.end_data();
      return true;
    }
    EROFS_OCI_TRY(start_block(bits));
    return true;
  }

  // Begins the block at position() less `bits` bits.
  Result<void> start_block(unsigned bits) {
    auto const window = std::span(std::as_const(history_)).template first<gzip_window_size>();
    if (!last_ || out_ - *last_ > span_size_ || position() - last_in_ > 2 * span_size_) {
      last_ = out_;
      last_in_ = position();
      tell_compressed(position());
      events_.checkpoint({position(), out_, static_cast<std::uint8_t>(bits)}, window);
    }
    auto const first = bits > 0 ? staged_[used_ - 1] : std::byte{0};
    auto const known = std::min<std::uint64_t>(framing_.size(), gzip_window_size);
    return decoder_.start(bits, first, window.last(static_cast<std::size_t>(known)));
  }

  // A byte that is no deflate data.
  Result<void> frame(std::byte byte) {
    if (auto const ok = framing_.push(byte); !ok) return ok;
    if (framing_.phase() != Phase::data) return {};
    std::fill_n(history_.begin(), gzip_window_size, std::byte{0});
    return start_block(0);
  }

  // Tells of the compressed bytes before `end` that were not told of yet.
  void tell_compressed(std::uint64_t end) {
    if (end <= told_) return;
    auto const from = static_cast<std::size_t>(told_ - staged_begin_);
    auto const to = static_cast<std::size_t>(end - staged_begin_);
    events_.compressed(std::span(std::as_const(staged_)).subspan(from, to - from));
    told_ = end;
  }

  void drop_used() {
    if (used_ <= keep) return;
    tell_compressed(position() - keep);
    auto const drop = static_cast<std::size_t>(told_ - staged_begin_);
    staged_.erase(staged_.begin(), staged_.begin() + static_cast<std::ptrdiff_t>(drop));
    staged_begin_ += drop;
    used_ -= drop;
  }

  std::uint64_t const span_size_;
  GzipScanEvents events_;
  D decoder_;
  MemberFraming framing_;

  Bytes staged_;                    // compressed bytes from staged_begin_ on
  std::uint64_t staged_begin_ = 0;  // offset in the blob
  std::size_t used_ = 0;            // of staged_
  std::uint64_t told_ = 0;          // offset in the blob up to which `compressed` was called

  Bytes history_;                      // the window, then room for what is decoded next
  std::uint64_t out_ = 0;              // decoded bytes
  std::optional<std::uint64_t> last_;  // decoded offset of the last checkpoint
  std::uint64_t last_in_ = 0;          // its offset in the blob
};

}  // namespace erofs_oci
