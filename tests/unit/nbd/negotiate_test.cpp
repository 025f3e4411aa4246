// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/nbd/negotiate.hpp>  // first: proves that the header stands alone

#include <atomic>
#include <future>

#include <catch.hpp>

#include "raw_client.hpp"

namespace erofs_oci::nbd::testing {
namespace negotiate_test {

/// A handshake on a thread of its own.
class RunningHandshake {
 public:
  explicit RunningHandshake(std::chrono::milliseconds limit = 10s)
      : RunningHandshake(limit, socket_pair()) {}

  ~RunningHandshake() { client.close(); }

  [[nodiscard]] Result<std::optional<Negotiated>> result() { return result_.get(); }
  void stop() { stop_.request_stop(); }

  RawClient client;

 private:
  RunningHandshake(std::chrono::milliseconds limit, std::pair<UniqueFd, UniqueFd> sockets)
      : client(std::move(sockets.first)), socket_(std::move(sockets.second)) {
    result_ = std::async(std::launch::async, [this, limit] {
      auto result = negotiate(socket_.get(), served_, stop_.get_token(), limit);
      socket_.reset();
      return result;
    });
  }

  Export served_{.size = 4096};
  UniqueFd socket_;
  std::stop_source stop_;
  std::future<Result<std::optional<Negotiated>>> result_;
};

Bytes flags(std::uint32_t value = 3) {
  Bytes bytes;
  append_be(bytes, value);
  return bytes;
}

TEST_CASE("negotiate() takes a client to the transmission", "[nbd][negotiate]") {
  RunningHandshake talk;
  CHECK(talk.client.receive(18) == Handshake::greeting());

  talk.client.send(flags());
  talk.client.send(encode(OptionHeader{Option::structured_reply, 0}));
  CHECK(talk.client.receive(20).size() == 20);
  talk.client.send(encode(OptionHeader{Option::go, 6}));
  talk.client.send(Bytes(6));

  CHECK(talk.client.receive(20 + 12 + 20).size() == 52);
  auto const result = talk.result();
  REQUIRE(result.has_value());
  REQUIRE(result->has_value());
  CHECK((*result)->structured);
}

TEST_CASE("negotiate() leaves the first request to the session", "[nbd][negotiate]") {
  RunningHandshake talk;
  Bytes all = flags();
  append(all, encode(OptionHeader{Option::export_name, 0}));
  append(all, encode(Request{0, 0, 5, 0, 512}));

  talk.client.send(all);

  CHECK(talk.client.receive(18 + 10).size() == 28);
  CHECK(talk.result().value().has_value());
}

TEST_CASE("negotiate() skips an option with too much data", "[nbd][negotiate][error]") {
  RunningHandshake talk;
  CHECK(talk.client.receive(18).size() == 18);
  talk.client.send(flags());
  talk.client.send(encode(OptionHeader{Option::go, max_option_data + 1}));
  talk.client.send(Bytes(max_option_data + 1, std::byte{'I'}));

  auto const reply = talk.client.receive(20);
  REQUIRE(reply.size() == 20);
  CHECK(hex(std::span(reply).subspan(12, 4)) == "80000009");
  auto const text = load_be<std::uint32_t>(std::span(reply).last<4>());
  CHECK(talk.client.receive(text).size() == text);
  talk.client.send(encode(OptionHeader{Option::abort, 0}));
  CHECK(talk.client.receive(20).size() == 20);
  CHECK_FALSE(talk.result().value().has_value());
}

TEST_CASE("negotiate() drops a client that breaks the protocol", "[nbd][negotiate][error]") {
  RunningHandshake talk;
  SECTION("with an unknown flag") {
    talk.client.send(flags(7));
  }
  SECTION("with a wrong magic number") {
    talk.client.send(flags());
    talk.client.send(Bytes(16, std::byte{'x'}));
  }
  SECTION("with an endless option") {
    talk.client.send(flags());
    talk.client.send(encode(OptionHeader{Option::list, 0xffffffff}));
  }

  CHECK(talk.result().error().code == Errc::protocol);
}

TEST_CASE("negotiate() does not mind a client that leaves", "[nbd][negotiate]") {
  RunningHandshake talk;
  SECTION("at once") {
    talk.client.close();
  }
  SECTION("in the middle of an option") {
    talk.client.send(flags());
    talk.client.send(encode(OptionHeader{Option::go, 100}));
    talk.client.send(Bytes(50));
    talk.client.close();
  }

  CHECK_FALSE(talk.result().value().has_value());
}

TEST_CASE("negotiate() has one deadline for all", "[nbd][negotiate][error]") {
  RunningHandshake talk(300ms);
  SECTION("for a client that is silent") {}
  SECTION("for a client that trickles") {
    talk.client.send(flags());
    for (int i = 0; i < 8; ++i) {
      talk.client.send(Bytes(1, encode(OptionHeader{})[static_cast<std::size_t>(i)]));
      std::this_thread::sleep_for(30ms);
    }
  }
  SECTION("for a client that talks without end and reads nothing") {
    talk.client.send(flags());
    try {
      for (;;) talk.client.send(encode(OptionHeader{Option::list, 0}));
    } catch (std::runtime_error const&) {  // the server has hung up
    }
  }

  CHECK(talk.result().error().code == Errc::timed_out);
}

TEST_CASE("negotiate() ends when a stop is requested", "[nbd][negotiate]") {
  RunningHandshake talk(60s);
  CHECK(talk.client.receive(18).size() == 18);

  talk.stop();

  CHECK_FALSE(talk.result().value().has_value());
}

}  // namespace negotiate_test
}  // namespace erofs_oci::nbd::testing
