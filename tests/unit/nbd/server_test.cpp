// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/nbd/server.hpp>  // first: proves that the header stands alone

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <future>
#include <mutex>
#include <string>
#include <vector>

#include <catch.hpp>
#include <scratch.hpp>

#include <erofs_oci/core/any_source.hpp>
#include <erofs_oci/nbd/handshake.hpp>
#include <erofs_oci/nbd/ioctl_connect.hpp>
#include <erofs_oci/nbd/netlink_connect.hpp>
#include <erofs_oci/nbd/socket_listen.hpp>
#include <erofs_oci/source/memory.hpp>
#include <erofs_oci/testing/generators.hpp>

#include "raw_client.hpp"

namespace erofs_oci::nbd::testing {
namespace server_test {

using erofs_oci::testing::patterned_bytes;

static_assert(std::is_class_v<NbdServer<AnySource, NetlinkConnect>>);
static_assert(std::is_class_v<NbdServer<AnySource, IoctlConnect>>);

constexpr std::size_t size = 1'000'003;

Bytes const& content() {
  static Bytes const bytes = patterned_bytes(size, 2);
  return bytes;
}

/// A connector of ready sockets, with a script: what attach() yields at each call.
struct Scripted {
  struct Log {
    std::atomic<unsigned> attached = 0;
    std::atomic<unsigned> detached = 0;
  };
  static constexpr bool listens = false;
  std::vector<std::vector<UniqueFd>> script{};
  std::shared_ptr<Log> log = std::make_shared<Log>();
  bool fails = false;

  [[nodiscard]] Result<std::vector<UniqueFd>> attach(Export const&, std::stop_token) {
    auto const turn = log->attached++;
    if (fails) return fail(Errc::unsupported, "no module");
    if (turn >= script.size()) return std::vector<UniqueFd>{};
    return std::move(script[turn]);
  }
  [[nodiscard]] Result<std::optional<Negotiated>> negotiate(int, Export const&,
                                                            std::stop_token) const {
    return std::optional(Negotiated{});
  }
  void detach() noexcept { ++log->detached; }
};

TEST_CASE("A server ends when all its sockets have", "[nbd][server]") {
  auto [client, socket] = socket_pair();
  RawClient raw(std::move(client));
  Scripted connect;
  connect.script.emplace_back().push_back(std::move(socket));
  auto const log = connect.log;
  NbdServer server(Memory(content()), std::move(connect));
  unsigned ready = 0;

  auto done =
      std::async(std::launch::async, [&] { return server.run({}, [&](Scripted&) { ++ready; }); });
  raw.send(Request{0, 0, 1, 10, 100});
  CHECK(raw.simple_reply() == SimpleReply{Errno::none, 1});
  CHECK(raw.receive(100) == to_bytes(std::span(content()).subspan(10, 100)));
  raw.send(Request{0, 2, 0, 0, 0});

  CHECK(done.get().has_value());
  CHECK(ready == 1);
  CHECK(log->attached == 1);
  CHECK(log->detached == 0);  // the peer ended it: there is nothing left of ours to take down
}

TEST_CASE("A stop detaches what still lives", "[nbd][server]") {
  auto [client, socket] = socket_pair();
  RawClient const raw(std::move(client));
  Scripted connect;
  connect.script.emplace_back().push_back(std::move(socket));
  auto const log = connect.log;
  NbdServer server(Memory(content()), std::move(connect));
  std::stop_source stop;

  auto done = std::async(std::launch::async, [&] { return server.run(stop.get_token()); });
  raw.send(Request{0, 3, 1, 0, 0});
  CHECK(raw.simple_reply().cookie == 1);
  stop.request_stop();

  CHECK(done.get().has_value());
  CHECK(log->detached == 1);
  CHECK(raw.receive_all().empty());
}

/// Cannot be read from its second block on.
struct Broken {
  [[nodiscard]] static std::uint64_t size() noexcept { return content().size(); }
  [[nodiscard]] static Result<std::size_t> read_at(std::uint64_t offset, std::span<std::byte> out) {
    if (offset + out.size() > 4096)
      return fail(std::make_error_code(std::errc::io_error), "broken");
    return Memory(content()).read_at(offset, out);
  }
};

TEST_CASE("A device is served the bytes of its source, errors and ends", "[nbd][server]") {
  auto [client, socket] = socket_pair();
  RawClient raw(std::move(client));
  Scripted connect;
  connect.script.emplace_back().push_back(std::move(socket));
  std::atomic<unsigned> errors = 0;
  NbdServerOptions options;
  options.on_read_error = [&](auto&&...) { ++errors; };
  NbdServer server(Broken(), std::move(connect), std::move(options));

  auto done = std::async(std::launch::async, [&] { return server.run(); });
  raw.send(Request{0, 0, 1, 0, 4096});
  CHECK(raw.simple_reply() == SimpleReply{Errno::none, 1});
  CHECK(raw.receive(4096) == to_bytes(std::span(content()).first(4096)));
  raw.send(Request{0, 0, 2, 4096, 512});
  CHECK(raw.simple_reply() == SimpleReply{Errno::io, 2});
  raw.send(Request{0, 1, 3, 0, 0});
  CHECK(raw.simple_reply() == SimpleReply{Errno::perm, 3});
  raw.send(Request{0, 0, 4, size, 1});
  CHECK(raw.simple_reply() == SimpleReply{Errno::inval, 4});
  raw.send(Request{0, 2, 0, 0, 0});

  CHECK(done.get().has_value());
  CHECK(errors == 1);
}

TEST_CASE("A server that cannot attach says why and is never ready", "[nbd][server][error]") {
  Scripted connect;
  connect.fails = true;
  NbdServer server(Memory(content()), std::move(connect));
  unsigned ready = 0;

  auto const result = server.run({}, [&](Scripted&) { ++ready; });

  CHECK(result.error().code == Errc::unsupported);
  CHECK(ready == 0);
}

/// A server on a unix socket.
template <class Source>
class Running {
 public:
  explicit Running(Source source, NbdServerOptions options = {}, ListenOptions listen = {})
      : server_(std::move(source), *SocketListen::open_unix(path_, listen), [&] {
          options.on_session_error = [this](Error const& error) {
            std::lock_guard const lock(mutex_);
            errors_.push_back(error);
            reported_.notify_all();
          };
          return std::move(options);
        }()) {
    done_ = std::async(std::launch::async, [this] { return server_.run(stop_.get_token()); });
  }

  ~Running() {
    stop_.request_stop();
    done_.wait();
  }

  Running(Running const&) = delete;
  Running& operator=(Running const&) = delete;

  [[nodiscard]] RawClient connect() const { return connect_unix(path_); }

  /// A client that is through with its handshake.
  [[nodiscard]] RawClient client() const {
    auto raw = connect();
    Bytes bytes;
    append_be(bytes, std::uint32_t{3});
    append(bytes, encode(OptionHeader{Option::export_name, 0}));
    raw.send(bytes);
    CHECK(raw.receive(28).size() == 28);
    return raw;
  }

  /// The code of the first error told of; the client may see its socket close before that.
  [[nodiscard]] std::error_code first_error() {
    std::unique_lock lock(mutex_);
    reported_.wait_for(lock, std::chrono::seconds(20), [this] { return !errors_.empty(); });
    REQUIRE_FALSE(errors_.empty());
    return errors_.front().code;
  }

 private:
  test::Scratch folder_;
  std::string path_ = folder_ / "nbd.sock";
  std::mutex mutex_;
  std::condition_variable reported_;
  std::vector<Error> errors_;
  std::stop_source stop_;
  NbdServer<Source, SocketListen> server_;
  std::future<Result<void>> done_;
};

TEST_CASE("Stalled clients delay no others", "[nbd][server][concurrency]") {
  NbdServerOptions options;
  options.workers = 2;
  Running running(Memory(content()), std::move(options));
  std::vector<RawClient> stalled;
  for (int i = 0; i < 4; ++i) {
    stalled.push_back(running.client());
    for (std::uint64_t n = 0; n < 200; ++n) stalled.back().send(Request{0, 0, n, 0, 500'000});
  }
  std::vector<RawClient> silent;
  for (int i = 0; i < 4; ++i) silent.push_back(running.connect());

  auto const client = running.client();
  for (std::uint64_t n = 0; n < 100; ++n) {
    client.send(Request{0, 0, n, n, 50'000});
    CHECK(client.simple_reply() == SimpleReply{Errno::none, n});
    CHECK(client.receive(50'000) ==
          to_bytes(std::span(content()).subspan(static_cast<std::size_t>(n), 50'000)));
  }
}

TEST_CASE("More clients than allowed are turned away", "[nbd][server][error]") {
  NbdServerOptions options;
  options.max_sessions = 2;
  Running running(Memory(content()), std::move(options));
  auto one = running.client();
  auto const two = running.client();

  CHECK(running.connect().receive_all().empty());
  CHECK(running.first_error() == std::errc::connection_refused);

  one.send(Request{0, 2, 0, 0, 0});
  CHECK(one.receive_all().empty());
  Bytes greeting;
  for (int i = 0; i < 100 && greeting.empty(); ++i) {  // its thread may take a moment to end
    std::this_thread::sleep_for(10ms);
    greeting = running.connect().receive(18);
  }
  CHECK(greeting == Handshake::greeting());
}

TEST_CASE("A silent client makes room, and one that asks does not", "[nbd][server]") {
  NbdServerOptions options;
  options.max_sessions = 2;
  options.idle_after = 1s;
  Running running(Memory(content()), std::move(options));
  auto silent = running.client();
  auto const busy = running.client();
  CHECK(running.connect().receive_all().empty());  // both are too new to be silent
  std::this_thread::sleep_for(1100ms);
  busy.send(Request{0, 0, 1, 0, 10});
  CHECK(busy.simple_reply() == SimpleReply{Errno::none, 1});
  CHECK(busy.receive(10).size() == 10);

  auto const late = running.connect();
  CHECK(late.receive(18) == Handshake::greeting());
  CHECK(silent.receive_all().empty());
  busy.send(Request{0, 0, 2, 0, 10});
  CHECK(busy.simple_reply() == SimpleReply{Errno::none, 2});
}

TEST_CASE("A client that breaks the protocol harms no other", "[nbd][server][error]") {
  Running running{Memory(content())};
  auto const good = running.client();
  auto const bad = running.client();

  bad.send(Bytes(28, std::byte{'x'}));
  CHECK(bad.receive_all().empty());

  good.send(Request{0, 0, 1, 0, 10});
  CHECK(good.simple_reply() == SimpleReply{Errno::none, 1});
  CHECK(running.first_error() == Errc::protocol);
}

TEST_CASE("A client that is slow to shake hands is dropped", "[nbd][server][error]") {
  Running running(Memory(content()), {}, {.handshake_timeout = 200ms});
  auto const slow = running.connect();

  CHECK(slow.receive_all() == Handshake::greeting());

  CHECK(running.first_error() == Errc::timed_out);
}

TEST_CASE("Many clients at once read the right bytes", "[nbd][server][concurrency]") {
  Running running{Memory(content())};
  std::vector<std::future<std::size_t>> clients;
  for (std::uint64_t c = 0; c < 8; ++c) {
    clients.push_back(std::async(std::launch::async, [&running, c] {
      auto const client = running.client();
      std::size_t wrong = 0;
      for (std::uint64_t n = 0; n < 50; ++n) client.send(Request{0, 0, n, c * 1000 + n, 9'999});
      for (std::uint64_t n = 0; n < 50; ++n) {
        auto const reply = client.simple_reply();
        auto const at = static_cast<std::size_t>(c * 1000 + reply.cookie);
        if (client.receive(9'999) != to_bytes(std::span(content()).subspan(at, 9'999))) ++wrong;
      }
      return wrong;
    }));
  }

  for (auto& client : clients) CHECK(client.get() == 0);
}

}  // namespace server_test
}  // namespace erofs_oci::nbd::testing
