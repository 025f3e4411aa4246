// SPDX-License-Identifier: Apache-2.0
/// @file
/// Proved: checks a source of which only the digest of the whole is known. Guarded: stops what
/// stands above it.
#pragma once

#include <algorithm>
#include <array>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <erofs_oci/combinator/proof.hpp>
#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/source.hpp>
#include <erofs_oci/digest/digest.hpp>

namespace erofs_oci {

/// How a Proved source works.
struct ProvedOptions {
  /// Bytes of a piece, which is read and hashed as a whole. It is doubled until the table of
  /// digests has at most 2^20 entries (32 MiB). Range: 1 or more. Default: 4 KiB, since a span that
  /// is decoded begins and ends within a piece, which is then read for both of its sides.
  std::uint64_t piece = 4096;

  /// Bytes in front of the whole digest's place that are kept until it arrives there, so that reads
  /// that are nearly in order need no second fetch. At least one piece is. Default: 16 MiB, two
  /// of the longest ranges that a FetchPolicy asks for.
  std::uint64_t window = 16 << 20;

  /// Bytes of one request of the thread. Range: 1 or more. Default: 4 MiB.
  std::uint64_t request = 4 << 20;

  /// Whether the thread begins at once, and not only when reads have brought every byte.
  bool background = false;

  /// How long the thread waits after an error, doubled with each to 64 times that; also the longest
  /// that it makes way for reads before each request. Default: 1 s.
  std::chrono::milliseconds pause{1000};
};

/// The bytes of `Inner`, of which nothing but the digest of the whole is known.
///
/// A first read of some bytes cannot be checked: they are handed on unproved. But each piece is
/// read as a whole, and its digest is kept before a byte of it is handed on. From then on the piece
/// cannot change: other bytes at the same place refute the source. So what is proved in the end is
/// what readers got. The digest of the whole advances with reads that come in order; once every
/// piece has been read, a thread reads again what was out of order, compares it with the digests
/// that are kept, and completes it. If the result is wrong, the source is refuted, and every read
/// fails. If it is right, the digests of the pieces are proved with it: a wrong byte that comes
/// later fails its own read only, and the next may get the right one.
///
/// Memory: 32 bytes a piece, ProvedOptions::window, and 8 pieces, in which streams have ended or
/// begun. Destruction waits for the thread's request, which ends with the next byte that it gets.
///
/// @par Thread safety
/// All const members, from any thread; no lock is held while `Inner` works or a sink is called.
template <RandomAccessSource Inner, Hash H>
class Proved {
 public:
  /// @param inner   the source to check; owned from here on
  /// @param wanted  the digest of all its bytes, by the algorithm of `H`
  /// @error{Errc::invalid_argument, a digest by another algorithm}
  /// @error{an errno, no thread can be started}
  [[nodiscard]] static Result<Proved> make(Inner inner, Digest const& wanted,
                                           ProvedOptions const& options = {}) {
    if (H().finish().algorithm() != wanted.algorithm()) {
      return fail(Errc::invalid_argument, "proved: " + wanted.to_string());
    }
    return without_throwing([&]() -> Result<Proved> {
      auto state = std::make_unique<State>(std::move(inner), wanted, options);
      state->start();
      return Proved(std::move(state));
    });
  }

  /// @name RandomAccessSource
  /// @{

  /// @error{Errc::digest_mismatch, bytes are not what they were\, or all of them not what they
  /// should be; before the proof every read fails from then on}
  [[nodiscard]] std::uint64_t size() const noexcept { return state_->size; }

  [[nodiscard]] Result<std::size_t> read_at(std::uint64_t offset, std::span<std::byte> out) const {
    return read_by(size(), offset, out, [this](std::uint64_t at, std::uint64_t n, ByteSink sink) {
      return stream(at, n, sink);
    });
  }

  /// A piece at a time, once it is whole. While a piece comes, `sink` is asked by empty pieces
  /// whether to go on.
  [[nodiscard]] Result<void> stream(std::uint64_t offset, std::uint64_t length,
                                    ByteSink sink) const {
    auto const end = offset + streamable(size(), offset, length);
    if (offset >= end) return {};
    typename State::Reader const reader(*state_);
    return state_->read(offset, end, sink);
  }
  /// @}

  /// What is known of the bytes.
  [[nodiscard]] std::shared_ptr<Proof> const& proof() const noexcept { return state_->proof; }

  /// The layer below.
  [[nodiscard]] Inner const& inner() const noexcept { return state_->inner; }

 private:
  using Pin = std::array<std::byte, 32>;  // of a longer digest the first bytes
  using Piece = std::shared_ptr<Bytes const>;

  struct State {
    State(Inner source, Digest const& digest, ProvedOptions const& given)
        : inner(std::move(source)),
          size(inner.size()),
          wanted(digest),
          options(given),
          proof(std::make_shared<Proof>(size)) {
      constexpr std::uint64_t most_pieces = 1 << 20;
      auto& piece = options.piece;
      piece = std::max<std::uint64_t>(piece, 1);
      while (size / piece >= most_pieces) piece *= 2;
      pins.resize(static_cast<std::size_t>(size / piece + (size % piece != 0 ? 1 : 0)));
      is_pinned.resize(pins.size());
    }

    ~State() {
      {
        std::lock_guard const lock(mutex);
        thread.request_stop();
      }
      changed.notify_all();
    }

    // A read of the user's, for which the thread makes way.
    class Reader {
     public:
      explicit Reader(State& state) : state_(state) {
        std::lock_guard const lock(state_.mutex);
        ++state_.readers;
      }
      ~Reader() {
        std::unique_lock lock(state_.mutex);
        auto const last = --state_.readers == 0;
        lock.unlock();
        if (last) state_.changed.notify_all();
      }

     private:
      State& state_;
    };

    [[nodiscard]] std::uint64_t begin_of(std::uint64_t index) const {
      return index * options.piece;
    }
    [[nodiscard]] std::uint64_t end_of(std::uint64_t index) const {
      return std::min(size - begin_of(index), options.piece) + begin_of(index);
    }

    // Hands [offset, end) on, of which there is a byte.
    Result<void> read(std::uint64_t offset, std::uint64_t end, ByteSink sink) {
      auto const first = offset / options.piece;
      auto const last = (end - 1) / options.piece;
      auto const hand_on = [&](std::uint64_t index, Bytes const& bytes) {
        auto const from = std::max(offset, begin_of(index)) - begin_of(index);
        auto const to = std::min(end, end_of(index)) - begin_of(index);
        return sink(std::span(bytes).subspan(static_cast<std::size_t>(from),
                                             static_cast<std::size_t>(to - from)));
      };
      EROFS_OCI_TRY(proof->check());
      auto index = first;
      if (auto const piece = find_recent(index)) {
        if (!hand_on(index, *piece)) return {};
        ++index;
      }
      if (index > last) return {};
      auto const tail = last > index ? find_recent(last) : nullptr;
      auto const stop = tail ? last : last + 1;
      bool wanted_more = true;
      EROFS_OCI_TRY(fetch(index, stop, [&](std::uint64_t at, Piece const& piece) {
        if (!piece) return wanted_more = sink({});
        auto const is_cut = begin_of(at) < offset || end_of(at) > end;
        if (is_cut) remember(at, piece);
        return wanted_more = hand_on(at, *piece);
      }));
      if (wanted_more && tail) hand_on(last, *tail);
      return {};
    }

    // Reads the pieces [index, stop) in one stream, and hands on each that has been checked.
    // `take(index, Piece)` ends it by false; with no piece it is only asked.
    template <class Take>
    Result<void> fetch(std::uint64_t index, std::uint64_t stop, Take const& take) {
      auto const from = begin_of(index);
      auto const length = end_of(stop - 1) - from;
      auto bytes = std::make_shared<Bytes>();
      bool goes_on = true;
      Result<void> checked;
      auto const gather = [&](std::span<std::byte const> part) {
        if (part.empty()) return goes_on = take(index, nullptr);
        while (!part.empty() && index < stop) {
          auto const full = static_cast<std::size_t>(end_of(index) - begin_of(index));
          auto const n = std::min(part.size(), full - bytes->size());
          if (bytes->empty()) bytes->reserve(full);
          bytes->insert(bytes->end(), part.begin(), part.begin() + static_cast<std::ptrdiff_t>(n));
          part = part.subspan(n);
          if (bytes->size() < full) return goes_on = take(index, nullptr);
          Piece const piece = std::exchange(bytes, std::make_shared<Bytes>());
          checked = settle(index, piece);
          goes_on = checked && take(index, piece);
          if (!goes_on) return false;
          ++index;
        }
        return true;
      };
      EROFS_OCI_TRY(erofs_oci::stream(inner, from, length, gather));
      EROFS_OCI_TRY(checked);
      if (!goes_on || index == stop) return {};
      return fail(Errc::truncated, describe(inner) + ": offset " + std::to_string(begin_of(index)));
    }

    // Compares a piece with what was there before, or keeps its digest, and lets the digest of the
    // whole advance.
    Result<void> settle(std::uint64_t index, Piece const& piece) {
      H hash;
      hash.update(*piece);
      auto const digest = hash.finish();
      Pin pin{};
      std::ranges::copy(digest.bytes().first(pin.size()), pin.begin());

      std::unique_lock lock(mutex);
      EROFS_OCI_TRY(proof->check());
      auto const i = static_cast<std::size_t>(index);
      if (is_pinned[i] && pins[i] != pin) {
        auto error =
            make_error(Errc::digest_mismatch,
                       describe(inner) + ": bytes " + std::to_string(begin_of(index)) + " to " +
                           std::to_string(end_of(index)) + ": their digest is " + hex(pin) +
                           ", but was " + hex(pins[i]) + " when they were first read");
        lock.unlock();
        erofs_oci::forget(inner, 0, size);
        proof->refute(error);
        return fail(std::move(error));
      }
      if (!is_pinned[i]) {
        pins[i] = pin;
        is_pinned[i] = true;
        ++pinned;
        proof->saw(piece->size());
      }
      auto const is_next = index == frontier;
      if (is_next || (index > frontier && (index - frontier) * options.piece < options.window)) {
        kept.insert_or_assign(index, piece);
      }
      advance(lock);
      auto const is_turn = options.background || pinned == pins.size();
      lock.unlock();
      if (is_turn) changed.notify_all();
      return proof->check();
    }

    // Hashes the pieces that are next. One thread does that at a time, without the lock.
    void advance(std::unique_lock<std::mutex>& lock) {
      if (feeding || frontier == pins.size()) return;
      if (!whole) whole.emplace();
      struct Turn {
        State& state;
        std::unique_lock<std::mutex>& lock;
        bool done = false;
        ~Turn() {
          if (!lock.owns_lock()) lock.lock();
          state.feeding = false;
          if (done) return;
          state.whole.reset();  // out of memory: begins again
          state.frontier = 0;
          state.kept.clear();
        }
      };
      feeding = true;
      Turn turn{*this, lock};
      while (!kept.empty() && kept.begin()->first == frontier) {
        auto const piece = kept.begin()->second;
        lock.unlock();
        whole->update(*piece);
        lock.lock();
        ++frontier;
        while (!kept.empty() && kept.begin()->first < frontier) kept.erase(kept.begin());
      }
      if (frontier == pins.size()) conclude();
      turn.done = true;
    }

    void conclude() {
      auto const found = whole->finish();
      if (found == wanted) return proof->prove();
      erofs_oci::forget(inner, 0, size);
      proof->refute(make_error(Errc::digest_mismatch,
                               describe(inner) + ": its " + std::to_string(size) + " bytes are " +
                                   found.to_string() + ", not " + wanted.to_string()));
    }

    // Pieces in which a stream began or ended: the next one often begins there.
    [[nodiscard]] Piece find_recent(std::uint64_t index) const {
      std::lock_guard const lock(mutex);
      auto const found = std::ranges::find(recent, index, &Recent::first);
      return found == recent.end() ? nullptr : found->second;
    }
    void remember(std::uint64_t index, Piece const& piece) {
      constexpr std::size_t most = 8;
      std::lock_guard const lock(mutex);
      std::erase_if(recent, [&](Recent const& one) { return one.first == index; });
      recent.emplace_back(index, piece);
      if (recent.size() > most) recent.pop_front();
    }

    // ---------------------------------------------------------------- the thread

    void start() {
      if (pins.empty()) {
        whole.emplace();
        return conclude();
      }
      thread = std::jthread([this](std::stop_token const& stop) {
        auto pause = options.pause;
        while (auto const from = next(stop)) {
          auto const done = without_throwing([&] { return fetch_run(*from, stop); });
          if (done) {
            pause = options.pause;
            continue;
          }
          std::unique_lock lock(mutex);
          changed.wait_for(lock, pause, [&] { return stop.stop_requested(); });
          pause = std::min(pause * 2, options.pause * 64);
        }
      });
    }

    // Where to read on; empty: there is nothing more to do.
    std::optional<std::uint64_t> next(std::stop_token const& stop) {
      std::unique_lock lock(mutex);
      auto const is_over = [&] {
        return stop.stop_requested() || frontier == pins.size() || !proof->check();
      };
      changed.wait(lock, [&] {
        return is_over() || (!feeding && (options.background || pinned == pins.size()));
      });
      changed.wait_for(lock, options.pause, [&] { return is_over() || readers == 0; });
      if (is_over()) return std::nullopt;
      return frontier;
    }

    Result<void> fetch_run(std::uint64_t from, std::stop_token const& stop) {
      auto const pieces = std::max<std::uint64_t>(options.request / options.piece, 1);
      return fetch(from, std::min<std::uint64_t>(from + pieces, pins.size()),
                   [&](std::uint64_t, Piece const&) { return !stop.stop_requested(); });
    }

    using Recent = std::pair<std::uint64_t, Piece>;

    Inner inner;
    std::uint64_t size;
    Digest wanted;
    ProvedOptions options;
    std::shared_ptr<Proof> proof;

    mutable std::mutex mutex;
    std::condition_variable changed;
    std::vector<Pin> pins;
    std::vector<bool> is_pinned;
    std::size_t pinned = 0;
    std::optional<H> whole;               // of the pieces before `frontier`
    std::uint64_t frontier = 0;           // a piece
    bool feeding = false;                 // a thread hashes the piece at `frontier`
    std::map<std::uint64_t, Piece> kept;  // from `frontier` on
    std::deque<Recent> recent;
    std::size_t readers = 0;
    std::jthread thread;  // last: joined first
  };

  explicit Proved(std::unique_ptr<State> state) noexcept : state_(std::move(state)) {}

  std::unique_ptr<State> state_;
};

/// Reads as `Inner`, which stands on a Proved source, until that is refuted: then nothing that was
/// made of its bytes before is handed on either, cached or not.
///
/// @par Thread safety
/// All const members, from any thread.
template <RandomAccessSource Inner>
class Guarded {
 public:
  /// Owns the one and shares the other.
  Guarded(Inner inner, std::shared_ptr<Proof const> proof) noexcept
      : inner_(std::move(inner)), proof_(std::move(proof)) {}

  /// @name RandomAccessSource
  /// @{

  /// @error{Errc::digest_mismatch, refuted; as Proof::check()}
  [[nodiscard]] std::uint64_t size() const noexcept { return inner_.size(); }

  [[nodiscard]] Result<std::size_t> read_at(std::uint64_t offset, std::span<std::byte> out) const {
    if (readable(size(), offset, out.size()) == 0) return std::size_t{0};
    EROFS_OCI_TRY(proof_->check());
    auto const n = inner_.read_at(offset, out);
    EROFS_OCI_TRY(proof_->check());
    return n;
  }

  [[nodiscard]] Result<void> stream(std::uint64_t offset, std::uint64_t length,
                                    ByteSink sink) const {
    if (streamable(size(), offset, length) == 0) return {};
    Result<void> checked = proof_->check();
    if (!checked) return checked;
    auto const done = erofs_oci::stream(inner_, offset, length, [&](auto piece) {
      checked = proof_->check();
      return checked && sink(piece);
    });
    return checked ? done : checked;
  }
  /// @}

  /// The layer below.
  [[nodiscard]] Inner const& inner() const noexcept { return inner_; }

 private:
  Inner inner_;
  std::shared_ptr<Proof const> proof_;
};

}  // namespace erofs_oci
