// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/nbd/relay.hpp>  // first: proves that the header stands alone

#include <array>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <new>
#include <optional>
#include <random>
#include <thread>

#include <sys/wait.h>
#include <unistd.h>

#include <catch.hpp>
#include <erofs_oci/nbd/engine.hpp>
#include <erofs_oci/source/memory.hpp>
#include <rapidcheck/catch.h>

namespace erofs_oci {
namespace relay_test {

/// How many allocations this thread has left; negative: no end.
thread_local int allocations_left = -1;

void* allocate(std::size_t size) {
  if (allocations_left == 0) throw std::bad_alloc();
  if (allocations_left > 0) --allocations_left;
  if (auto* const memory = std::malloc(size == 0 ? 1 : size)) return memory;
  throw std::bad_alloc();
}

}  // namespace relay_test
}  // namespace erofs_oci

// Weak, since ThreadSanitizer has its own: there no allocation fails.
[[gnu::weak]] void* operator new(std::size_t size) {
  return erofs_oci::relay_test::allocate(size);
}
[[gnu::weak]] void* operator new[](std::size_t size) {
  return erofs_oci::relay_test::allocate(size);
}
// Catch2 allocates by this one, and deletes as everybody does.
[[gnu::weak]] void* operator new(std::size_t size, std::nothrow_t const&) noexcept {
  return std::malloc(size == 0 ? 1 : size);
}
[[gnu::weak]] void operator delete(void* memory) noexcept {
  std::free(memory);
}
[[gnu::weak]] void operator delete[](void* memory) noexcept {
  std::free(memory);
}
[[gnu::weak]] void operator delete(void* memory, std::size_t) noexcept {
  std::free(memory);
}
[[gnu::weak]] void operator delete[](void* memory, std::size_t) noexcept {
  std::free(memory);
}

namespace erofs_oci {
namespace relay_test {

using namespace std::chrono_literals;
using nbd::Errno;
using nbd::Request;
using EngineId = NbdRelay::EngineId;

constexpr std::size_t device_size = 8u << 20;

std::byte byte_at(std::uint64_t offset) {
  auto x = offset * 0x9E3779B97F4A7C15ull;
  return static_cast<std::byte>((x ^ (x >> 29)) >> 32);
}

Bytes device_bytes() {
  Bytes bytes(device_size);
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = byte_at(i);
  return bytes;
}

std::pair<UniqueFd, UniqueFd> sockets() {
  std::array<int, 2> fds{};
  REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds.data()) == 0);
  return {UniqueFd(fds[0]), UniqueFd(fds[1])};
}

Export served() {
  Export result;
  result.size = device_size;
  return result;
}

/// The kernel's end of a socket: sends requests and takes replies, without blocking.
class FakeKernel {
 public:
  explicit FakeKernel(UniqueFd fd) : fd_(std::move(fd)) {}

  std::uint64_t ask(nbd::Command command, std::uint64_t offset, std::uint32_t length) {
    Request const request{0, static_cast<std::uint16_t>(command), ++cookie_, offset, length};
    auto const raw = encode(request);
    REQUIRE(::send(fd_.get(), raw.data(), raw.size(), MSG_NOSIGNAL) == ssize_t(raw.size()));
    waiting_.emplace(request.cookie, request);
    return request.cookie;
  }

  void send_raw(std::span<std::byte const> bytes) {
    REQUIRE(::send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL) == ssize_t(bytes.size()));
  }

  /// A request that is sent by send_raw().
  void expect(Request const& request) { waiting_.emplace(request.cookie, request); }

  /// Takes what has come; checks every byte.
  void take() {
    std::array<std::byte, 65536> buffer{};
    for (;;) {
      auto const n = ::recv(fd_.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
      if (n <= 0) {
        closed_ = closed_ || n == 0;
        break;
      }
      input_.insert(input_.end(), buffer.begin(), buffer.begin() + n);
    }
    while (take_reply()) {}
  }

  [[nodiscard]] std::size_t waiting() const { return waiting_.size(); }
  [[nodiscard]] bool closed() const { return closed_; }
  [[nodiscard]] int fd() const { return fd_.get(); }
  std::map<std::uint64_t, Errno> answers{};  // by cookie

 private:
  bool take_reply() {
    if (input_.size() < nbd::SimpleReply::wire_size) return false;
    auto const raw = std::span<std::byte const>(input_);
    auto const reply = nbd::decode_simple_reply(raw.first<nbd::SimpleReply::wire_size>());
    REQUIRE(reply);
    auto const asked = waiting_.find(reply->cookie);
    REQUIRE(asked != waiting_.end());
    auto const& request = asked->second;
    auto const data = reply->error == Errno::none && request.is(nbd::Command::read)
                          ? std::size_t{request.length}
                          : 0;
    if (input_.size() < raw.size() - (raw.size() - nbd::SimpleReply::wire_size) + data)
      return false;
    for (std::size_t i = 0; i < data; ++i) {
      if (raw[nbd::SimpleReply::wire_size + i] != byte_at(request.offset + i)) {
        FAIL("wrong byte at " << request.offset + i);
      }
    }
    answers.emplace(reply->cookie, reply->error);
    waiting_.erase(asked);
    input_.erase(input_.begin(),
                 input_.begin() + static_cast<std::ptrdiff_t>(nbd::SimpleReply::wire_size + data));
    return true;
  }

  UniqueFd fd_;
  std::uint64_t cookie_ = 0;
  std::map<std::uint64_t, Request> waiting_{};
  Bytes input_{};
  bool closed_ = false;
};

NbdRelay make_relay(std::vector<UniqueFd> fds, NbdRelayOptions options = {}) {
  auto relay = NbdRelay::make(served(), std::move(fds), options);
  REQUIRE(relay);
  return *std::move(relay);
}

void turn(NbdRelay& relay, std::chrono::milliseconds wait = 0ms) {
  std::vector<pollfd> fds;
  relay.watch(fds);
  ::poll(fds.data(), fds.size(), static_cast<int>(wait.count()));
  relay.act(fds);
}

template <class Done>
void turn_until(NbdRelay& relay, Done const& done) {
  auto const end = std::chrono::steady_clock::now() + 20s;
  while (!done()) {
    REQUIRE(std::chrono::steady_clock::now() < end);
    turn(relay, 5ms);
  }
}

/// An engine whose every step the test decides.
struct ManualEngine {
  UniqueFd channel;
  SharedMemory arena;
  std::deque<nbd::EngineRequest> requests{};

  static std::pair<EngineId, ManualEngine> add(NbdRelay& relay) {
    auto added = relay.add_engine();
    REQUIRE(added);
    auto arena = SharedMemory::map(std::move(added->second.arena));
    REQUIRE(arena);
    return {added->first, ManualEngine{std::move(added->second.channel), *std::move(arena)}};
  }

  void take() {
    nbd::Packet<nbd::EngineRequest> packet;
    for (;;) {
      auto const n =
          ::recv(channel.get(), packet.room().data(), packet.room().size(), MSG_DONTWAIT);
      if (n <= 0) return;
      for (std::size_t i = 0; i < packet.count(std::size_t(n)); ++i) requests.push_back(packet[i]);
    }
  }

  void write_data(nbd::EngineRequest const& request) {
    for (std::uint32_t i = 0; i < request.length; ++i) {
      arena.bytes()[request.place + i] = byte_at(request.offset + i);
    }
  }

  void answer(std::uint64_t id, Errno error = Errno::none) {
    nbd::EngineAnswer const message{id, static_cast<std::uint32_t>(error)};
    ::send(channel.get(), &message, sizeof message, MSG_NOSIGNAL);
  }

  void answer_all() {
    take();
    for (auto const& request : std::exchange(requests, {})) {
      write_data(request);
      answer(request.id);
    }
  }
};

struct OneSocket {
  FakeKernel kernel;
  NbdRelay relay;

  static OneSocket make(NbdRelayOptions options = {}) {
    auto [ours, theirs] = sockets();
    std::vector<UniqueFd> fds;
    fds.push_back(std::move(ours));
    return {FakeKernel(std::move(theirs)), make_relay(std::move(fds), options)};
  }
};

TEST_CASE("A relay answers a read with what its engine wrote", "[nbd][relay]") {
  auto [kernel, relay] = OneSocket::make();
  auto [id, engine] = ManualEngine::add(relay);
  relay.activate(id);
  auto const cookie = kernel.ask(nbd::Command::read, 4096, 12345);
  turn(relay);
  engine.answer_all();
  turn(relay);
  kernel.take();
  CHECK(kernel.answers.at(cookie) == Errno::none);
  CHECK(relay.counters().requests == 1);
  CHECK(relay.counters().bytes == 12345);
  CHECK(relay.in_flight() == 0);
}

TEST_CASE("A failed read is an error and no byte", "[nbd][relay]") {
  auto [kernel, relay] = OneSocket::make();
  auto [id, engine] = ManualEngine::add(relay);
  relay.activate(id);
  auto const cookie = kernel.ask(nbd::Command::read, 0, 512);
  turn(relay);
  engine.take();
  engine.answer(engine.requests.at(0).id, Errno::io);
  turn(relay);
  kernel.take();
  CHECK(kernel.answers.at(cookie) == Errno::io);
  CHECK(relay.counters().errors == 1);
}

TEST_CASE("What needs no source is answered by the relay", "[nbd][relay]") {
  auto [kernel, relay] = OneSocket::make();
  auto const [command, offset, length, error] =
      GENERATE(table<nbd::Command, std::uint64_t, std::uint32_t, Errno>(
          {{nbd::Command::flush, 0, 0, Errno::none},
           {nbd::Command::trim, 0, 4096, Errno::perm},
           {nbd::Command::write_zeroes, 0, 4096, Errno::perm},
           {nbd::Command::cache, 0, 4096, Errno::none},
           {nbd::Command::block_status, 0, 4096, Errno::inval},
           {nbd::Command{99}, 0, 0, Errno::inval},
           {nbd::Command::read, 0, 0, Errno::none},
           {nbd::Command::read, device_size, 1, Errno::inval},
           {nbd::Command::read, device_size - 1, 2, Errno::inval},
           {nbd::Command::read, std::uint64_t(-1), 512, Errno::inval}}));
  auto const cookie = kernel.ask(command, offset, length);
  turn(relay);
  kernel.take();
  CHECK(kernel.answers.at(cookie) == error);
}

TEST_CASE("A WRITE's payload is dropped before it is refused", "[nbd][relay]") {
  auto [kernel, relay] = OneSocket::make();
  auto const cookie = kernel.ask(nbd::Command::write, 0, 100'000);
  Bytes const payload(100'000, std::byte{0x25});
  auto half = std::span(payload).first(70'000);
  kernel.send_raw(half);
  turn(relay);
  turn(relay);
  kernel.take();
  CHECK(kernel.waiting() == 1);
  kernel.send_raw(std::span(payload).subspan(70'000));
  auto const flush = kernel.ask(nbd::Command::flush, 0, 0);
  for (int i = 0; i < 100 && kernel.waiting() != 0; ++i) {
    turn(relay, 1ms);
    kernel.take();
  }
  CHECK(kernel.answers.at(cookie) == Errno::perm);
  CHECK(kernel.answers.at(flush) == Errno::none);
}

TEST_CASE("DISC, a closed socket and garbage end a relay", "[nbd][relay]") {
  auto [ours, theirs] = sockets();
  std::vector<UniqueFd> fds;
  fds.push_back(std::move(ours));
  auto relay = make_relay(std::move(fds));
  SECTION("DISC") {
    FakeKernel kernel(std::move(theirs));
    kernel.ask(nbd::Command::disconnect, 0, 0);
    turn(relay);
    CHECK(relay.ended() == NbdRelayEnd::disconnected);
  }
  SECTION("closed") {
    theirs.reset();
    turn(relay);
    CHECK(relay.ended() == NbdRelayEnd::hung_up);
  }
  SECTION("garbage") {
    FakeKernel kernel(std::move(theirs));
    kernel.send_raw(Bytes(28, std::byte{1}));
    turn(relay);
    CHECK(relay.ended() == NbdRelayEnd::hung_up);
    CHECK_FALSE(relay.complaint().empty());
  }
}

TEST_CASE("An engine is given nothing before it is active", "[nbd][relay]") {
  auto [kernel, relay] = OneSocket::make();
  auto [id, engine] = ManualEngine::add(relay);
  kernel.ask(nbd::Command::read, 0, 4096);
  turn(relay);
  engine.take();
  CHECK(engine.requests.empty());
  std::optional<bool> good;
  relay.probe(id, 1024, 512, [&](Result<std::span<std::byte const>> bytes) {
    good = bytes && (*bytes)[0] == byte_at(1024) && bytes->size() == 512;
  });
  engine.answer_all();
  turn(relay);
  CHECK(good == true);
  relay.activate(id);
  engine.answer_all();
  turn(relay);
  kernel.take();
  CHECK(kernel.waiting() == 0);
}

TEST_CASE("A dead engine's requests go to the next one, once", "[nbd][relay]") {
  auto [kernel, relay] = OneSocket::make();
  auto [first, dead] = ManualEngine::add(relay);
  relay.activate(first);
  for (std::uint32_t i = 0; i < 20; ++i) kernel.ask(nbd::Command::read, i * 4096, 4096);
  turn(relay);
  dead.take();
  REQUIRE(dead.requests.size() == 20);
  dead.write_data(dead.requests[0]);
  dead.answer(dead.requests[0].id);  // on its way when it dies
  dead.channel.reset();
  turn(relay);
  kernel.take();
  CHECK(kernel.answers.size() == 1);
  CHECK(relay.unanswered(first) == 19);
  relay.remove_engine(first);
  auto [second, engine] = ManualEngine::add(relay);
  turn(relay);
  relay.activate(second);
  engine.answer_all();
  turn(relay);
  kernel.take();
  CHECK(kernel.waiting() == 0);
  CHECK(relay.counters().taken_over == 19);
}

TEST_CASE("A read that crashes every engine is answered with an error", "[nbd][relay]") {
  auto [kernel, relay] = OneSocket::make({.suspect_after = 2, .refuse_after = 3});
  std::vector<std::uint64_t> innocent;
  for (int i = 0; i < 4; ++i) innocent.push_back(kernel.ask(nbd::Command::read, 0, 512));
  auto const killer = kernel.ask(nbd::Command::read, 1 << 20, 512);
  for (int i = 0; i < 4; ++i) innocent.push_back(kernel.ask(nbd::Command::read, 4096, 512));

  unsigned deaths = 0;
  for (bool lives = false; !lives; deaths += lives ? 0 : 1) {
    auto [id, engine] = ManualEngine::add(relay);
    relay.activate(id);
    lives = true;
    // What it gets: it dies of one, and of the others as well if it has them at that time.
    for (int i = 0; i < 100 && lives && kernel.waiting() > 0; ++i) {
      turn(relay);
      engine.take();
      lives = std::ranges::none_of(engine.requests,
                                   [](auto const& request) { return request.offset == 1 << 20; });
      if (lives) engine.answer_all();
      turn(relay);
      kernel.take();
    }
    if (!lives) relay.remove_engine(id, EngineEnd::crashed);
  }

  CHECK(deaths == 5);
  CHECK(kernel.answers.at(killer) == Errno::io);
  for (auto const cookie : innocent) CHECK(kernel.answers.at(cookie) == Errno::none);
  CHECK(kernel.waiting() == 0);
  CHECK(relay.complaint() == "a READ of 512 bytes at offset 1048576 has crashed 5 processes");
}

TEST_CASE("A suspect that is answered is one no more", "[nbd][relay]") {
  auto [kernel, relay] = OneSocket::make({.suspect_after = 1, .refuse_after = 1});
  auto const cookie = kernel.ask(nbd::Command::read, 0, 512);
  {
    auto [id, engine] = ManualEngine::add(relay);
    relay.activate(id);
    turn(relay);
    relay.remove_engine(id, EngineEnd::crashed);
  }
  auto [id, engine] = ManualEngine::add(relay);
  relay.activate(id);
  kernel.ask(nbd::Command::read, 512, 512);
  turn(relay);
  engine.take();
  REQUIRE(engine.requests.size() == 1);  // alone
  std::vector<pollfd> fds;
  relay.watch(fds);
  CHECK(::poll(fds.data(), fds.size(), 0) == 0);  // nothing to do until it is answered
  for (int i = 0; i < 3; ++i) {
    engine.answer_all();
    turn(relay);
  }
  kernel.take();
  CHECK(kernel.answers.at(cookie) == Errno::none);
  CHECK(kernel.waiting() == 0);
  for (int i = 0; i < 8; ++i) kernel.ask(nbd::Command::read, 512, 512);
  turn(relay);
  engine.take();
  CHECK(engine.requests.size() == 8);
}

TEST_CASE("A planned handover repeats nothing", "[nbd][relay]") {
  auto [kernel, relay] = OneSocket::make();
  auto [first, old] = ManualEngine::add(relay);
  relay.activate(first);
  auto const before = kernel.ask(nbd::Command::read, 0, 4096);
  turn(relay);
  old.take();
  auto [second, young] = ManualEngine::add(relay);
  relay.activate(second);
  auto const after = kernel.ask(nbd::Command::read, 8192, 4096);
  turn(relay);
  young.take();
  CHECK(old.requests.size() == 1);
  CHECK(young.requests.size() == 1);
  CHECK(relay.unanswered(first) == 1);
  old.write_data(old.requests[0]);
  old.answer(old.requests[0].id);
  young.write_data(young.requests[0]);
  young.answer(young.requests[0].id);
  turn(relay);
  relay.remove_engine(first);
  kernel.take();
  CHECK(kernel.answers.at(before) == Errno::none);
  CHECK(kernel.answers.at(after) == Errno::none);
  CHECK(relay.counters().taken_over == 0);
}

TEST_CASE("Sockets go from one relay to the next without a request lost or repeated",
          "[nbd][relay]") {
  auto [kernel, old] = OneSocket::make();
  auto [first, before] = ManualEngine::add(old);
  old.activate(first);
  kernel.ask(nbd::Command::read, 0, 4096);
  turn(old);
  auto young = make_relay({});
  auto [second, after] = ManualEngine::add(young);
  std::optional<bool> good;
  young.probe(second, 0, 512, [&](auto bytes) { good = bytes.has_value(); });
  after.answer_all();
  turn(young);
  CHECK(good == true);

  // Whole requests behind the first wait in the socket; half of one may have been read.
  Request const request{0, 0, 77, 8192, 4096};
  auto const raw = encode(request);
  auto const half = GENERATE(0u, 1u, 27u);
  kernel.send_raw(std::span(raw).first(half));
  turn(old);
  old.pause();
  CHECK_FALSE(old.is_idle());
  before.answer_all();
  turn(old);
  REQUIRE(old.is_idle());
  kernel.expect(request);
  kernel.send_raw(std::span(raw).subspan(half));
  turn(old);
  auto sockets = old.release_sockets();
  REQUIRE(sockets.size() == 1);
  CHECK(sockets[0].unread.size() == half);
  REQUIRE(young.add_socket(std::move(sockets[0])));
  young.activate(second);
  for (int i = 0; i < 3; ++i) {
    turn(young);
    after.answer_all();
  }
  turn(young);
  kernel.take();
  CHECK(kernel.waiting() == 0);
  CHECK(kernel.answers.at(77) == Errno::none);
  CHECK(old.counters().requests == 1);
  CHECK(young.counters().requests == 1);
  CHECK_FALSE(young.add_socket({{}, Bytes(28)}));
}

TEST_CASE("Sockets that were released and not taken are served again", "[nbd][relay]") {
  auto [kernel, relay] = OneSocket::make();
  auto [id, engine] = ManualEngine::add(relay);
  relay.activate(id);
  relay.pause();
  REQUIRE(relay.is_idle());
  auto const cookie = kernel.ask(nbd::Command::read, 0, 4096);
  auto sockets = relay.release_sockets();
  REQUIRE(sockets.size() == 1);
  turn(relay);
  CHECK_FALSE(relay.ended());

  relay.resume();
  REQUIRE(relay.add_socket(std::move(sockets[0])));
  turn(relay);
  engine.answer_all();
  turn(relay);
  kernel.take();
  CHECK(kernel.answers.at(cookie) == Errno::none);
}

TEST_CASE("An engine with wrong answers does no harm", "[nbd][relay]") {
  auto [kernel, relay] = OneSocket::make();
  auto [first, liar] = ManualEngine::add(relay);
  relay.activate(first);
  auto const cookie = kernel.ask(nbd::Command::read, 0, 4096);
  turn(relay);
  liar.take();
  auto const id = liar.requests.at(0).id;
  SECTION("an unknown number") {
    liar.answer(id + 1000);
  }
  SECTION("an unknown error") {
    liar.answer(id, Errno{12345});
  }
  SECTION("no packet of answers") {
    ::send(liar.channel.get(), "hello", 5, MSG_NOSIGNAL);
  }
  SECTION("a packet too long") {
    Bytes const longest((nbd::most_in_packet + 1) * sizeof(nbd::EngineAnswer));
    ::send(liar.channel.get(), longest.data(), longest.size(), MSG_NOSIGNAL);
  }
  SECTION("another engine's number") {
    auto [other, thief] = ManualEngine::add(relay);
    thief.answer(id);
    turn(relay);
    CHECK_FALSE(relay.complaint().empty());
    liar.write_data(liar.requests[0]);
    liar.answer(id);
    liar.answer(id);  // twice
  }
  turn(relay);
  CHECK_FALSE(relay.complaint().empty());
  relay.remove_engine(first);
  auto [second, honest] = ManualEngine::add(relay);
  relay.activate(second);
  honest.answer_all();
  turn(relay);
  kernel.take();
  CHECK(kernel.answers.at(cookie) == Errno::none);
  CHECK_FALSE(kernel.closed());
}

TEST_CASE("Requests wait for room", "[nbd][relay]") {
  auto [kernel, relay] = OneSocket::make({.arena = 64 * 1024, .requests = 8});
  auto [id, engine] = ManualEngine::add(relay);
  relay.activate(id);
  for (std::uint32_t i = 0; i < 200; ++i) {
    kernel.ask(nbd::Command::read, i * 100, i % 3 == 0 ? 40'000 : 5'000);
  }
  auto const large = kernel.ask(nbd::Command::read, 0, 65 * 1024);
  turn_until(relay, [&] {
    engine.take();
    CHECK(engine.requests.size() <= 8);
    engine.answer_all();
    kernel.take();
    return kernel.waiting() == 0;
  });
  CHECK(kernel.answers.at(large) == Errno::inval);
}

TEST_CASE("A hang-up is noticed although no request more is taken", "[nbd][relay]") {
  auto [ours, theirs] = sockets();
  std::vector<UniqueFd> fds;
  fds.push_back(std::move(ours));
  auto relay = make_relay(std::move(fds), {.arena = 64 * 1024, .requests = 2});
  {
    FakeKernel kernel(std::move(theirs));
    auto const length = GENERATE(512U, 48U * 1024);  // as many as there may be; as long
    for (int i = 0; i < 3; ++i) kernel.ask(nbd::Command::read, 0, length);
    if (GENERATE(false, true)) relay.pause();
    turn(relay);
  }
  turn(relay);
  CHECK(relay.ended() == NbdRelayEnd::hung_up);
  std::vector<pollfd> watched;
  relay.watch(watched);
  CHECK(::poll(watched.data(), watched.size(), 0) == 0);  // or the caller would spin
}

TEST_CASE("Answers without data count as in flight until they are sent", "[nbd][relay]") {
  auto [kernel, relay] = OneSocket::make({.requests = 4});
  int const small = 1;
  ::setsockopt(kernel.fd(), SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
  std::size_t asked = 0;
  for (; asked < 20'000; ++asked) {
    Request const request{0, static_cast<std::uint16_t>(nbd::Command::flush), 1000 + asked, 0, 0};
    auto const raw = encode(request);
    if (::send(kernel.fd(), raw.data(), raw.size(), MSG_NOSIGNAL | MSG_DONTWAIT) < 0) break;
    kernel.expect(request);
    turn(relay);
  }
  CHECK(asked < 20'000);  // the relay takes no more, and the kernel has to wait
  turn_until(relay, [&] {
    kernel.take();
    return kernel.waiting() == 0;
  });
}

TEST_CASE("The callback of a probe may add sockets and engines", "[nbd][relay]") {
  auto [kernel, relay] = OneSocket::make();
  auto [id, engine] = ManualEngine::add(relay);
  std::vector<FakeKernel> more;
  relay.probe(id, 0, 512, [&, first = id](auto bytes) {
    CHECK(bytes);
    for (int i = 0; i < 20; ++i) {
      auto [ours, theirs] = sockets();
      more.emplace_back(std::move(theirs)).ask(nbd::Command::read, 0, 512);
      REQUIRE(relay.add_socket({std::move(ours), {}}));
      REQUIRE(relay.add_engine());
    }
    relay.activate(first);
  });
  kernel.ask(nbd::Command::read, 512, 512);
  turn_until(relay, [&] {
    engine.answer_all();
    kernel.take();
    auto waiting = kernel.waiting() + (more.empty() ? 1 : 0);
    for (auto& each : more) each.take();
    for (auto const& each : more) waiting += each.waiting();
    return waiting == 0;
  });
}

TEST_CASE("A socket that was closed in the middle of a WRITE keeps no relay busy", "[nbd][relay]") {
  auto [ours, theirs] = sockets();
  auto [others, kept] = sockets();
  std::vector<UniqueFd> fds;
  fds.push_back(std::move(ours));
  fds.push_back(std::move(others));
  auto relay = make_relay(std::move(fds));
  FakeKernel(std::move(theirs)).ask(nbd::Command::write, 0, 4096);
  turn(relay);
  turn(relay);
  relay.pause();
  CHECK(relay.is_idle());
  CHECK(relay.release_sockets().size() == 1);
}

TEST_CASE("A relay without memory answers ENOMEM and loses nothing", "[nbd][relay][error]") {
  auto const allowed = GENERATE(range(0, 12));
  auto [kernel, relay] = OneSocket::make({.arena = 64 * 1024});
  auto [first, dead] = ManualEngine::add(relay);
  auto [second, engine] = ManualEngine::add(relay);
  relay.activate(first);
  kernel.ask(nbd::Command::read, 0, 4096);
  turn(relay);
  for (std::uint32_t i = 0; i < 30; ++i) kernel.ask(nbd::Command::read, i * 512, 4096 + i % 3);
  std::vector<pollfd> fds;
  relay.watch(fds);
  ::poll(fds.data(), fds.size(), 0);
  allocations_left = allowed;
  relay.act(fds);
  relay.remove_engine(first, EngineEnd::crashed);
  relay.activate(second);
  allocations_left = -1;
  turn_until(relay, [&] {
    engine.answer_all();
    kernel.take();
    return kernel.waiting() == 0;
  });
  for (auto const& [cookie, error] : kernel.answers) {
    CHECK((error == Errno::none || error == Errno::nomem));
  }
  CHECK(kernel.answers.at(1) == Errno::none);
  CHECK(relay.in_flight() == 0);
  auto const whole = kernel.ask(nbd::Command::read, 0, 64 * 1024);  // nothing of the arena is lost
  turn_until(relay, [&] {
    engine.answer_all();
    kernel.take();
    return kernel.waiting() == 0;
  });
  CHECK(kernel.answers.at(whole) == Errno::none);
}

TEST_CASE("Ranges of an arena never overlap and always come back", "[nbd][relay]") {
  rc::prop("allocator", [] {
    constexpr std::size_t size = 32 * nbd::ArenaRanges::granule;
    nbd::ArenaRanges ranges(size);
    std::map<std::size_t, std::size_t> taken;  // start -> length asked
    auto const steps = *rc::gen::container<std::vector<std::pair<bool, std::size_t>>>(
        rc::gen::pair(rc::gen::arbitrary<bool>(), rc::gen::inRange<std::size_t>(0, size + 2)));
    for (auto const& [takes, number] : steps) {
      if (takes) {
        auto const start = ranges.take(number);
        if (!start) continue;
        RC_ASSERT(*start + number <= size);
        auto const next = taken.lower_bound(*start);
        if (next != taken.end())
          RC_ASSERT(*start + std::max<std::size_t>(number, 1) <= next->first);
        if (next != taken.begin()) {
          auto const before = std::prev(next);
          RC_ASSERT(before->first + std::max<std::size_t>(before->second, 1) <= *start);
        }
        taken.emplace(*start, number);
      } else if (!taken.empty()) {
        auto const victim = std::next(taken.begin(), std::ptrdiff_t(number % taken.size()));
        ranges.give_back(victim->first, victim->second);
        taken.erase(victim);
      }
    }
    for (auto const& [start, length] : taken) ranges.give_back(start, length);
    RC_ASSERT(ranges.take(size) == std::optional<std::size_t>(0));
  });
}

TEST_CASE("Every read is answered once and right, also when engines are killed", "[nbd][relay]") {
  rc::prop("schedules", [] {
    auto const count = *rc::gen::inRange<std::size_t>(1, 4);
    std::vector<UniqueFd> fds;
    std::vector<FakeKernel> kernels;
    for (std::size_t i = 0; i < count; ++i) {
      auto [ours, theirs] = sockets();
      int const small = 4096;  // replies go out in pieces
      ::setsockopt(ours.get(), SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
      fds.push_back(std::move(ours));
      kernels.emplace_back(std::move(theirs));
    }
    auto relay = make_relay(std::move(fds), {.arena = 256 * 1024,
                                             .requests = 4,
                                             .suspect_after = *rc::gen::inRange(1U, 4U),
                                             .refuse_after = 1'000'000});
    std::map<EngineId, ManualEngine> engines;
    auto const steps = *rc::gen::container<std::vector<std::pair<int, std::uint32_t>>>(
        rc::gen::pair(rc::gen::inRange(0, 9), rc::gen::inRange<std::uint32_t>(1, 200'000)));
    for (auto const& [step, number] : steps) {
      auto& kernel = kernels[number % count];
      auto const some = engines.empty()
                            ? engines.end()
                            : std::next(engines.begin(), std::ptrdiff_t(number % engines.size()));
      if (step <= 2 && kernel.waiting() < 30) {
        kernel.ask(nbd::Command::read, number % 1000, number);
      } else if (step == 3) {
        auto [id, engine] = ManualEngine::add(relay);
        engines.emplace(id, std::move(engine));
      } else if (step == 4 && some != engines.end()) {
        relay.activate(some->first);
      } else if (step == 5 && some != engines.end()) {  // killed, at whatever it was
        some->second.take();
        if (!some->second.requests.empty()) some->second.write_data(some->second.requests[0]);
        relay.remove_engine(some->first, number % 2 == 0 ? EngineEnd::crashed : EngineEnd::killed);
        engines.erase(some);
      } else if (step == 6 && some != engines.end()) {
        some->second.answer_all();
      } else if (step == 7) {
        kernel.take();
      }
      turn(relay);
    }
    auto [id, engine] = ManualEngine::add(relay);
    relay.activate(id);
    turn_until(relay, [&] {
      engine.answer_all();
      for (auto& [other, each] : engines) each.answer_all();
      auto waiting = std::size_t{0};
      for (auto& kernel : kernels) {
        kernel.take();
        waiting += kernel.waiting();
      }
      return waiting == 0;
    });
    for (auto const& kernel : kernels) {
      for (auto const& [cookie, error] : kernel.answers) RC_ASSERT(error == Errno::none);
    }
    RC_ASSERT(relay.in_flight() == 0U);
  });
}

// ---------------------------------------------------------------- with processes

/// A child that serves like a daemon, until it is killed.
struct Child {
  pid_t pid = -1;
  EngineId id = 0;

  static Child start(NbdRelay& relay) {
    auto added = relay.add_engine();
    REQUIRE(added);
    Child child;
    child.id = added->first;
    child.pid = ::fork();
    if (child.pid == 0) {
      relay.close_engines();  // its copies of the other ends
      auto engine =
          NbdEngine<Memory>::open(Memory(device_bytes()), std::move(added->second), {.workers = 4});
      if (engine) static_cast<void>(engine->run({}));
      ::_exit(0);
    }
    return child;
  }

  void kill() const {
    ::kill(pid, SIGKILL);
    ::waitpid(pid, nullptr, 0);
  }
};

TEST_CASE("200 kills are not noticed", "[nbd][relay][threads]") {
  auto [kernel, relay] = OneSocket::make();
  std::mt19937 random(20261125);
  auto child = Child::start(relay);
  relay.activate(child.id);
  int kills = 0;
  auto next = std::chrono::steady_clock::now();
  std::size_t asked = 0;
  while (kills < 200 || kernel.waiting() != 0) {
    while (kills < 200 && kernel.waiting() < 32) {
      auto const length = std::uint32_t(1 + random() % 300'000);
      kernel.ask(nbd::Command::read, random() % (device_size - length), length);
      ++asked;
    }
    turn(relay, 1ms);
    kernel.take();
    if (kills < 200 && std::chrono::steady_clock::now() >= next) {
      child.kill();
      relay.remove_engine(child.id);
      child = Child::start(relay);
      relay.activate(child.id);
      ++kills;
      next = std::chrono::steady_clock::now() + std::chrono::microseconds(random() % 30'000);
    }
    REQUIRE_FALSE(relay.ended());
  }
  child.kill();
  CHECK(kernel.answers.size() == asked);
  for (auto const& [cookie, error] : kernel.answers) CHECK(error == Errno::none);
  CHECK(relay.counters().requests == asked);
}

TEST_CASE("An engine ends when its relay goes", "[nbd][relay][threads]") {
  auto relay = std::make_unique<OneSocket>(OneSocket::make());
  auto const child = Child::start(relay->relay);
  relay->relay.close_engines();
  int status = 0;
  REQUIRE(::waitpid(child.pid, &status, 0) == child.pid);
  CHECK(WIFEXITED(status));
}

}  // namespace relay_test
}  // namespace erofs_oci
