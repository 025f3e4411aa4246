// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/nbd/session.hpp>  // first: proves that the header stands alone

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <new>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include <catch.hpp>

#include <erofs_oci/source/memory.hpp>
#include <erofs_oci/testing/flaky.hpp>
#include <erofs_oci/testing/generators.hpp>

#include "raw_client.hpp"

namespace erofs_oci::nbd::testing {
namespace session_test {

using erofs_oci::testing::Flaky;
using erofs_oci::testing::FlakyPlan;
using erofs_oci::testing::patterned_bytes;

constexpr std::size_t size = 1'000'003;

Bytes const& content() {
  static Bytes const bytes = patterned_bytes(size, 1);
  return bytes;
}

AnySource memory() {
  return AnySource(Memory(content()));
}

Bytes part(std::uint64_t offset, std::size_t length) {
  return to_bytes(std::span(content()).subspan(static_cast<std::size_t>(offset), length));
}

Request make(Command command, std::uint64_t cookie, std::uint64_t offset, std::uint32_t length,
             std::uint16_t flags = 0) {
  return {flags, static_cast<std::uint16_t>(command), cookie, offset, length};
}

Request read_request(std::uint64_t cookie, std::uint64_t offset, std::uint32_t length) {
  return make(Command::read, cookie, offset, length);
}

/// Whether the stream is still in step: a READ gets its own bytes.
void check_in_step(RawClient const& client) {
  client.send(read_request(0xabcd, 17, 4096));
  CHECK(client.simple_reply() == SimpleReply{Errno::none, 0xabcd});
  CHECK(client.receive(4096) == part(17, 4096));
}

/// A source whose reads a test holds back, counts and fails.
class Gate {
 public:
  struct State {
    std::mutex mutex;
    std::condition_variable changed;
    bool open = false;
    std::size_t begun = 0;
    std::set<std::uint64_t> offsets{};
  };

  explicit Gate(std::uint64_t length) : size_(length) {}
  [[nodiscard]] std::uint64_t size() const noexcept { return size_; }
  [[nodiscard]] Result<std::size_t> read_at(std::uint64_t offset, std::span<std::byte> out) const {
    std::unique_lock lock(state->mutex);
    ++state->begun;
    state->offsets.insert(offset);
    state->changed.notify_all();
    state->changed.wait(lock, [&] { return state->open; });
    std::ranges::fill(out, std::byte{'g'});
    return readable(size_, offset, out.size());
  }

  std::shared_ptr<State> state = std::make_shared<State>();

 private:
  std::uint64_t size_;
};

void open(Gate::State& state) {
  std::lock_guard const lock(state.mutex);
  state.open = true;
  state.changed.notify_all();
}

void wait_begun(Gate::State& state, std::size_t n) {
  std::unique_lock lock(state.mutex);
  REQUIRE(state.changed.wait_for(lock, 10s, [&] { return state.begun >= n; }));
}

TEST_CASE("A session answers READs with the source's bytes", "[nbd][session]") {
  RunningSession session(memory());
  auto const& client = session.client;

  for (auto const& [offset, length] : std::vector<std::pair<std::uint64_t, std::uint32_t>>{
           {0, 1}, {0, 512}, {4095, 8193}, {size - 1, 1}, {size - 70'000, 70'000}, {0, size}}) {
    client.send(read_request(offset, offset, length));
    CHECK(client.simple_reply() == SimpleReply{Errno::none, offset});
    CHECK(client.receive(length) == part(offset, length));
  }

  client.send(make(Command::disconnect, 0, 0, 0));
  CHECK(client.receive_all().empty());
  CHECK(session.end().value() == SessionEnd::disconnected);
}

TEST_CASE("A session takes requests that arrive in any pieces", "[nbd][session]") {
  RunningSession session(memory());
  Bytes stream;
  for (std::uint64_t i = 0; i < 40; ++i) {
    auto const bytes = encode(read_request(i, i * 1000, 10));
    stream.insert(stream.end(), bytes.begin(), bytes.end());
  }

  for (std::size_t i = 0; i < stream.size(); i += 11) {
    session.client.send(std::span(stream).subspan(i, std::min<std::size_t>(11, stream.size() - i)));
  }

  std::set<std::uint64_t> answered;
  for (int i = 0; i < 40; ++i) {
    auto const reply = session.client.simple_reply();
    CHECK(session.client.receive(10) == part(reply.cookie * 1000, 10));
    answered.insert(reply.cookie);
  }
  CHECK(answered.size() == 40);
}

TEST_CASE("A command that is refused gets sixteen bytes and no more", "[nbd][session]") {
  RunningSession session(memory());
  auto const& client = session.client;
  auto const [request, error] = GENERATE(table<Request, Errno>({
      {make(Command::trim, 5, 0, 4096), Errno::perm},
      {make(Command::trim, 5, 0, 4096, command_flag::fua), Errno::perm},
      {make(Command::write_zeroes, 5, 0, 4096), Errno::perm},
      {make(Command::flush, 5, 0, 0), Errno::none},
      {make(Command::cache, 5, 0, 4096), Errno::none},
      {make(Command::cache, 5, size, 1), Errno::inval},
      {make(Command::block_status, 5, 0, 4096), Errno::inval},
      {make(Command::read, 5, 0, 0), Errno::none},
      {make(Command::read, 5, size, 0), Errno::inval},
      {make(Command::read, 5, size, 512), Errno::inval},
      {make(Command::read, 5, size - 1, 2), Errno::inval},
      {make(Command::read, 5, std::uint64_t{1} << 63, 4096), Errno::inval},
      {make(Command::read, 5, ~std::uint64_t{0}, 4096), Errno::inval},
      {make(Command::read, 5, 0, max_payload + 1), Errno::inval},
      {make(Command::read, 5, 0, ~std::uint32_t{0}), Errno::inval},
      {make(Command::read, 5, 0, 512, command_flag::df), Errno::inval},
      {make(Command::read, 5, 0, 512, 0x8000), Errno::inval},
      {make(Command{8}, 5, 0, 512), Errno::inval},
      {make(Command{0xffff}, 5, 0, 512), Errno::inval},
  }));

  client.send(request);

  CHECK(client.simple_reply() == SimpleReply{error, 5});
  CHECK(client.silent());
  check_in_step(client);
}

TEST_CASE("A WRITE is read to its end and refused", "[nbd][session]") {
  RunningSession session(memory());
  auto const& client = session.client;
  auto const length = GENERATE(std::uint32_t{0}, std::uint32_t{1}, std::uint32_t{100'000},
                               std::uint32_t{max_payload}, std::uint32_t{max_payload + 1000});
  Bytes const payload(length, std::byte{0x25});

  client.send(make(Command::write, 9, 0, length));
  client.send(payload);

  CHECK(client.simple_reply() == SimpleReply{Errno::perm, 9});
  CHECK(client.silent());
  check_in_step(client);
}

TEST_CASE("A WRITE is refused only once its payload is there", "[nbd][session]") {
  RunningSession session(memory());
  auto const& client = session.client;
  client.send(make(Command::write, 9, 0, 100));
  client.send(Bytes(99));

  CHECK(client.silent());
  client.send(Bytes(1));

  CHECK(client.simple_reply() == SimpleReply{Errno::perm, 9});
}

TEST_CASE("A WRITE too long to drain drops the connection", "[nbd][session][error]") {
  RunningSession session(memory());

  session.client.send(make(Command::write, 9, 0, 64 * 1024 * 1024));

  CHECK(session.client.receive_all().empty());
  CHECK(session.end().error().code == Errc::protocol);
}

TEST_CASE("A bad magic number drops the connection", "[nbd][session][error]") {
  RunningSession session(memory());
  auto const magic = GENERATE(std::uint32_t{0}, extended_request_magic, simple_reply_magic);
  auto bytes = encode(read_request(1, 0, 512));
  store_be(magic, std::span(bytes).first<4>());

  session.client.send(bytes);

  CHECK(session.client.receive_all().empty());
  CHECK(session.end().error().code == Errc::protocol);
}

TEST_CASE("A READ that fails gets one error and leaves the stream in step",
          "[nbd][session][error]") {
  std::mutex mutex;
  std::vector<std::string> log;
  SessionSetup setup;
  setup.on_read_error = [&](std::uint64_t offset, std::uint32_t length, Error const& error) {
    std::lock_guard const lock(mutex);
    log.push_back(std::to_string(offset) + "+" + std::to_string(length) + ": " + error.message());
  };
  RunningSession session(
      AnySource(Flaky(Memory(content()),
                      FlakyPlan{.error = {make_error_code(Errc::unauthorized), "blob"}})),
      setup);
  auto const& client = session.client;

  client.send(read_request(3, 4096, 131'072));

  CHECK(client.simple_reply() == SimpleReply{Errno::io, 3});
  CHECK(client.silent());
  check_in_step(client);
  std::lock_guard const lock(mutex);
  CHECK(log == std::vector<std::string>{"4096+131072: blob: not authorized"});
}

TEST_CASE("A source that keeps failing is asked once a request", "[nbd][session][error]") {
  auto const counted = std::make_shared<std::atomic<unsigned>>(0);
  struct Failing {
    std::shared_ptr<std::atomic<unsigned>> count;
    [[nodiscard]] std::uint64_t size() const noexcept { return 1'000'000; }
    [[nodiscard]] Result<std::size_t> read_at(std::uint64_t, std::span<std::byte>) const {
      ++*count;
      return fail(Errc::unavailable, "registry");
    }
  };
  RunningSession session(AnySource(Failing{counted}));

  for (std::uint64_t i = 0; i < 3; ++i) session.client.send(read_request(i, i * 512, 131'072));

  for (int i = 0; i < 3; ++i) CHECK(session.client.simple_reply().error == Errno::io);
  CHECK(session.client.silent());
  CHECK(*counted == 3);
}

TEST_CASE("A source that ends early is EIO and never zeros", "[nbd][session][error]") {
  SessionSetup setup;
  setup.size = size + 4096;
  RunningSession session(memory(), setup);
  auto const& client = session.client;

  client.send(read_request(1, size - 100, 200));
  CHECK(client.simple_reply() == SimpleReply{Errno::io, 1});
  client.send(read_request(2, size + 1, 200));
  CHECK(client.simple_reply() == SimpleReply{Errno::io, 2});

  CHECK(client.silent());
  check_in_step(client);
}

TEST_CASE("A source that is out of memory is ENOMEM", "[nbd][session][error]") {
  struct Greedy {
    [[nodiscard]] std::uint64_t size() const noexcept { return 1'000'000; }
    [[nodiscard]] Result<std::size_t> read_at(std::uint64_t, std::span<std::byte>) const {
      throw std::bad_alloc();
    }
  };
  RunningSession session(AnySource(Greedy{}));

  session.client.send(read_request(1, 0, 512));
  CHECK(session.client.simple_reply() == SimpleReply{Errno::nomem, 1});
}

TEST_CASE("Reads past the end never reach the source", "[nbd][session]") {
  Gate gate(1000);
  auto const state = gate.state;
  RunningSession session{AnySource(std::move(gate))};

  for (auto const offset : {std::uint64_t{1000}, std::uint64_t{1001}, (std::uint64_t{1} << 54) - 1,
                            (std::uint64_t{1} << 63) - 512, ~std::uint64_t{0}}) {
    session.client.send(read_request(offset, offset, 512));
    CHECK(session.client.simple_reply() == SimpleReply{Errno::inval, offset});
  }

  std::lock_guard const lock(state->mutex);
  CHECK(state->begun == 0);
}

TEST_CASE("A slow READ does not hold up a later one", "[nbd][session]") {
  Gate gate(1000);
  auto const state = gate.state;
  RunningSession session{AnySource(std::move(gate))};
  session.client.send(read_request(1, 0, 10));
  wait_begun(*state, 1);

  session.client.send(make(Command::flush, 2, 0, 0));

  CHECK(session.client.simple_reply() == SimpleReply{Errno::none, 2});
  open(*state);
  CHECK(session.client.simple_reply() == SimpleReply{Errno::none, 1});
  CHECK(session.client.receive(10) == Bytes(10, std::byte{'g'}));
}

TEST_CASE("After DISC all that is in flight is answered", "[nbd][session]") {
  Gate gate(1000);
  auto const state = gate.state;
  RunningSession session{AnySource(std::move(gate))};
  for (std::uint64_t i = 0; i < 10; ++i) session.client.send(read_request(i, i, 10));
  session.client.send(make(Command::disconnect, 0, 0, 0));
  session.client.send(read_request(11, 0, 10));  // after the end: not answered
  wait_begun(*state, 2);

  open(*state);

  CHECK(session.client.receive_all().size() == 10 * (16 + 10));
  CHECK(session.end().value() == SessionEnd::disconnected);
}

TEST_CASE("A session ends when its peer closes the socket during a read", "[nbd][session]") {
  Gate gate(1000);
  auto const state = gate.state;
  RunningSession session{AnySource(std::move(gate))};
  for (std::uint64_t i = 0; i < 50; ++i) session.client.send(read_request(i, i, 10));
  wait_begun(*state, 2);

  session.client.close();
  std::this_thread::sleep_for(100ms);
  open(*state);

  CHECK(session.end().value() == SessionEnd::hung_up);
  std::lock_guard const lock(state->mutex);
  CHECK(state->begun == 2);  // what had not begun never reached the source
}

TEST_CASE("A stop answers what runs, and refuses what waits", "[nbd][session]") {
  Gate gate(1000);
  auto const state = gate.state;
  RunningSession session{AnySource(std::move(gate))};
  for (std::uint64_t i = 0; i < 5; ++i) session.client.send(read_request(i, i, 10));
  wait_begun(*state, 2);
  CHECK(session.client.silent());

  session.stop();
  std::this_thread::sleep_for(100ms);
  open(*state);

  std::size_t good = 0;
  std::size_t refused = 0;
  for (int i = 0; i < 5; ++i) {
    auto const reply = session.client.simple_reply();
    if (reply.error == Errno::none) {
      ++good;
      CHECK(session.client.receive(10).size() == 10);
    } else {
      CHECK(reply.error == Errno::shutdown);
      ++refused;
    }
  }
  CHECK(good == 2);
  CHECK(refused == 3);
  CHECK(session.client.receive_all().empty());
  CHECK(session.end().value() == SessionEnd::stopped);
}

TEST_CASE("An idle session stops at once", "[nbd][session]") {
  RunningSession session(memory());

  session.stop();

  CHECK(session.end().value() == SessionEnd::stopped);
}

TEST_CASE("A client that takes no bytes is dropped after the deadline", "[nbd][session][error]") {
  SessionSetup setup;
  setup.negotiated.send_timeout = 200ms;
  RunningSession session(memory(), setup);
  auto const begin = std::chrono::steady_clock::now();

  for (std::uint64_t i = 0; i < 20; ++i) session.client.send(read_request(i, 0, size));

  CHECK(session.end().error().code == Errc::timed_out);
  CHECK(std::chrono::steady_clock::now() - begin >= 200ms);
}

TEST_CASE("A client that takes bytes slowly is not dropped", "[nbd][session]") {
  SessionSetup setup;
  setup.negotiated.send_timeout = 900ms;
  RunningSession session(memory(), setup);
  session.client.send(read_request(1, 0, size));
  CHECK(session.client.simple_reply() == SimpleReply{Errno::none, 1});

  Bytes got;
  while (got.size() < size) {
    auto const piece = session.client.receive(std::min<std::size_t>(100'000, size - got.size()));
    got.insert(got.end(), piece.begin(), piece.end());
    std::this_thread::sleep_for(150ms);
  }

  CHECK(got == content());
  check_in_step(session.client);
}

TEST_CASE("A session holds no more than its window", "[nbd][session]") {
  Gate gate(1'000'000);
  auto const state = gate.state;
  SessionSetup setup;
  setup.workers = 16;
  SECTION("in requests") {
    setup.limits.requests = 4;
  }
  SECTION("in bytes") {
    setup.limits.bytes = 4 * 10'000;
  }
  RunningSession session(AnySource(std::move(gate)), setup);

  for (std::uint64_t i = 0; i < 12; ++i) session.client.send(read_request(i, i, 10'000));

  wait_begun(*state, 4);
  std::this_thread::sleep_for(100ms);
  {
    std::lock_guard const lock(state->mutex);
    CHECK(state->begun == 4);
  }
  open(*state);
  std::set<std::uint64_t> answered;
  for (int i = 0; i < 12; ++i) {
    answered.insert(session.client.simple_reply().cookie);
    CHECK(session.client.receive(10'000).size() == 10'000);
  }
  CHECK(answered.size() == 12);
}

TEST_CASE("A READ larger than the window is served alone", "[nbd][session]") {
  SessionSetup setup;
  setup.limits.bytes = 1000;
  RunningSession session(memory(), setup);

  session.client.send(read_request(1, 0, 500'000));
  session.client.send(read_request(2, 1, 500'000));

  for (std::uint64_t i = 1; i <= 2; ++i) {
    CHECK(session.client.simple_reply() == SimpleReply{Errno::none, i});
    CHECK(session.client.receive(500'000) == part(i - 1, 500'000));
  }
}

TEST_CASE("With structured replies every answer is a chunk", "[nbd][session]") {
  SessionSetup setup;
  setup.negotiated = {.structured = true, .base_allocation = true};
  setup.zeros_from = size - 3;
  RunningSession session(memory(), setup);
  auto const& client = session.client;
  auto const ask = [&](Request const& request) {
    client.send(request);
    return client.chunk();
  };

  auto const [data, payload] = ask(make(Command::read, 1, 4096, 70'000, command_flag::df));
  CHECK(data == Chunk{Chunk::done, ChunkType::offset_data, 1, 70'008});
  CHECK(hex(std::span(payload).first(8)) == "0000000000001000");
  CHECK(to_bytes(std::span(payload).subspan(8)) == part(4096, 70'000));

  CHECK(ask(make(Command::flush, 2, 0, 0)).first == Chunk{Chunk::done, ChunkType::none, 2, 0});
  CHECK(ask(make(Command::cache, 3, 0, 9)).first == Chunk{Chunk::done, ChunkType::none, 3, 0});
  CHECK(ask(read_request(4, 0, 0)).first == Chunk{Chunk::done, ChunkType::none, 4, 0});

  auto const [refused, why] = ask(make(Command::trim, 5, 0, 9));
  CHECK(refused.type == ChunkType::error);
  CHECK(refused.flags == Chunk::done);
  CHECK(hex(std::span(why).first(4)) == "00000001");
  CHECK(as_text(std::span(why).subspan(6)) == "the export is read-only");

  auto const [status, extents] = ask(make(Command::block_status, 6, size - 10, 10));
  CHECK(status == Chunk{Chunk::done, ChunkType::block_status, 6, 20});
  CHECK(hex(extents) ==
        "00000001"
        "0000000700000000"
        "0000000300000003");
  CHECK(hex(ask(make(Command::block_status, 7, size - 10, 10, command_flag::req_one)).second) ==
        "00000001"
        "0000000700000000");
  CHECK(client.silent());
}

TEST_CASE("A structured error says why and where", "[nbd][session][error]") {
  SessionSetup setup;
  setup.negotiated.structured = true;
  setup.size = size + 4096;
  RunningSession session(
      AnySource(Flaky(Memory(content()),
                      FlakyPlan{.error = {make_error_code(Errc::corrupt), "layer 2: span 7"}})),
      setup);

  session.client.send(read_request(1, 0, 512));
  auto const [failed, why] = session.client.chunk();
  CHECK(failed.type == ChunkType::error);
  CHECK(as_text(std::span(why).subspan(6)) == "layer 2: span 7: corrupt data");

  session.client.send(read_request(2, size - 100, 200));
  auto const [cut, where] = session.client.chunk();
  CHECK(cut.type == ChunkType::error_offset);
  CHECK(load_be<std::uint64_t>(std::span(where).last<8>()) == size);
  CHECK(session.client.silent());
}

TEST_CASE("Many requests at once are all answered, right", "[nbd][session][concurrency]") {
  SessionSetup setup;
  setup.workers = 4;
  setup.limits = {.requests = 16, .bytes = 300'000, .drain_timeout = 5s};
  RunningSession session(memory(), setup);
  auto const& client = session.client;
  constexpr std::uint64_t count = 1000;
  auto const offset_of = [](std::uint64_t i) { return (i * 7919) % (size - 40'000); };
  auto const length_of = [](std::uint64_t i) {
    return static_cast<std::uint32_t>(1 + i * 37 % 40'000);
  };

  std::jthread const sender([&] {
    for (std::uint64_t i = 0; i < count; ++i) {
      client.send(read_request(i, offset_of(i), length_of(i)));
      if (i % 10 == 0) client.send(make(Command::trim, count + i, 0, 512));
    }
  });

  std::set<std::uint64_t> answered;
  std::size_t wrong = 0;
  for (std::uint64_t n = 0; n < count + count / 10; ++n) {
    auto const reply = client.simple_reply();
    answered.insert(reply.cookie);
    if (reply.cookie >= count) {
      wrong += reply.error == Errno::perm ? 0U : 1U;
      continue;
    }
    auto const length = length_of(reply.cookie);
    wrong += client.receive(length) == part(offset_of(reply.cookie), length) ? 0U : 1U;
  }
  CHECK(answered.size() == count + count / 10);
  CHECK(wrong == 0);
}

}  // namespace session_test
}  // namespace erofs_oci::nbd::testing
