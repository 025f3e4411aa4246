// SPDX-License-Identifier: Apache-2.0
/// @file
/// LayerIndexBuilder: everything that an index file says, from one pass over a layer's blob.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/core/workers.hpp>
#include <erofs_oci/digest/digest.hpp>
#include <erofs_oci/gzip/block_decoder.hpp>
#include <erofs_oci/gzip/build_index.hpp>
#include <erofs_oci/gzip/decoder.hpp>
#include <erofs_oci/gzip/index_file.hpp>
#include <erofs_oci/gzip/window.hpp>

namespace erofs_oci {

/// How a LayerIndexBuilder works.
struct LayerIndexOptions {
  BlobEncoding encoding = BlobEncoding::gzip;
  std::uint64_t span_size = 4 << 20;  ///< decoded bytes between checkpoints. Range: 64 KiB or more
};

/// Takes a layer's blob in pieces; decodes it, checks it, and makes its index on the way: digests
/// of the blob, of each span and of the decoded stream, and checkpoints with windows that are made
/// small. A thread of its own does what the decoder need not wait for. Not thread-safe.
template <Hash H, BlockDecoder D = DefaultBlockDecoder, Inflater I = DefaultInflater>
class LayerIndexBuilder {
 public:
  /// Takes the next decoded bytes.
  using DecodedSink = std::function<Result<void>(std::span<std::byte const> bytes)>;

  /// @param decoded  called on the thread that calls push()
  LayerIndexBuilder(LayerIndexOptions options, DecodedSink decoded)
      : options_(options), sink_(std::move(decoded)), scanner_(options.span_size, events()) {
    index_.encoding = options.encoding;
    index_.span_size = options.span_size;
  }

  LayerIndexBuilder(LayerIndexBuilder const&) = delete;
  LayerIndexBuilder& operator=(LayerIndexBuilder const&) = delete;

  /// Takes the next bytes of the blob.
  /// @error{Errc::corrupt, they are no gzip data\, or a CRC is wrong}
  /// @error{any, what the sink for decoded bytes returned}
  [[nodiscard]] Result<void> push(std::span<std::byte const> piece) {
    background(blob_hash_, piece);
    if (options_.encoding == BlobEncoding::gzip) return scanner_.push(piece);
    return push_plain(piece);
  }

  /// Says that no bytes follow, and yields the index, with an empty `tarindex`.
  /// @error{Errc::truncated, the blob ends inside a gzip member}
  [[nodiscard]] Result<LayerIndex> finish() {
    if (options_.encoding == BlobEncoding::gzip) {
      if (auto const ok = scanner_.finish(); !ok) return fail(ok.error());
    } else if (index_.spans.empty()) {
      begin_span({0, 0, 0});
    }
    end_span();
    workers_.reset();  // all hashes and windows are done now
    if (window_error_) return fail(*window_error_, "window");
    for (std::size_t i = 0; i < done_.size(); ++i) {
      index_.spans[i].digest = done_[i].digest;
      index_.spans[i].packed_window = std::move(done_[i].packed_window);
    }
    index_.blob_size = blob_size_;
    index_.decoded_size = decoded_size_;
    index_.blob = blob_hash_->finish();
    index_.diff_id = diff_hash_->finish();
    return std::move(index_);
  }

 private:
  // A window waits until 32 KiB behind it are decoded; then it is known what they look back at.
  struct Pending {
    std::size_t span = 0;
    Checkpoint point;
    std::byte first{};
    Bytes window;
    Bytes compressed;
    std::uint64_t decoded_from = 0;
  };

  // Of the compressed bytes behind a checkpoint, kept until its window is settled; if they are
  // more, the whole window counts as used.
  static constexpr std::size_t most_kept = 1 << 20;

  GzipScanEvents events() {
    GzipScanEvents events;
    events.decoded = [this](std::span<std::byte const> bytes) { return decoded(bytes); };
    events.compressed = [this](std::span<std::byte const> bytes) { compressed(bytes); };
    events.checkpoint = [this](Checkpoint const& point,
                               std::span<std::byte const, gzip_window_size> window) {
      end_span();
      begin_span(point);
      pending_ = std::make_shared<Pending>();
      pending_->span = index_.spans.size() - 1;
      pending_->point = point;
      pending_->first = last_byte_;
      pending_->window = to_bytes(window);
      pending_->decoded_from = decoded_size_;
    };
    return events;
  }

  Result<void> decoded(std::span<std::byte const> bytes) {
    decoded_size_ += bytes.size();
    background(diff_hash_, bytes);
    return sink_(bytes);
  }

  void compressed(std::span<std::byte const> bytes) {
    if (bytes.empty()) return;
    if (span_hash_) background(span_hash_, bytes);
    last_byte_ = bytes.back();
    blob_size_ += bytes.size();
    if (!pending_) return;
    pending_->compressed.insert(pending_->compressed.end(), bytes.begin(), bytes.end());
    if (decoded_size_ - pending_->decoded_from >= gzip_window_size) settle_window(false);
  }

  void begin_span(Checkpoint const& point) {
    span_hash_ = std::make_shared<H>();
    if (point.bits > 0) background(span_hash_, std::span(&last_byte_, 1));
    index_.spans.push_back({point, {}, {}});
  }

  void end_span() {
    settle_window(true);
    if (!span_hash_) return;
    workers_->submit([this, hash = std::move(span_hash_), span = index_.spans.size() - 1] {
      done(span).digest = hash->finish();
    });
    span_hash_.reset();
  }

  // Hands the window over once what follows is surely enough to decode 32 KiB: bytes are told of
  // after they were decoded, so one look after that is enough.
  void settle_window(bool at_end) {
    if (!pending_) return;
    auto const& p = *pending_;
    auto use = std::optional(WindowUse{}.set());
    if (p.compressed.size() <= most_kept) {
      auto const after = at_end ? AfterBytes::next_span : AfterBytes::more;
      auto const found = find_window_use<I>(p.point.bits, p.first, p.compressed, after);
      if (!found) {
        window_error_ = found.error();
        return pending_.reset();
      }
      use = *found;
    }
    if (!use) return;
    workers_->submit([this, p = pending_, used = std::make_shared<WindowUse>(*use)] {
      auto const window = std::span<std::byte const, gzip_window_size>(p->window);
      done(p->span).packed_window = pack_window(window, *used);
    });
    pending_.reset();
  }

  // Of the one thread that works in the background.
  LayerSpan& done(std::size_t span) {
    done_.resize(std::max(done_.size(), span + 1));
    return done_[span];
  }

  Result<void> push_plain(std::span<std::byte const> piece) {
    if (auto const ok = decoded(piece); !ok) return ok;
    while (!piece.empty()) {
      auto const into = blob_size_ % options_.span_size;
      if (into == 0) {
        end_span();
        begin_span({blob_size_, blob_size_, 0});
      }
      auto const n = std::min<std::uint64_t>(piece.size(), options_.span_size - into);
      compressed(piece.first(static_cast<std::size_t>(n)));
      piece = piece.subspan(static_cast<std::size_t>(n));
    }
    return {};
  }

  void background(std::shared_ptr<H> const& hash, std::span<std::byte const> bytes) {
    // Copies that malloc takes from its heap: larger ones would be fresh, cleared pages each time.
    constexpr std::size_t most = 64 * 1024;
    for (; !bytes.empty(); bytes = bytes.subspan(std::min(most, bytes.size()))) {
      workers_->submit([hash, copy = to_bytes(bytes.first(std::min(most, bytes.size())))] {
        hash->update(copy);
      });
    }
  }

  LayerIndexOptions options_;
  DecodedSink sink_;
  LayerIndex index_;
  GzipScanner<D> scanner_;
  std::shared_ptr<H> span_hash_;
  std::byte last_byte_{};
  std::uint64_t blob_size_ = 0;
  std::uint64_t decoded_size_ = 0;
  std::shared_ptr<Pending> pending_;
  std::optional<Error> window_error_;
  std::vector<LayerSpan> done_;  // what the thread makes of spans: digests and windows
  std::shared_ptr<H> blob_hash_ = std::make_shared<H>();
  std::shared_ptr<H> diff_hash_ = std::make_shared<H>();
  std::unique_ptr<Workers> workers_ = std::make_unique<Workers>(1, 64);  // last: uses all above
};

}  // namespace erofs_oci
