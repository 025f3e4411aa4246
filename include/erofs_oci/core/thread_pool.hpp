// SPDX-License-Identifier: Apache-2.0
/// @file
/// ThreadPool: a fixed number of threads behind a bounded queue.
#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

namespace erofs_oci {

/// Runs tasks on a fixed set of threads, first come first served.
///
/// If a task throws, the pool counts the exception and drops it, and the thread takes the next
/// task. A task for whose outcome another thread waits must set that outcome by a guard.
///
/// @par Thread safety
/// submit() and try_submit() from any thread, the tasks included, until destruction begins.
class ThreadPool {
 public:
  /// @param threads  how many, at least 1; fewer if there is no memory or no thread for more
  /// @param queue    tasks that may wait beyond the running ones, at least 1
  ThreadPool(std::size_t threads, std::size_t queue) : limit_(std::max<std::size_t>(queue, 1)) {
    threads_.reserve(std::max<std::size_t>(threads, 1));
    for (std::size_t i = 0; i < std::max<std::size_t>(threads, 1); ++i) {
      try {
        threads_.emplace_back([this] { run(); });
      } catch (...) {  // those that run would never be told to end
        if (threads_.empty()) throw;
        break;
      }
    }
  }

  /// Runs what is queued, then joins.
  ~ThreadPool() {
    {
      std::lock_guard const lock(mutex_);
      stopping_ = true;
    }
    work_.notify_all();
    room_.notify_all();
  }

  /// How many tasks ended by an exception so far.
  [[nodiscard]] std::uint64_t failures() const noexcept {
    return failures_.load(std::memory_order_relaxed);
  }

  /// Queues a task; blocks while the queue is full.
  void submit(std::function<void()> task) {
    std::unique_lock lock(mutex_);
    room_.wait(lock, [this] { return tasks_.size() < limit_ || stopping_; });
    tasks_.push_back(std::move(task));
    lock.unlock();
    work_.notify_one();
  }

  /// Queues a task unless the queue is full; yields whether it did. Does not block.
  [[nodiscard]] bool try_submit(std::function<void()> task) {
    {
      std::lock_guard const lock(mutex_);
      if (tasks_.size() >= limit_ || stopping_) return false;
      tasks_.push_back(std::move(task));
    }
    work_.notify_one();
    return true;
  }

 private:
  void run() {
    for (;;) {
      std::unique_lock lock(mutex_);
      work_.wait(lock, [this] { return !tasks_.empty() || stopping_; });
      if (tasks_.empty()) return;
      auto const task = std::move(tasks_.front());
      tasks_.pop_front();
      lock.unlock();
      room_.notify_one();
      try {
        task();
      } catch (...) {
        failures_.fetch_add(1, std::memory_order_relaxed);
      }
    }
  }

  std::size_t limit_;
  std::atomic<std::uint64_t> failures_{0};
  std::mutex mutex_;
  std::condition_variable work_;
  std::condition_variable room_;
  std::deque<std::function<void()>> tasks_;
  bool stopping_ = false;
  std::vector<std::jthread> threads_;  // last: joined first, while the rest still lives
};

}  // namespace erofs_oci
