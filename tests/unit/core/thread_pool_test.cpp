// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/core/thread_pool.hpp>  // first: proves that the header stands alone

#include <atomic>
#include <latch>
#include <new>
#include <optional>
#include <set>

#include <catch.hpp>

namespace erofs_oci {
namespace thread_pool_test {

TEST_CASE("ThreadPool runs everything that was queued before it ends", "[core][thread_pool]") {
  std::atomic<int> done{0};
  {
    ThreadPool workers(3, 2);
    for (auto i = 0; i < 500; ++i) workers.submit([&] { ++done; });
  }

  CHECK(done == 500);
}

TEST_CASE("ThreadPool runs as many tasks at once as there are threads", "[core][thread_pool]") {
  std::latch all_running(4);
  std::mutex mutex;
  std::set<std::thread::id> threads;
  {
    ThreadPool workers(4, 4);
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

TEST_CASE("ThreadPool refuses a task when its queue is full", "[core][thread_pool]") {
  std::latch started(1);
  std::latch go_on(1);
  std::atomic<int> done{0};
  {
    ThreadPool workers(1, 2);
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

TEST_CASE("ThreadPool has at least one thread and one place", "[core][thread_pool]") {
  std::atomic<int> done{0};
  {
    ThreadPool workers(0, 0);
    for (auto i = 0; i < 10; ++i) workers.submit([&] { ++done; });
  }

  CHECK(done == 10);
}

TEST_CASE("ThreadPool counts a task that throws, and goes on", "[core][thread_pool][error]") {
  ThreadPool workers(1, 4);
  std::latch done(1);

  workers.submit([] { throw std::bad_alloc(); });
  workers.submit([] { throw 1; });
  workers.submit([&] { done.count_down(); });
  done.wait();

  CHECK(workers.failures() == 2);
}

}  // namespace thread_pool_test
}  // namespace erofs_oci
