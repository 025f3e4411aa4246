// SPDX-License-Identifier: Apache-2.0
/// @file
/// LayerIndexBuilder: makes the content of an index file in one pass over a layer's blob.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/memory_budget.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/core/thread_pool.hpp>
#include <erofs_oci/digest/digest.hpp>
#include <erofs_oci/digest/sha256.hpp>
#include <erofs_oci/gzip/block_decoder.hpp>
#include <erofs_oci/gzip/checkpoint.hpp>
#include <erofs_oci/gzip/checkpoint_chooser.hpp>
#include <erofs_oci/gzip/decoder.hpp>
#include <erofs_oci/gzip/layer_index.hpp>
#include <erofs_oci/gzip/scanner.hpp>

namespace erofs_oci {

/// How a LayerIndexBuilder works.
struct LayerIndexOptions {
  BlobEncoding encoding = BlobEncoding::gzip;

  /// Wanted distance between checkpoints, see CheckpointChooser; of a plain blob, bytes of a span.
  /// Range: 64 KiB or more.
  std::uint64_t span_size = index_span_size;
  std::shared_ptr<ImageMemory> memory = std::make_shared<ImageMemory>();  ///< counts spans
};

/// Takes a layer's blob in pieces; decodes it, checks it, and makes its index on the way: digests
/// of the blob, of each piece of `index_piece_size` bytes of it, and of the decoded stream, and
/// checkpoints with windows that are made small. One background thread hashes, another one chooses
/// checkpoints and hashes pieces. Not thread-safe.
template <BlockDecoder D = DefaultBlockDecoder, Inflater I = DefaultInflater>
class LayerIndexBuilder {
 public:
  /// Takes the next decoded bytes.
  using DecodedSink = std::function<Result<void>(std::span<std::byte const> bytes)>;

  /// @param decoded  called on the thread that calls push()
  LayerIndexBuilder(LayerIndexOptions options, DecodedSink decoded)
      : options_(options),
        sink_(std::move(decoded)),
        scanner_(0, events()),
        chooser_(options.span_size, chosen()) {
    index_.encoding = options.encoding;
    index_.span_size = options.span_size;
    index_.piece_size = index_piece_size;
  }

  LayerIndexBuilder(LayerIndexBuilder const&) = delete;
  LayerIndexBuilder& operator=(LayerIndexBuilder const&) = delete;

  /// Takes the next bytes of the blob.
  /// @error{Errc::corrupt, they are no gzip data\, or a CRC is wrong}
  /// @error{any, what the sink for decoded bytes returned}
  /// @error{Errc::unsupported, a block is longer than MemoryBudget::span()\, or all spans take too
  /// much memory}
  [[nodiscard]] Result<void> push(std::span<std::byte const> piece) {
    EROFS_OCI_TRY(options_.encoding == BlobEncoding::gzip ? scanner_.push(piece)
                                                          : push_plain(piece));
    auto const most = options_.memory->budget().span();
    if (longest_block_ > most) {
      return fail(Errc::unsupported,
                  "blob offset " + std::to_string(blob_size_) + ": a deflate block of more than " +
                      std::to_string(most) +
                      " bytes, which could only be read as a whole: compress the layer again in "
                      "smaller blocks, as gzip does, or set a larger oci.memory");
    }
    return options_.memory->take_windows(new_memory_.exchange(0));
  }

  /// Ends the blob and yields the index, with an empty `tarindex`. Blocks until the background
  /// threads are done.
  /// @error{Errc::truncated, the blob ends inside a gzip member}
  [[nodiscard]] Result<LayerIndex> finish() {
    if (options_.encoding == BlobEncoding::gzip) {
      EROFS_OCI_TRY(scanner_.finish());
      flush();
      later(*worker_, [this] { chooser_.finish(); });
    } else if (blob_size_ == 0) {
      later(*worker_, [this] { begin_span({0, 0, 0}, {}); });
    }
    later(*worker_, [this] { end_piece(); });
    hasher_.reset();  // all hashes and windows are done when both have ended
    worker_.reset();
    if (lost_) return fail(make_error_code(std::errc::not_enough_memory), "layer index");
    index_.blob_size = blob_size_;
    index_.decoded_size = decoded_size_;
    index_.blob = blob_hash_.finish();
    index_.diff_id = options_.encoding == BlobEncoding::gzip ? diff_hash_.finish() : index_.blob;
    return std::move(index_);
  }

 private:
  // Copies that malloc takes from its heap: larger ones would be fresh, cleared pages each time.
  static constexpr std::size_t most_copied = 64 * 1024;

  // --- The thread that calls push() --------------------------------------------------------------

  GzipScanEvents events() {
    return {.decoded = [this](std::span<std::byte const> bytes) { return decoded(bytes); },
            .checkpoint = [this](auto const& point, auto window) { boundary(point, window); },
            .compressed = [this](std::span<std::byte const> bytes) { compressed(bytes); }};
  }

  Result<void> decoded(std::span<std::byte const> bytes) {
    decoded_size_ += bytes.size();
    for (auto rest = bytes; !rest.empty();
         rest = rest.subspan(std::min(most_copied, rest.size()))) {
      auto const copy =
          std::make_shared<Bytes const>(to_bytes(rest.first(std::min(most_copied, rest.size()))));
      later(*hasher_, [this, copy] { diff_hash_.update(*copy); });
      later(*worker_, [this, copy] { chooser_.decoded(*copy); });
    }
    return sink_(bytes);
  }

  void boundary(Checkpoint const& point, std::span<std::byte const, gzip_window_size> window) {
    block_begin_ = point.in;
    // Of blocks that decode to nothing, there can be one for every ten bits.
    if (told_ && told_->out == point.out && point.in - told_->in < options_.span_size / 128) return;
    told_ = point;
    flush();
    later(*worker_, [this, point, copy = to_bytes(window)] {
      chooser_.boundary(point, std::span<std::byte const, gzip_window_size>(copy));
    });
  }

  void compressed(std::span<std::byte const> bytes) {
    blob_size_ += bytes.size();
    longest_block_ = std::max(longest_block_, blob_size_ - block_begin_);
    while (!bytes.empty()) {
      auto const part = bytes.first(std::min(bytes.size(), most_copied - unsent_.size()));
      unsent_.insert(unsent_.end(), part.begin(), part.end());
      bytes = bytes.subspan(part.size());
      if (unsent_.size() == most_copied) flush();
    }
  }

  // Hands over the compressed bytes, which may have come in tiny pieces.
  void flush() {
    if (unsent_.empty()) return;
    auto const bytes = std::make_shared<Bytes const>(std::exchange(unsent_, {}));
    later(*hasher_, [this, bytes] { blob_hash_.update(*bytes); });
    later(*worker_, [this, bytes] { chooser_.compressed(*bytes); });
  }

  Result<void> push_plain(std::span<std::byte const> piece) {
    EROFS_OCI_TRY(sink_(piece));
    decoded_size_ += piece.size();
    while (!piece.empty()) {
      auto const into = blob_size_ % options_.span_size;
      if (into == 0) {
        later(*worker_, [this, at = blob_size_] { begin_span({at, at, 0}, {}); });
      }
      auto const n = static_cast<std::size_t>(
          std::min<std::uint64_t>({piece.size(), options_.span_size - into, most_copied}));
      auto const copy = std::make_shared<Bytes const>(to_bytes(piece.first(n)));
      later(*hasher_, [this, copy] { blob_hash_.update(*copy); });
      later(*worker_, [this, copy] { add(*copy); });
      blob_size_ += n;
      piece = piece.subspan(n);
    }
    return {};
  }

  // Queues a task for one of the threads in the background.
  template <class F>
  void later(ThreadPool& thread, F task) {
    thread.submit([this, task = std::move(task)] {
      auto const ok = without_throwing([&]() -> Result<void> {
        task();
        return {};
      });
      if (!ok) lost_ = true;
    });
  }

  // --- The thread that chooses checkpoints -------------------------------------------------------

  ChosenEvents chosen() {
    return {.checkpoint = [this](Checkpoint const& point,
                                 Bytes window) { begin_span(point, std::move(window)); },
            .compressed = [this](std::span<std::byte const> bytes) { add(bytes); }};
  }

  void begin_span(Checkpoint const& point, Bytes packed_window) {
    end_piece();
    new_memory_ += sizeof(LayerSpan) + packed_window.size();
    index_.spans.push_back({point, std::move(packed_window)});
    if (point.bits > 0) hash_piece(std::span(&last_byte_, 1));
  }

  // Takes the next bytes of the blob; those before the first span have no digest.
  void add(std::span<std::byte const> bytes) {
    if (bytes.empty()) return;
    if (!index_.spans.empty()) hash_piece(bytes);
    last_byte_ = bytes.back();
  }

  void hash_piece(std::span<std::byte const> bytes) {
    while (!bytes.empty()) {
      auto const part = bytes.first(std::min<std::size_t>(bytes.size(), index_piece_size - piece_));
      if (!piece_hash_) piece_hash_.emplace();
      piece_hash_->update(part);
      piece_ += part.size();
      bytes = bytes.subspan(part.size());
      if (piece_ == index_piece_size) end_piece();
    }
  }

  void end_piece() {
    if (!piece_hash_) return;
    index_.digests.push_back(piece_hash_->finish());
    new_memory_ += sizeof(Digest);
    piece_hash_.reset();
    piece_ = 0;
  }

  LayerIndexOptions options_;
  DecodedSink sink_;
  GzipScanner<D> scanner_;
  std::uint64_t blob_size_ = 0;
  std::uint64_t decoded_size_ = 0;
  std::uint64_t block_begin_ = 0;
  std::uint64_t longest_block_ = 0;  // compressed bytes
  std::optional<Checkpoint> told_;   // the last boundary that the chooser was told of
  Bytes unsent_;                     // compressed bytes

  CheckpointChooser<I> chooser_;
  LayerIndex index_;
  std::byte last_byte_{};
  std::size_t piece_ = 0;  // bytes hashed of it
  std::optional<Sha256> piece_hash_;

  Sha256 blob_hash_;  // both the other thread's
  Sha256 diff_hash_;
  std::atomic<bool> lost_{false};  // a part of the index is missing

  std::atomic<std::uint64_t> new_memory_{0};  // bytes not yet taken from the budget
  // Last: they use all above.
  std::unique_ptr<ThreadPool> hasher_ = std::make_unique<ThreadPool>(1, 64);
  std::unique_ptr<ThreadPool> worker_ = std::make_unique<ThreadPool>(1, 64);
};

}  // namespace erofs_oci
