// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/core/workers.hpp>  // first: proves that the header stands alone

#include <atomic>
#include <latch>
#include <optional>
#include <set>

#include <catch2/catch.hpp>

namespace erofs_oci {
namespace {

TEST_CASE("Workers run everything that was queued before they end", "[core][workers]") {
  std::atomic<int> done{0};
  {
    Workers workers(3, 2);
    for (auto i = 0; i < 500; ++i) workers.submit([&] { ++done; });
  }

  CHECK(done == 500);
}

TEST_CASE("Workers run as many tasks at once as there are threads", "[core][workers]") {
  std::latch all_running(4);
  std::mutex mutex;
  std::set<std::thread::id> threads;
  {
    Workers workers(4, 4);
    for (auto i = 0; i < 4; ++i) {
      workers.submit([&] {
        all_running.arrive_and_wait();  // hangs for ever with fewer than four threads
        std::lock_guard const lock(mutex);
        threads.insert(std::this_thread::get_id());
      });
    }
  }

  CHECK(threads.size() == 4);
}

TEST_CASE("Workers refuse a task when their queue is full", "[core][workers]") {
  std::latch started(1);
  std::latch go_on(1);
  std::atomic<int> done{0};
  {
    Workers workers(1, 2);
    workers.submit([&] {
      started.count_down();
      go_on.wait();
    });
    started.wait();

    CHECK(workers.try_submit([&] { ++done; }));
    CHECK(workers.try_submit([&] { ++done; }));
    CHECK_FALSE(workers.try_submit([&] { done = 1000; }));

    std::atomic<bool> submitted{false};
    std::jthread producer([&] {
      workers.submit([&] { ++done; });
      submitted = true;
    });
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    CHECK_FALSE(submitted);
    go_on.count_down();
    producer.join();
  }

  CHECK(done == 3);
}

TEST_CASE("Workers have at least one thread and one place", "[core][workers]") {
  std::atomic<int> done{0};
  {
    Workers workers(0, 0);
    for (auto i = 0; i < 10; ++i) workers.submit([&] { ++done; });
  }

  CHECK(done == 10);
}

}  // namespace
}  // namespace erofs_oci
