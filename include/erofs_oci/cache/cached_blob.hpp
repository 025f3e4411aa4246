// SPDX-License-Identifier: Apache-2.0
/// @file
/// BasicCachedBlob: the chunks of one blob in a cache, and who fetches which of them.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <span>
#include <system_error>
#include <utility>
#include <vector>

#include <fcntl.h>

#include <erofs_oci/cache/blob_cache.hpp>
#include <erofs_oci/cache/blob_file.hpp>
#include <erofs_oci/cache/blob_files.hpp>
#include <erofs_oci/cache/blob_name.hpp>
#include <erofs_oci/core/result.hpp>

namespace erofs_oci {

/// One blob in a cache, opened when it is first needed. No failure of the disk is an error here:
/// what cannot be read is not there, and what cannot be written is not kept.
///
/// @par Thread safety
/// All const members, from any thread; copies share one state.
template <BlobFiles Files = SystemFiles>
class BasicCachedBlob {
  struct State;

 public:
  using Cache = BasicBlobCache<Files>;

  /// Shares the cache.
  BasicCachedBlob(std::shared_ptr<Cache const> cache, BlobName name)
      : state_(std::make_shared<State>(std::move(cache), std::move(name))) {}

  /// A run of chunks that this claim's holder fetches. Others wait for them, for a while.
  class Claim {
   public:
    Claim(Claim&& other) noexcept
        : state_(std::exchange(other.state_, nullptr)),
          file_(std::move(other.file_)),
          begin_(other.begin_),
          end_(other.end_) {}
    Claim& operator=(Claim&&) = delete;
    ~Claim() { pass(end_); }

    [[nodiscard]] std::uint64_t end() const noexcept { return end_; }

    /// Gives up the chunks before `index`.
    void pass(std::uint64_t index) noexcept {
      if (state_ == nullptr || index <= begin_) return;
      index = std::min(index, end_);
      if (file_) state_->cache->files().unlock(file_->fd(), begin_, index - begin_);
      {
        std::lock_guard const lock(state_->mutex);
        state_->claimed.erase(state_->claimed.lower_bound(begin_),
                              state_->claimed.lower_bound(index));
      }
      state_->changed.notify_all();
      begin_ = index;
    }

    /// Claims up to `most` chunks behind the last one, too; yields whether it has got one.
    [[nodiscard]] bool extend(std::uint64_t most) {
      auto const n = state_->take(file_.get(), end_, most);
      end_ += n;
      return n > 0;
    }

   private:
    friend class BasicCachedBlob;
    Claim(std::shared_ptr<State> state, std::shared_ptr<BlobFile<Files> const> file,
          std::uint64_t begin, std::uint64_t n)
        : state_(std::move(state)), file_(std::move(file)), begin_(begin), end_(begin + n) {}

    std::shared_ptr<State> state_;                 // null: moved away
    std::shared_ptr<BlobFile<Files> const> file_;  // locks are the descriptor's
    std::uint64_t begin_;
    std::uint64_t end_;
  };

  [[nodiscard]] BlobLayout layout() const noexcept { return state_->layout(); }
  [[nodiscard]] Cache const& cache() const noexcept { return *state_->cache; }
  [[nodiscard]] BlobName const& name() const noexcept { return state_->name; }

  /// Reads a chunk, and yields whether it was there.
  /// @param out  as long as the chunk; rubbish if it was not
  [[nodiscard]] bool read(std::uint64_t index, std::span<std::byte> out) const {
    auto& state = *state_;
    auto const file = state.to_read();
    if (!file || state.is_forgotten(index)) return false;
    auto const got = file->read(index, out);
    if (!got) state.cache->failed();
    if (!got.value_or(false)) {
      if (got && file->has(index).value_or(false)) state.cache->damaged();
      return false;
    }
    state.cache->hit(out.size());
    state.used(index);
    if (state.is_time_to_touch() && file->is_writable()) static_cast<void>(file->touch());
    return true;
  }

  /// Whether a chunk is there, by the table.
  [[nodiscard]] bool has(std::uint64_t index) const {
    auto const file = state_->to_read();
    return file && !state_->is_forgotten(index) && file->has(index).value_or(false);
  }

  /// Keeps a chunk that was fetched, if that is possible.
  /// @param bytes  all of it
  void write(std::uint64_t index, std::span<std::byte const> bytes) const {
    auto& state = *state_;
    state.cache->missed(bytes.size());
    auto const file = state.to_write();
    if (!file) return;
    state.used(index);
    if (!file->write(index, bytes)) {
      state.cache->failed();
      state.pause();
      return;
    }
    state.remember(index);
    state.cache->wrote(bytes.size(), state.name,
                       [&](std::uint64_t much) { state.give_up(*file, much); });
  }

  /// How many chunks from `first` on, up to `last`, are not there. `first` itself counts in any
  /// case.
  [[nodiscard]] std::uint64_t missing_run(std::uint64_t first, std::uint64_t last) const {
    auto const file = state_->to_read();
    auto end = last + 1;
    if (file && first < last) {
      static_cast<void>(file->walk(first + 1, last + 1, [&](std::uint64_t index, bool has) {
        if (has) end = index;
        return !has;
      }));
    }
    return end - first;
  }

  /// Claims a chunk, and up to `most` with those behind it. Empty: another reader, here or in
  /// another process, fetches it.
  [[nodiscard]] std::optional<Claim> claim(std::uint64_t index, std::uint64_t most) const {
    auto file = state_->to_write();
    auto const n = state_->take(file.get(), index, most);
    if (n == 0) return std::nullopt;
    return Claim(state_, std::move(file), index, n);
  }

  /// Waits until a claim in this process ends, or a little while: those of others give no sign.
  void wait() const {
    std::unique_lock lock(state_->mutex);
    state_->changed.wait_for(lock, std::chrono::milliseconds(10));
  }

  /// Forgets the chunks of [begin, end); yields whether one was there that no copy of this object
  /// has written.
  bool forget(std::uint64_t begin, std::uint64_t end) const {
    auto& state = *state_;
    auto const file = state.to_read();
    if (!file || begin >= end) return false;
    std::vector<std::uint64_t> there;
    static_cast<void>(file->walk(begin, end, [&](std::uint64_t index, bool has) {
      if (has && !state.is_forgotten(index)) there.push_back(index);
      return true;
    }));
    bool older = false;
    for (auto const index : there) {
      older = older || !state.is_fetched(index);
      if (file->is_writable() && file->erase(index, index + 1)) continue;
      std::lock_guard const lock(state.mutex);
      state.forgotten.insert(index);
    }
    return older;
  }

  /// The bytes of all chunks that are there, by the table.
  [[nodiscard]] std::uint64_t kept() const {
    auto const file = state_->to_read();
    return file ? file->kept(0, layout().chunks()).value_or(0) : 0;
  }

 private:
  using File = BlobFile<Files>;
  using FilePtr = std::shared_ptr<File const>;
  using SteadyTime = std::chrono::steady_clock::time_point;

  static constexpr std::uint64_t run = 64;  ///< chunks whose use is noted together

  struct State {
    State(std::shared_ptr<Cache const> c, BlobName n)
        : cache(std::move(c)), name(std::move(n)), uses(layout().chunks() / run + 1) {}

    [[nodiscard]] BlobLayout layout() const noexcept { return {name.size, cache->options().chunk}; }

    /// Null: there is none.
    FilePtr to_read() {
      std::lock_guard const lock(mutex);
      if (!file) open(O_RDWR);
      return file;
    }

    /// Null: nothing can be kept now. Looks each few writes whether the file still has a name.
    FilePtr to_write() {
      std::lock_guard const lock(mutex);
      if (std::chrono::steady_clock::now() < paused_until) return nullptr;
      if (file && file->is_writable() && writes++ % run == 0) {
        auto const facts = cache->files().facts(file->fd());
        if (!facts || facts->links == 0) {
          if (open(O_RDWR | O_CREAT)) return file;
          pause_locked();
          return nullptr;
        }
      }
      if (!file && open(O_RDWR | O_CREAT)) static_cast<void>(file->touch());
      if (file && file->is_writable()) return file;
      pause_locked();
      return nullptr;
    }

    bool open(int flags) {
      auto opened = cache->open_file(name, flags);
      if (!opened && !is_missing(opened.error())) opened = cache->open_file(name, O_RDONLY);
      if (opened) file = std::make_shared<File const>(*std::move(opened));
      if (!opened && !is_missing(opened.error())) cache->failed();
      return opened.has_value();
    }

    static bool is_missing(Error const& error) {
      return error.code == std::errc::no_such_file_or_directory;
    }

    void pause() {
      std::lock_guard const lock(mutex);
      pause_locked();
    }

    void pause_locked() {
      paused_until = std::chrono::steady_clock::now() + cache->options().pause;
      writes = 0;
    }

    /// Claims chunks from `begin` on: as many as nobody has, up to `most`.
    std::uint64_t take(File const* locked, std::uint64_t begin, std::uint64_t most) {
      std::lock_guard const lock(mutex);
      auto const next = claimed.lower_bound(begin);
      if (next != claimed.end()) most = std::min(most, *next - begin);
      if (most > 0 && locked != nullptr) {
        auto const& files = cache->files();
        // Without locks of other processes, each fetches for itself.
        if (!files.try_lock(locked->fd(), begin, most).value_or(true)) {
          most = most > 1 && files.try_lock(locked->fd(), begin, 1).value_or(true) ? 1 : 0;
        }
      }
      for (std::uint64_t i = 0; i < most; ++i) claimed.insert(claimed.end(), begin + i);
      return most;
    }

    void used(std::uint64_t index) noexcept {
      uses[static_cast<std::size_t>(index / run)].store(++clock, std::memory_order_relaxed);
    }

    bool is_time_to_touch() {
      auto const now = std::chrono::steady_clock::now();
      std::lock_guard const lock(mutex);
      if (now < next_touch) return false;
      next_touch = now + std::chrono::minutes(1);
      return true;
    }

    bool is_forgotten(std::uint64_t index) {
      std::lock_guard const lock(mutex);
      return forgotten.contains(index);
    }

    void remember(std::uint64_t index) {
      std::lock_guard const lock(mutex);
      forgotten.erase(index);
      if (fetched.empty()) fetched.resize(static_cast<std::size_t>(layout().chunks()));
      fetched[static_cast<std::size_t>(index)] = true;
    }

    bool is_fetched(std::uint64_t index) {
      std::lock_guard const lock(mutex);
      return !fetched.empty() && fetched[static_cast<std::size_t>(index)];
    }

    /// Gives up runs of chunks of the blob that is read now, those used longest ago first.
    void give_up(File const& from, std::uint64_t bytes) {
      // As they are now: other threads go on using them.
      std::vector<std::pair<std::uint64_t, std::size_t>> order;
      order.reserve(uses.size());
      for (std::size_t i = 0; i < uses.size(); ++i) order.emplace_back(uses[i].load(), i);
      std::ranges::sort(order);
      std::uint64_t freed = 0;
      for (auto const& [use, one] : order) {
        if (freed >= bytes) return;
        auto const begin = one * run;
        auto const end = std::min(begin + run, layout().chunks());
        auto const here = from.kept(begin, end).value_or(0);
        if (here == 0 || !from.erase(begin, end) || !from.release(begin, end)) continue;
        freed += here;
      }
    }

    std::shared_ptr<Cache const> cache;
    BlobName name;
    std::mutex mutex;
    std::condition_variable changed;  // claimed has become smaller
    FilePtr file;                     // null: not there
    SteadyTime paused_until{};
    SteadyTime next_touch{};
    std::uint64_t writes = 0;                      // since the last look at the file's name
    std::set<std::uint64_t> claimed;               // by this process
    std::set<std::uint64_t> forgotten;             // that could not be erased
    std::vector<bool> fetched;                     // chunks that were written; empty: none
    std::vector<std::atomic<std::uint64_t>> uses;  // of runs of chunks: clock, at the last one
    std::atomic<std::uint64_t> clock{0};
  };

  std::shared_ptr<State> state_;
};

/// A blob in a cache of the machine's files.
using CachedBlob = BasicCachedBlob<>;

}  // namespace erofs_oci
