// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/cache/disk_cached.hpp>  // first: proves that the header stands alone

#include <array>
#include <atomic>
#include <fstream>
#include <future>
#include <memory>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <catch.hpp>
#include <rapidcheck/catch.h>
#include <scratch.hpp>

#include <erofs_oci/cache/not_fetched.hpp>
#include <erofs_oci/combinator/ref.hpp>
#include <erofs_oci/combinator/verified.hpp>
#include <erofs_oci/core/any_source.hpp>
#include <erofs_oci/core/fd.hpp>
#include <erofs_oci/digest/sha256.hpp>
#include <erofs_oci/source/memory.hpp>
#include <erofs_oci/testing/archetype.hpp>
#include <erofs_oci/testing/flaky.hpp>
#include <erofs_oci/testing/generators.hpp>
#include <erofs_oci/testing/laws.hpp>

#include "faulty_files.hpp"

namespace erofs_oci {
namespace disk_cached_test {

using cache_testing::FaultPlan;
using cache_testing::FaultyFiles;
using test::Scratch;
using Cache = BasicBlobCache<FaultyFiles>;
using CachePtr = std::shared_ptr<Cache const>;
template <class Inner>
using Cached = DiskCached<Inner, FaultyFiles>;

static_assert(RandomAccessSource<DiskCached<Memory>>);

constexpr std::chrono::milliseconds no_time{0};

CachePtr open_cache(Scratch const& scratch, std::shared_ptr<FaultPlan> plan = {},
                    BlobCacheOptions options = {.chunk = 7, .pause = no_time}) {
  if (!plan) plan = std::make_shared<FaultPlan>();
  auto cache = Cache::open(scratch / "cache", options, FaultyFiles(std::move(plan)));
  REQUIRE(cache.has_value());
  return *std::move(cache);
}

BlobName name_of(Bytes const& bytes) {
  return {digest_of(bytes), bytes.size()};
}

template <class Inner>
Cached<Inner> over(CachePtr cache, Inner inner, Bytes const& bytes,
                   DiskCachedOptions options = {}) {
  return {std::move(inner), {std::move(cache), name_of(bytes)}, options};
}

std::string path_of(Scratch const& scratch, Bytes const& bytes) {
  return scratch / "cache/blobs-3/" + name_of(bytes).text();
}

void flip(std::string const& path, std::uint64_t at, char mask = 1) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(static_cast<std::streamoff>(at));
  auto const byte = file.get();
  if (!file) return;
  file.seekp(static_cast<std::streamoff>(at));
  file.put(static_cast<char>(byte ^ mask));
}

bool read_all(RandomAccessSource auto const& source, Bytes const& wanted) {
  Bytes out(wanted.size());
  auto const n = source.read_at(0, out);
  if (!n) return false;
  REQUIRE(*n == wanted.size());
  REQUIRE(out == wanted);
  return true;
}

TEST_CASE("DiskCached obeys the laws of sources", "[cache][disk_cached][property]") {
  rc::prop("for all bytes and chunks", [] {
    Scratch const scratch;
    auto const bytes = *testing::any_bytes();
    auto const chunk = *rc::gen::inRange<std::uint64_t>(1, 40);
    auto const cache = open_cache(scratch, {}, {.chunk = chunk});
    testing::obeys_laws(AnySource(over(cache, Memory(bytes), bytes)), bytes);
    testing::obeys_laws(AnySource(over(cache, testing::Archetype(bytes), bytes)), bytes);
    if (!bytes.empty()) RC_ASSERT(cache->counts().hits > 0);
  });
  rc::prop("for threads and instances at once", [] {
    Scratch const scratch;
    auto const bytes = *testing::many_bytes(1000);
    auto const plan = std::make_shared<FaultPlan>();
    auto const cache = open_cache(scratch, plan, {.limit = 9000, .chunk = 64, .pause = no_time});
    plan->one_in = 50;
    auto const one = over(cache, Memory(bytes), bytes, {.patience = no_time});
    auto const two = over(open_cache(scratch, plan, cache->options()), Memory(bytes), bytes,
                          {.patience = no_time});
    std::jthread const other([&] {
      for (int i = 0; i < 5; ++i) {
        Bytes out(bytes.size());
        static_cast<void>(two.read_at(0, out));
        static_cast<void>(cache->prune(0));
      }
    });
    testing::obeys_laws_concurrently(AnySource(Ref(one)), bytes, 3);
  });
}

TEST_CASE("DiskCached obeys the laws of sources while operations on files fail",
          "[cache][disk_cached][property]") {
  std::uint64_t faults = 0;
  rc::prop("whatever operation on files fails", [&] {
    Scratch const scratch;
    auto const bytes = *testing::any_bytes();
    auto const plan = std::make_shared<FaultPlan>();
    auto const cache = open_cache(scratch, plan);
    plan->one_in = *rc::gen::inRange(1U, 30U);
    plan->random.seed(*rc::gen::arbitrary<std::uint32_t>());
    auto const source = over(cache, Memory(bytes), bytes, {.patience = no_time});
    testing::obeys_laws(AnySource(Ref(source)), bytes);
    faults += plan->faults;
  });
  CHECK(faults > 100);
}

TEST_CASE("What has been read once comes from disk, for other instances, too",
          "[cache][disk_cached]") {
  Scratch const scratch;
  auto const bytes = testing::patterned_bytes(1000, 1);
  testing::RequestLog log;
  auto const first = over(open_cache(scratch), testing::Counting(Memory(bytes), log), bytes);
  Bytes part(300);
  REQUIRE(first.read_at(500, part).value() == 300);
  REQUIRE(log.all() ==
          std::vector<testing::RequestLog::Request>{{testing::RequestLog::Kind::stream, 497, 308}});
  log.clear();
  REQUIRE(read_all(first, bytes));
  CHECK(log.count(testing::RequestLog::Kind::stream) == 2);  // before and behind
  CHECK(first.blob().kept() == 1000);
  auto const second = over(open_cache(scratch), NotFetched(name_of(bytes)), bytes);
  CHECK(read_all(second, bytes));
  CHECK(second.blob().cache().counts().hits == 143);
  CHECK(second.blob().cache().counts().misses == 0);
}

TEST_CASE("A byte that changes on disk is a miss and never data", "[cache][disk_cached][error]") {
  Scratch const scratch;
  auto const bytes = testing::patterned_bytes(50, 2);
  auto const cache = open_cache(scratch, {}, {.chunk = 16});
  REQUIRE(read_all(over(cache, Memory(bytes), bytes), bytes));
  auto const path = path_of(scratch, bytes);
  BlobLayout const layout{bytes.size(), 16};
  auto const size = std::filesystem::file_size(path);
  REQUIRE(size == layout.data_at(3) + 2);
  std::vector<std::uint64_t> places;
  for (auto at = BlobLayout::page; at < BlobLayout::entry_at(4); ++at) places.push_back(at);
  for (auto at = layout.data_at(0); at < size; ++at) places.push_back(at);
  for (auto const at : places) {
    flip(path, at);
    auto const in_table = at < layout.data_at(0);
    auto const hurt =
        in_table ? (at - BlobLayout::page) / BlobLayout::entry : (at - layout.data_at(0)) / 16;
    for (std::uint64_t index = 0; index < 4; ++index) {
      Bytes out(layout.bytes_in(index));
      auto const n = over(cache, NotFetched(name_of(bytes)), bytes).read_at(index * 16, out);
      CAPTURE(at, index);
      REQUIRE(n.has_value() == (index != hurt));
      if (n) REQUIRE(out == testing::slice_of(bytes, index * 16, 16));
    }
    REQUIRE(read_all(over(cache, Memory(bytes), bytes), bytes));  // and mends it
    REQUIRE(read_all(over(cache, NotFetched(name_of(bytes)), bytes), bytes));
  }
  CHECK(cache->counts().damaged > 0);
}

TEST_CASE("A file under another blob's name, and chunks that changed places, are misses",
          "[cache][disk_cached][error]") {
  Scratch const scratch;
  auto const one = testing::patterned_bytes(64, 3);
  auto const two = testing::patterned_bytes(64, 4);
  auto const cache = open_cache(scratch, {}, {.chunk = 32});
  REQUIRE(read_all(over(cache, Memory(one), one), one));
  std::filesystem::copy_file(path_of(scratch, one), path_of(scratch, two));
  CHECK_FALSE(read_all(over(cache, NotFetched(name_of(two)), two), two));
  CHECK(read_all(over(cache, Memory(two), two), two));

  BlobLayout const layout{64, 32};
  std::fstream file(path_of(scratch, one), std::ios::in | std::ios::out | std::ios::binary);
  for (auto const at : {BlobLayout::entry_at(0), layout.data_at(0)}) {
    std::array<char, 64> both{};
    file.seekg(static_cast<std::streamoff>(at)).read(both.data(), 64);
    std::rotate(both.begin(), both.begin() + 32, both.end());
    file.seekp(static_cast<std::streamoff>(at)).write(both.data(), 64);
  }
  file.close();
  CHECK_FALSE(read_all(over(cache, NotFetched(name_of(one)), one), one));
}

/// One process of the model: it can be killed in any operation.
struct Process {
  std::shared_ptr<FaultPlan> plan = std::make_shared<FaultPlan>();
  std::vector<Cached<Memory>> sources{};
};

TEST_CASE("Crashes, evictions and damage never change what is read",
          "[cache][disk_cached][property]") {
  rc::prop("against the blobs themselves", [] {
    Scratch const scratch;
    std::vector<Bytes> blobs;
    for (int i = 0; i < 3; ++i) {
      blobs.push_back(testing::patterned_bytes(*rc::gen::inRange<std::size_t>(1, 400),
                                               static_cast<std::uint64_t>(i)));
    }
    BlobCacheOptions const options{
        .limit = *rc::gen::element<std::uint64_t>(0, 9000, 20000, 1 << 20),
        .chunk = 16,
        .pause = no_time};
    auto const start = [&](Process& process) {
      process = {};
      auto cache = Cache::open(scratch / "cache", options, FaultyFiles(process.plan));
      RC_ASSERT(cache.has_value());
      for (auto const& bytes : blobs) {
        process.sources.push_back(over(*cache, Memory(bytes), bytes, {.patience = no_time}));
      }
    };
    std::array<Process, 2> processes;
    for (auto& process : processes) start(process);
    auto const steps = *rc::gen::inRange(1, 60);
    for (int step = 0; step < steps; ++step) {
      auto& process = processes[*rc::gen::inRange<std::size_t>(0, 2)];
      auto const which = *rc::gen::inRange<std::size_t>(0, 3);
      auto const& bytes = blobs[which];
      auto const& source = process.sources[which];
      auto const path = path_of(scratch, bytes);
      std::error_code ignored;
      auto const size =
          std::filesystem::exists(path, ignored) ? std::filesystem::file_size(path) : 0;
      switch (*rc::gen::weightedElement<int>(
          {{8, 0}, {2, 1}, {1, 2}, {1, 3}, {2, 4}, {1, 5}, {1, 6}, {1, 7}})) {
        case 1: process.plan->dies_in = *rc::gen::inRange(0, 12); break;
        case 2: start(process); break;
        case 3:
          static_cast<void>(source.blob().cache().prune(*rc::gen::inRange<std::uint64_t>(0, 9000)));
          break;
        case 4:
          if (size > 0) flip(path, *rc::gen::inRange<std::uint64_t>(0, size));
          break;
        case 5:
          if (size > 0)
            std::filesystem::resize_file(path, *rc::gen::inRange<std::uint64_t>(0, size));
          break;
        case 6: std::filesystem::remove(path, ignored); break;
        case 7: source.forget(*testing::any_offset(bytes.size()), 50); break;
        default: {
          auto const offset = *testing::any_offset(bytes.size());
          Bytes out(*testing::any_length(bytes.size()));
          auto const n = source.read_at(offset, out);
          RC_ASSERT(n.has_value());  // a disk that fails costs a request and no more
          out.resize(*n);
          RC_ASSERT(out == testing::slice_of(bytes, offset, out.size()));
          RC_ASSERT(*n == testing::slice_of(bytes, offset, bytes.size() + 99).size() ||
                    *n == out.size());
          if (process.plan->dead) start(process);  // the next one of its kind
        }
      }
    }
    for (std::size_t i = 0; i < blobs.size(); ++i) {
      RC_ASSERT(read_all(processes[0].sources[i], blobs[i]));
    }
  });
}

/// Counts the bytes that it hands over, slowly.
struct Metered {
  Bytes const* bytes;
  std::atomic<std::uint64_t>* handed;
  [[nodiscard]] std::uint64_t size() const noexcept { return bytes->size(); }
  [[nodiscard]] Result<std::size_t> read_at(std::uint64_t offset, std::span<std::byte> out) const {
    std::this_thread::yield();
    auto const part = testing::slice_of(*bytes, offset, out.size());
    std::ranges::copy(part, out.begin());
    *handed += part.size();
    return part.size();
  }
  [[nodiscard]] Result<void> stream(std::uint64_t offset, std::uint64_t length,
                                    ByteSink sink) const {
    Bytes piece(37);
    for (auto const end = offset + length; offset < end;) {
      auto const n = read_at(offset, std::span(piece).first(static_cast<std::size_t>(
                                         std::min<std::uint64_t>(37, end - offset))));
      if (!sink(std::span(piece).first(*n))) return {};
      offset += *n;
    }
    return {};
  }
};

TEST_CASE("A reader waits as long as others go on to bring what it needs", "[cache][disk_cached]") {
  constexpr std::uint64_t chunks = 10;
  constexpr std::chrono::milliseconds patience{1000};
  Scratch const scratch;
  auto const bytes = testing::patterned_bytes(chunks * 7, 6);
  ManualClock const time;
  BasicCachedBlob<FaultyFiles> const other(open_cache(scratch), name_of(bytes));
  auto claim = other.claim(0, chunks);
  REQUIRE(claim);
  DiskCached<NotFetched, FaultyFiles, ManualClock> const source(
      NotFetched(name_of(bytes)), {open_cache(scratch), name_of(bytes)}, {.patience = patience},
      time);
  std::atomic<std::uint64_t> asked{0};
  std::atomic<std::uint64_t> got{0};
  auto const reader = std::async(std::launch::async, [&] {
    return source.stream(0, bytes.size(), [&](std::span<std::byte const> piece) {
      piece.empty() ? ++asked : got += piece.size();
      return true;
    });
  });

  for (std::uint64_t i = 0; i < chunks; ++i) {
    auto const ended = [&] { return reader.wait_for(no_time) == std::future_status::ready; };
    for (auto const before = asked.load(); asked == before && !ended();) std::this_thread::yield();
    static_cast<void>(time.sleep(patience - std::chrono::milliseconds(1)));
    other.write(i, std::span(bytes).subspan(i * 7, 7));
    claim->pass(i + 1);
    while (got < (i + 1) * 7 && !ended()) std::this_thread::yield();
  }

  CHECK(got == bytes.size());
}

TEST_CASE("Readers that want the same chunks fetch them once", "[cache][disk_cached]") {
  Scratch const scratch;
  auto const bytes = testing::patterned_bytes(40'000, 5);
  std::atomic<std::uint64_t> handed{0};
  std::vector<Cached<Metered>> sources;
  for (int i = 0; i < 3; ++i) {  // as three processes would
    sources.push_back(over(open_cache(scratch, {}, {.chunk = 100}), Metered{&bytes, &handed}, bytes,
                           {.patience = std::chrono::minutes(1)}));
  }
  {
    std::vector<std::jthread> readers;
    for (auto const& source : sources) {
      for (int i = 0; i < 2; ++i) readers.emplace_back([&] { CHECK(read_all(source, bytes)); });
    }
  }
  // A piece of 37 bytes may be on its way when a reader meets what another one fetches: behind each
  // of the 400 chunks at the worst.
  CHECK(handed >= bytes.size());
  CHECK(handed <= bytes.size() + bytes.size() / 100 * 37);
}

TEST_CASE("Whoever waits too long for another reader fetches by itself", "[cache][disk_cached]") {
  Scratch const scratch;
  auto const bytes = testing::patterned_bytes(100, 6);
  auto const cache = open_cache(scratch);
  BasicCachedBlob<FaultyFiles> const stuck(open_cache(scratch), name_of(bytes));
  auto claim = stuck.claim(0, 50);
  REQUIRE(claim.has_value());
  auto const source =
      over(cache, Memory(bytes), bytes, {.patience = std::chrono::milliseconds(30)});
  CHECK_FALSE(source.blob().claim(3, 1).has_value());
  CHECK(read_all(source, bytes));
  CHECK(read_all(over(cache, NotFetched(name_of(bytes)), bytes), bytes));
  claim->pass(4);
  CHECK(source.blob().claim(3, 1).has_value());
  CHECK_FALSE(source.blob().claim(4, 1).has_value());
}

TEST_CASE("A sink ends a stream while it waits for another reader", "[cache][disk_cached]") {
  Scratch const scratch;
  auto const bytes = testing::patterned_bytes(100, 6);
  BasicCachedBlob<FaultyFiles> const stuck(open_cache(scratch), name_of(bytes));
  auto const claim = stuck.claim(0, 50);
  auto const source =
      over(open_cache(scratch), Memory(bytes), bytes, {.patience = std::chrono::hours(1)});
  int asked = 0;
  auto const done = source.stream(0, 100, [&](std::span<std::byte const> piece) {
    CHECK(piece.empty());
    return ++asked < 3;
  });
  CHECK(done.has_value());
  CHECK(asked == 3);
}

TEST_CASE("A full disk costs requests and no more", "[cache][disk_cached][error]") {
  Scratch const scratch;
  auto const bytes = testing::patterned_bytes(100, 7);
  auto const plan = std::make_shared<FaultPlan>();
  auto const cache = open_cache(scratch, plan);
  auto const source = over(cache, Memory(bytes), bytes);
  plan->write_error = ENOSPC;
  CHECK(read_all(source, bytes));
  CHECK(source.blob().kept() == 0);
  CHECK(cache->counts().failures > 0);
  plan->write_error = 0;
  CHECK(read_all(source, bytes));
  CHECK(source.blob().kept() == 100);

  auto const patient = open_cache(scratch, plan, {.chunk = 7, .pause = std::chrono::hours(1)});
  auto const other = testing::patterned_bytes(100, 8);
  auto const later = over(patient, Memory(other), other);
  plan->write_error = ENOSPC;
  CHECK(read_all(later, other));
  CHECK(patient->counts().failures == 1);  // it has not tried again
}

TEST_CASE("What is kept in a directory that is read-only serves", "[cache][disk_cached]") {
  Scratch const scratch;
  auto const bytes = testing::patterned_bytes(100, 9);
  REQUIRE(read_all(over(open_cache(scratch), Memory(bytes), bytes), bytes));
  auto const plan = std::make_shared<FaultPlan>();
  plan->read_only = true;
  auto const source = over(open_cache(scratch, plan), Memory(bytes), bytes);
  CHECK(read_all(over(open_cache(scratch, plan), NotFetched(name_of(bytes)), bytes), bytes));
  // What is wrong there cannot be erased, and is not read again.
  CHECK(source.forget(0, 100));
  CHECK_FALSE(source.forget(0, 100));
  CHECK(read_all(source, bytes));
  CHECK(source.blob().cache().counts().hits == 0);
}

TEST_CASE("Reads go on when the directory is removed under them", "[cache][disk_cached]") {
  Scratch const scratch;
  auto const bytes = testing::patterned_bytes(2000, 10);
  auto const cache = open_cache(scratch);
  auto const source = over(cache, Memory(bytes), bytes);
  Bytes part(1000);
  REQUIRE(source.read_at(0, part).value() == 1000);
  std::filesystem::remove_all(scratch / "cache");
  CHECK(read_all(source, bytes));
  CHECK(read_all(source, bytes));
  CHECK_FALSE(std::filesystem::exists(scratch / "cache"));
  // A blob alone comes back.
  Scratch const second;
  auto const again = over(open_cache(second), Memory(bytes), bytes);
  REQUIRE(again.read_at(0, part).value() == 1000);
  std::filesystem::remove(path_of(second, bytes));
  CHECK(read_all(again, bytes));
  CHECK(std::filesystem::exists(path_of(second, bytes)));
}

TEST_CASE("A name that leads elsewhere is not followed", "[cache][disk_cached][error]") {
  Scratch const scratch;
  auto const bytes = testing::patterned_bytes(100, 11);
  auto const cache = open_cache(scratch);
  auto const victim = scratch / "cache/victim";
  std::ofstream(victim) << "precious";
  for (auto const link : {&::symlink, &::link}) {
    REQUIRE(link(victim.c_str(), path_of(scratch, bytes).c_str()) == 0);
    auto const source = over(cache, Memory(bytes), bytes);
    CHECK(read_all(source, bytes));
    CHECK(read_all(source, bytes));
    static_cast<void>(cache->prune(0));
    cache->remove(name_of(bytes));
    CHECK(std::filesystem::file_size(victim) == 8);
    CHECK_FALSE(std::filesystem::exists(std::filesystem::symlink_status(path_of(scratch, bytes))));
  }
}

TEST_CASE("Wrong bytes of a peer are forgotten by what checks them", "[cache][disk_cached]") {
  Scratch const scratch;
  auto const bytes = testing::patterned_bytes(100, 12);
  auto wrong = bytes;
  wrong[42] ^= std::byte{1};
  auto const cache = open_cache(scratch);
  Bytes out(100);
  REQUIRE(over(cache, Memory(wrong), bytes).read_at(0, out).value() == 100);
  REQUIRE(out == wrong);
  std::vector<VerifiedChunk> const chunks{{0, 100, digest_of(bytes)}};
  using Stack = Verified<Shared<AnySource>, Sha256>;
  auto const make = [&](Bytes const& from) {
    return *Stack::make(Shared(AnySource(over(cache, Memory(from), bytes))), chunks);
  };
  CHECK(read_all(make(bytes), bytes));  // what another one had kept
  CHECK(read_all(over(cache, NotFetched(name_of(bytes)), bytes), bytes));
  REQUIRE(over(cache, NotFetched(name_of(bytes)), bytes).forget(0, 100));
  auto const stack = make(wrong);
  for (int i = 0; i < 2; ++i) {  // what it has fetched itself is asked for once a read
    auto const refused = stack.read_at(0, out);
    REQUIRE_FALSE(refused.has_value());
    CHECK(refused.error().code == Errc::digest_mismatch);
    CHECK(cache->look_at(name_of(bytes))->kept == 0);
  }
  CHECK(read_all(make(bytes), bytes));
  CHECK(read_all(over(cache, NotFetched(name_of(bytes)), bytes), bytes));
}

TEST_CASE("What an object has fetched itself is no older chunk", "[cache][disk_cached]") {
  Scratch const scratch;
  auto const bytes = testing::patterned_bytes(70, 14);
  auto const cache = open_cache(scratch);
  auto const source = over(cache, Memory(bytes), bytes);
  REQUIRE(read_all(source, bytes));
  CHECK_FALSE(source.forget(0, 35));
  CHECK(over(cache, Memory(bytes), bytes).forget(35, 35));
}

TEST_CASE("A run of missing chunks ends before one that is there", "[cache][disk_cached]") {
  Scratch const scratch;
  auto const bytes = testing::patterned_bytes(70, 15);
  auto const source = over(open_cache(scratch), Memory(bytes), bytes);
  Bytes out(1);
  REQUIRE(source.read_at(3 * 7, out).value() == 1);  // the fourth of ten
  CHECK(source.blob().missing_run(0, 9) == 3);
  CHECK(source.blob().missing_run(0, 2) == 3);
  CHECK(source.blob().missing_run(2, 9) == 1);
  CHECK(source.blob().missing_run(4, 9) == 6);
}

TEST_CASE("A claim ends before a chunk that another one has", "[cache][disk_cached]") {
  Scratch const scratch;
  auto const bytes = testing::patterned_bytes(70, 17);
  auto const source = over(open_cache(scratch), Memory(bytes), bytes);
  auto const& blob = source.blob();
  auto const fourth = blob.claim(3, 1);
  REQUIRE(fourth.has_value());
  auto const first = blob.claim(0, 10);
  REQUIRE(first.has_value());
  CHECK(first->end() == 3);
  CHECK_FALSE(blob.claim(2, 1).has_value());
  CHECK_FALSE(blob.claim(3, 1).has_value());
}

TEST_CASE("A blob's file of another user is not read", "[cache][disk_cached][error]") {
  Scratch const scratch;
  auto const bytes = testing::patterned_bytes(70, 16);
  REQUIRE(read_all(over(open_cache(scratch), Memory(bytes), bytes), bytes));
  auto const directory = open_read(scratch / "cache/blobs-3", O_DIRECTORY);
  REQUIRE(directory.has_value());
  auto const open = [&](uid_t owner) {
    return BlobFile<SystemFiles>::open({}, directory->get(), name_of(bytes), 7, O_RDONLY, owner);
  };
  CHECK(open(::geteuid()).has_value());
  auto const refused = open(::geteuid() + 1);
  REQUIRE_FALSE(refused.has_value());
  CHECK(refused.error().code == std::errc::operation_not_permitted);
}

TEST_CASE("An error of what is below ends the read, and is not kept",
          "[cache][disk_cached][error]") {
  Scratch const scratch;
  auto const bytes = testing::patterned_bytes(100, 13);
  auto const source =
      over(open_cache(scratch),
           testing::Flaky(Memory(bytes), {.first = 0, .count = 1, .bytes_first = 30}), bytes);
  Bytes out(100);
  auto const n = source.read_at(0, out);
  REQUIRE_FALSE(n.has_value());
  CHECK(n.error().context == "flaky");
  CHECK(source.blob().kept() == 28);
  CHECK(source.blob().claim(4, 1).has_value());
  CHECK(read_all(source, bytes));
  // What comes behind the bytes that were asked for does not matter.
  auto const end = over(open_cache(scratch, {}, {.chunk = 90}),
                        testing::Flaky(Memory(bytes), {.count = 9, .bytes_first = 30}),
                        testing::patterned_bytes(100, 14));
  CHECK(end.read_at(0, std::span(out).first(30)).value() == 30);
}

}  // namespace disk_cached_test
}  // namespace erofs_oci
