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
/// Whatever is asked for, whole chunks are read and hashed, each as one run. Put a Cached above it,
/// or a Gzran, which asks for just those runs. Bytes outside all chunks (a blob's gzip header, say)
/// are an error: nothing says what they should be.
///
/// @par Thread safety
/// All const members, from any thread.
template <RandomAccessSource Inner, Hash H>
class Verified {
 public:
  /// @param inner   the source to check; owned from here on
  /// @param chunks  by rising `begin`; one may begin before the one before it ends
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

  /// @error{Errc::digest_mismatch, the bytes are not what they should be}
  /// @error{Errc::mismatch, no chunk covers a byte of the range}
  [[nodiscard]] std::uint64_t size() const noexcept { return inner_.size(); }

  [[nodiscard]] Result<std::size_t> read_at(std::uint64_t offset, std::span<std::byte> out) const {
    return read_by(size(), offset, out, [this](std::uint64_t at, std::uint64_t n, ByteSink sink) {
      return stream(at, n, sink);
    });
  }

  /// A chunk at a time, once it is checked.
  [[nodiscard]] Result<void> stream(std::uint64_t offset, std::uint64_t length,
                                    ByteSink sink) const {
    auto const end = offset + readable64(offset, length);
    while (offset < end) {
      auto const* const chunk = find(offset);
      if (chunk == nullptr) {
        return fail(Errc::mismatch,
                    describe() + ": no digest for offset " + std::to_string(offset));
      }
      auto const bytes = read_chunk(*chunk);
      if (!bytes) return fail(bytes.error());
      auto const from = static_cast<std::size_t>(offset - chunk->begin);
      auto const to = static_cast<std::size_t>(std::min(end, chunk->end) - chunk->begin);
      if (!sink(std::span(*bytes).subspan(from, to - from))) return {};
      offset = chunk->begin + to;
    }
    return {};
  }

  void prefetch(std::uint64_t offset, std::uint64_t length) const {
    erofs_oci::prefetch(inner_, offset, length);
  }
  /// @}

  /// The layer below.
  [[nodiscard]] Inner const& inner() const noexcept { return inner_; }

  /// As the layer below.
  [[nodiscard]] std::string describe() const { return erofs_oci::describe(inner_); }

 private:
  Verified(Inner inner, std::vector<VerifiedChunk> chunks)
      : inner_(std::move(inner)), chunks_(std::move(chunks)) {}

  [[nodiscard]] std::uint64_t readable64(std::uint64_t offset,
                                         std::uint64_t wanted) const noexcept {
    return offset >= inner_.size() ? 0 : std::min(wanted, inner_.size() - offset);
  }

  // A chunk that holds `offset`: of two, the later one, which reaches further.
  [[nodiscard]] VerifiedChunk const* find(std::uint64_t offset) const {
    auto const after = std::ranges::upper_bound(chunks_, offset, {}, &VerifiedChunk::begin);
    if (after == chunks_.begin()) return nullptr;
    auto const& chunk = *std::prev(after);
    return chunk.end > offset ? &chunk : nullptr;
  }

  [[nodiscard]] Result<Bytes> read_chunk(VerifiedChunk const& chunk) const {
    // Grows as bytes come: a claimed length is no reason to take memory.
    Bytes bytes;
    H hash;
    auto const length = chunk.end - chunk.begin;
    auto const ok =
        erofs_oci::stream(inner_, chunk.begin, length, [&](std::span<std::byte const> piece) {
          hash.update(piece);
          bytes.insert(bytes.end(), piece.begin(), piece.end());
          return true;
        });
    if (!ok) return fail(ok.error());
    auto const where = [&] {
      return describe() + ": bytes " + std::to_string(chunk.begin) + " to " +
             std::to_string(chunk.end);
    };
    if (bytes.size() != length) return fail(Errc::truncated, where());
    if (hash.finish() != chunk.digest) {
      return fail(Errc::digest_mismatch, where() + ": not " + chunk.digest.to_string());
    }
    return bytes;
  }

  Inner inner_;
  std::vector<VerifiedChunk> chunks_;
};

}  // namespace erofs_oci
