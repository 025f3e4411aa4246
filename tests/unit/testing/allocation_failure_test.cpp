// SPDX-License-Identifier: Apache-2.0
// What is left when memory runs out: the n-th allocation fails, on whichever thread, for each n.
// Nothing may end the process, leave a reader waiting, or spoil what is read afterwards.
#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <new>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <utility>

#include <catch.hpp>

#include <erofs_oci/combinator/cached.hpp>
#include <erofs_oci/core/thread_pool.hpp>
#include <erofs_oci/gzip/gzran.hpp>
#include <erofs_oci/oci/authenticator.hpp>
#include <erofs_oci/source/memory.hpp>
#include <erofs_oci/testing/fake_transport.hpp>
#include <erofs_oci/testing/gzip_streams.hpp>

namespace allocation_failure_new {

std::atomic<long> allocations_left{-1};  // negative: no allocation fails

bool next_allocation_fails() noexcept {
  auto left = allocations_left.load();
  while (left >= 0) {
    if (allocations_left.compare_exchange_weak(left, left - 1)) return left == 0;
  }
  return false;
}

}  // namespace allocation_failure_new
using namespace allocation_failure_new;

// Not inlined: g++ would take free() for the wrong end of what operator new gave.
[[gnu::noinline]] void* operator new(std::size_t size) {
  if (next_allocation_fails()) throw std::bad_alloc();
  if (void* const memory = std::malloc(size == 0 ? 1 : size)) return memory;
  throw std::bad_alloc();
}
// Catch2 allocates by this one, and deletes as everybody does.
[[gnu::noinline]] void* operator new(std::size_t size, std::nothrow_t const&) noexcept {
  return std::malloc(size == 0 ? 1 : size);
}
[[gnu::noinline]] void operator delete(void* memory) noexcept {
  std::free(memory);
}
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept {
  std::free(memory);
}

namespace erofs_oci {
namespace allocation_failure_test {

using namespace std::chrono_literals;

// Runs `subject.use()` with the n-th allocation failing, then `subject.check()`, for n = 0, 1, ...
// until none has failed; each time with a new Subject. Yields how many failed.
template <class Subject>
long fail_each_allocation() {
  for (long n = 0;; ++n) {
    Subject subject;
    allocations_left = n;
    try {
      subject.use();
    } catch (std::bad_alloc const&) {  // the caller's to see
    }
    auto const failed = allocations_left.exchange(-1) < 0;
    INFO("allocation " << n);
    subject.check();
    if (!failed) return n;
  }
}

Bytes some_content() {
  Bytes bytes(900'000);
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = std::byte(i * i >> 7 & 0x3f);
  return bytes;
}

testing::GzipBlob const& blob() {
  static auto const made = testing::gzip_blob({{some_content(), 6, 0, 20'000}}).spaced(300'000);
  return made;
}

// Streams as a remote source does, and allocates for each piece.
class Remote {
 public:
  [[nodiscard]] std::uint64_t size() const noexcept { return blob().blob.size(); }
  [[nodiscard]] static bool is_remote() { return true; }

  [[nodiscard]] Result<std::size_t> read_at(std::uint64_t offset, std::span<std::byte> out) const {
    return read_by(size(), offset, out, [this](std::uint64_t at, std::uint64_t n, ByteSink sink) {
      return stream(at, n, sink);
    });
  }

  [[nodiscard]] Result<void> stream(std::uint64_t offset, std::uint64_t length,
                                    ByteSink sink) const {
    for (auto rest =
             std::span(blob().blob)
                 .subspan(static_cast<std::size_t>(offset), static_cast<std::size_t>(length));
         !rest.empty();) {
      auto const piece = to_bytes(rest.first(std::min<std::size_t>(rest.size(), 16'000)));
      if (!sink(piece)) return {};
      rest = rest.subspan(piece.size());
    }
    return {};
  }
};

// The deadline is far longer than the test may take: a span that is stuck lets the whole test time
// out.
template <class Inner>
struct GzranSubject {
  explicit GzranSubject(Inner inner)
      : source(*Gzran<Inner>::make(std::move(inner), blob().index(),
                                   {.deadline = 10min, .size = blob().content.size()})) {}

  void use() { (void)source.read_at(0, out); }

  void check() {
    auto const n = source.read_at(0, out);
    REQUIRE(n.has_value());
    CHECK(*n == out.size());
    CHECK(out == blob().content);
  }

  Gzran<Inner> source;
  Bytes out = Bytes(blob().content.size());
};

struct RemoteGzran : GzranSubject<Remote> {
  RemoteGzran() : GzranSubject(Remote()) {}
};
struct LocalGzran : GzranSubject<Memory> {
  LocalGzran() : GzranSubject(Memory(blob().blob)) {}
};

TEST_CASE("A Gzran survives any allocation that fails", "[gzip][gzran][threads][error]") {
  CHECK(fail_each_allocation<RemoteGzran>() > 20);
  CHECK(fail_each_allocation<LocalGzran>() > 20);
}

struct CachedSubject {
  void use() {
    std::jthread const other(
        [this] { (void)without_throwing([&] { return source.read_at(100'000, some); }); });
    (void)source.read_at(0, out);
  }

  void check() {
    REQUIRE(source.read_at(0, out).has_value());
    CHECK(out == blob().blob);
  }

  Bytes some = Bytes(70'000);
  Cached<Remote> source{Remote(), {.chunk = 64 * 1024, .wait = 10min}};
  Bytes out = Bytes(blob().blob.size());
};

TEST_CASE("A Cached source survives any allocation that fails", "[combinator][cached][error]") {
  CHECK(fail_each_allocation<CachedSubject>() > 5);
}

struct WorkersSubject {
  void use() {
    for (auto i = 0; i < 4; ++i) {
      // Larger than a std::function holds by itself, and with an allocation in the task.
      workers->submit([this, big = std::array<int, 16>{}] {
        std::string const text(100 + static_cast<std::size_t>(big[0]), 'x');
        done += text.size() == 100 ? 1 : 0;
      });
      ++submitted;
    }
    workers->submit([this] {
      idle = true;
      idle.notify_one();
    });
    idle.wait(false);
  }

  void check() {
    allocations_left = -1;
    workers->submit([this] {
      after = true;
      after.notify_one();
    });
    after.wait(false);
    CHECK(done + static_cast<int>(workers->failures()) == submitted);
  }

  std::atomic<int> done{0};
  std::atomic<bool> idle{false};
  std::atomic<bool> after{false};
  int submitted = 0;
  std::optional<ThreadPool> workers{std::in_place, 1, 8};
};

TEST_CASE("ThreadPool go on after a task that found no memory", "[core][workers][error]") {
  CHECK(fail_each_allocation<WorkersSubject>() > 3);
}

// By user name and password: the destructor of nlohmann::json, which a token's answer takes,
// allocates.
struct LoginSubject {
  static Result<std::optional<Credentials>> look_up(std::string const&, std::string const&) {
    return std::optional(Credentials{"a user whose name is not short", "secret", {}, {}});
  }

  void use() {
    std::jthread const other([this] {
      (void)without_throwing([&] { return authenticator.renew(0, refusal, deadline); });
    });
    (void)authenticator.renew(0, refusal, deadline);
  }

  void check() {
    auto const generation = authenticator.authorization(deadline).generation;
    auto const renewed = authenticator.renew(generation, refusal, deadline);
    REQUIRE(renewed.has_value());
    CHECK(renewed->value == basic_authorization(look_up({}, {}).value().value()));
  }

  HttpHead refusal{401, {{"WWW-Authenticate", R"(Basic realm="x")"}}};
  std::chrono::steady_clock::time_point deadline{10min};
  BasicAuthenticator<testing::FakeTransport, ManualClock> authenticator{
      testing::FakeTransport([](HttpRequest const&, std::size_t) { return testing::FakeReply(); }),
      ManualClock(),
      *Url::parse("https://r.example:5000"),
      "n/m",
      look_up,
      {}};
};

TEST_CASE("An Authenticator survives any allocation that fails", "[oci][auth][threads][error]") {
  CHECK(fail_each_allocation<LoginSubject>() > 5);
}

}  // namespace allocation_failure_test
}  // namespace erofs_oci
