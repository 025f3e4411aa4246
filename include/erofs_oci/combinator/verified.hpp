// SPDX-License-Identifier: Apache-2.0
/// @file
/// Verified: lets only bytes through that match their chunk's digest.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/source.hpp>
#include <erofs_oci/digest/digest.hpp>

namespace erofs_oci {

/// A run of a source's bytes and what they must hash to.
struct VerifiedChunk {
  std::uint64_t begin = 0;  ///< offset of the first byte
  std::uint64_t end = 0;    ///< offset behind the last byte
  Digest digest;            ///< of the bytes between
};

/// The bytes of `Inner`, each checked against the digest of its chunk before it is handed on.
///
/// Reads and hashes whole chunks for every request, all those that it touches as one run; each is
/// handed on as soon as it has come and is right. Put a Cached above it, or a Gzran, which asks for
/// whole chunks. Bytes outside all chunks (a blob's gzip header, say) are an error: they have no
/// digest.
///
/// @par Thread safety
/// All const members, from any thread.
template <RandomAccessSource Inner, Hash H>
class Verified {
 public:
  /// @param inner   the source to check; owned from here on
  /// @param chunks  by rising `begin`; one may begin before the one before it ends, and one that
  ///                ends with it is for reads that begin in it: others do not need its digest
  /// @error{Errc::invalid_argument, the chunks are out of order or leave `inner`}
  [[nodiscard]] static Result<Verified> make(Inner inner, std::vector<VerifiedChunk> chunks) {
    for (std::size_t i = 0; i < chunks.size(); ++i) {
      auto const& chunk = chunks[i];
      bool const rises =
          i == 0 || (chunks[i - 1].begin < chunk.begin && chunks[i - 1].end <= chunk.end);
      if (!rises || chunk.begin >= chunk.end || chunk.end > inner.size()) {
        return fail(Errc::invalid_argument, "verified: chunk " + std::to_string(i) + " at " +
                                                std::to_string(chunk.begin) + " to " +
                                                std::to_string(chunk.end));
      }
    }
    return Verified(std::move(inner), std::move(chunks));
  }

  /// @name RandomAccessSource
  /// @{

  /// Wrong bytes that were kept on disk are forgotten, and read once more from where they come
  /// from.
  /// @error{Errc::digest_mismatch, the bytes are not what they should be}
  /// @error{Errc::mismatch, no chunk covers a byte of the range}
  [[nodiscard]] std::uint64_t size() const noexcept { return inner_.size(); }

  [[nodiscard]] Result<std::size_t> read_at(std::uint64_t offset, std::span<std::byte> out) const {
    return read_by(size(), offset, out, [this](std::uint64_t at, std::uint64_t n, ByteSink sink) {
      return stream(at, n, sink);
    });
  }

  /// A chunk at a time, once it is checked; one inner stream for all that lie together. While a
  /// chunk comes, `sink` is asked by empty pieces whether to go on.
  [[nodiscard]] Result<void> stream(std::uint64_t offset, std::uint64_t length,
                                    ByteSink sink) const {
    auto const end = offset + streamable(size(), offset, length);
    auto retried = chunks_.size();  // none
    while (offset < end) {
      auto const first = find(offset);
      if (first == chunks_.size()) {
        return fail(Errc::mismatch,
                    describe() + ": no digest for offset " + std::to_string(offset));
      }
      EROFS_OCI_TRY_ASSIGN(auto const goes_on, stream_run(first, offset, end, retried, sink));
      if (!goes_on) return {};
    }
    return {};
  }
  /// @}

  /// The layer below.
  [[nodiscard]] Inner const& inner() const noexcept { return inner_; }

  /// As the layer below.
  [[nodiscard]] std::string describe() const { return erofs_oci::describe(inner_); }

 private:
  Verified(Inner inner, std::vector<VerifiedChunk> chunks)
      : inner_(std::move(inner)), chunks_(std::move(chunks)) {}

  // The number of a chunk that holds `offset`: of two, the later one, which reaches further. If
  // there is none, the number of chunks.
  [[nodiscard]] std::size_t find(std::uint64_t offset) const {
    auto const after = std::ranges::upper_bound(chunks_, offset, {}, &VerifiedChunk::begin);
    if (after == chunks_.begin() || std::prev(after)->end <= offset) return chunks_.size();
    return static_cast<std::size_t>(std::prev(after) - chunks_.begin());
  }

  // The number of the next chunk that reaches further; the number of chunks if there is none.
  [[nodiscard]] std::size_t next(std::size_t number) const {
    auto const end = chunks_[number].end;
    do ++number;
    while (number < chunks_.size() && chunks_[number].end == end);
    return number;
  }

  // A chunk while it comes.
  struct Coming {
    std::size_t number = 0;
    Bytes bytes;
    H hash;

    void add(std::span<std::byte const> piece) {
      hash.update(piece);
      bytes.insert(bytes.end(), piece.begin(), piece.end());
    }

    // Goes on with chunk `to`, whose first `shared` bytes are the last ones of this.
    void go_on(std::size_t to, std::size_t shared) {
      number = to;
      bytes.erase(bytes.begin(), bytes.end() - static_cast<std::ptrdiff_t>(shared));
      hash = H();
      hash.update(bytes);
    }
  };

  // Streams chunks that follow one another without a gap, from number `first` on, up to the one
  // that holds the last byte before `end`. Raises `offset` to behind what the sink has had. False:
  // the sink has ended it. True: go on from `offset`, where a wrong chunk has been forgotten, whose
  // number is in `retried`.
  [[nodiscard]] Result<bool> stream_run(std::size_t first, std::uint64_t& offset, std::uint64_t end,
                                        std::size_t& retried, ByteSink sink) const {
    auto last = first;
    for (auto at = next(last); chunks_[last].end < end && at < chunks_.size(); at = next(last)) {
      if (chunks_[at].begin > chunks_[last].end) break;
      last = at;
    }
    // Not all that is claimed: a length is no reason to take memory.
    constexpr std::uint64_t most_reserved = 4 << 20;
    Coming coming{.number = first, .bytes = {}, .hash = {}};
    coming.bytes.reserve(static_cast<std::size_t>(
        std::min(chunks_[first].end - chunks_[first].begin, most_reserved)));
    bool wanted = true;
    Result<void> checked;
    auto const take = [&](std::span<std::byte const> piece) {
      while (coming.number <= last) {
        auto const& chunk = chunks_[coming.number];
        auto const left = chunk.end - chunk.begin - coming.bytes.size();
        auto const part =
            piece.first(static_cast<std::size_t>(std::min<std::uint64_t>(piece.size(), left)));
        coming.add(part);
        piece = piece.subspan(part.size());
        if (part.size() < left) return wanted = sink({});
        checked = check(chunk, coming.hash);
        if (!checked) return false;
        wanted = hand_on(chunk, coming.bytes, offset, end, sink);
        auto const after = next(coming.number);
        auto const shared =
            coming.number < last ? chunk.end - chunks_[after].begin : std::uint64_t{0};
        coming.go_on(after, static_cast<std::size_t>(shared));
        if (!wanted) return false;
      }
      return wanted;
    };
    auto const begin = chunks_[first].begin;
    EROFS_OCI_TRY(erofs_oci::stream(inner_, begin, chunks_[last].end - begin, take));
    if (!checked) {
      auto const& chunk = chunks_[coming.number];
      auto const forgotten = erofs_oci::forget(inner_, chunk.begin, chunk.end - chunk.begin);
      if (!forgotten || std::exchange(retried, coming.number) == coming.number) {
        return fail(std::move(checked).error());
      }
      return true;
    }
    if (wanted && coming.number <= last) {
      return fail(Errc::truncated, where(chunks_[coming.number]));
    }
    return wanted;
  }

  [[nodiscard]] bool hand_on(VerifiedChunk const& chunk, std::span<std::byte const> bytes,
                             std::uint64_t& offset, std::uint64_t end, ByteSink sink) const {
    auto const from = static_cast<std::size_t>(offset - chunk.begin);
    auto const to = static_cast<std::size_t>(std::min(end, chunk.end) - chunk.begin);
    if (from >= to) return true;  // the chunk before it reached as far
    offset = chunk.begin + to;
    return sink(bytes.subspan(from, to - from));
  }

  [[nodiscard]] Result<void> check(VerifiedChunk const& chunk, H& hash) const {
    if (hash.finish() == chunk.digest) return {};
    return fail(Errc::digest_mismatch, where(chunk) + ": not " + chunk.digest.to_string());
  }

  [[nodiscard]] std::string where(VerifiedChunk const& chunk) const {
    return describe() + ": bytes " + std::to_string(chunk.begin) + " to " +
           std::to_string(chunk.end);
  }

  Inner inner_;
  std::vector<VerifiedChunk> chunks_;
};

}  // namespace erofs_oci
