// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/nbd/request_reader.hpp>  // first: proves that the header stands alone

#include <array>
#include <utility>
#include <vector>

#include <catch.hpp>
#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/fd.hpp>
#include <rapidcheck/catch.h>

namespace erofs_oci::nbd {
namespace request_reader_test {

/// A reader and the end that a client writes to.
struct ReaderAndClient {
  UniqueFd ours{};
  UniqueFd client{};
  RequestReader reader{256};

  ReaderAndClient() {
    std::array<int, 2> fds{};
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds.data()) != 0) throw "socketpair";
    ours = UniqueFd(fds[0]);
    client = UniqueFd(fds[1]);
  }

  void send(std::span<std::byte const> bytes) const {
    auto const n = ::send(client.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (n != static_cast<ssize_t>(bytes.size())) throw "send";
  }

  /// What comes out until nothing more has arrived.
  std::vector<std::uint64_t> cookies() {
    std::vector<std::uint64_t> found;
    for (;;) {
      while (auto const request = reader.next().value()) {
        found.push_back(request->cookie);
        reader.take();
      }
      if (reader.fill(ours.get()).value() != RequestReader::Fill::some) return found;
    }
  }
};

Request numbered(Command command, std::uint64_t cookie, std::uint32_t length) {
  return {0, static_cast<std::uint16_t>(command), cookie, 4096, length};
}

TEST_CASE("Requests come out in order, however they arrive", "[nbd][reader]") {
  rc::prop("pieces", [] {
    ReaderAndClient pair;
    Bytes stream;
    std::vector<std::uint64_t> sent;
    for (auto const length : *rc::gen::container<std::vector<std::uint32_t>>(
             rc::gen::inRange<std::uint32_t>(0, 1000))) {
      auto const command = length % 3 == 0 ? Command::write : Command::read;
      sent.push_back(sent.size());
      auto const raw = encode(numbered(command, sent.back(), length));
      stream.insert(stream.end(), raw.begin(), raw.end());
      if (command == Command::write) stream.resize(stream.size() + length, std::byte{0x25});
    }
    std::vector<std::uint64_t> found;
    for (auto rest = std::span<std::byte const>(stream); !rest.empty();) {
      auto const n = std::min(*rc::gen::inRange<std::size_t>(1, 300), rest.size());
      pair.send(rest.first(n));
      rest = rest.subspan(n);
      for (auto const cookie : pair.cookies()) found.push_back(cookie);
    }
    RC_ASSERT(found == sent);
    RC_ASSERT(pair.reader.is_between());
  });
}

TEST_CASE("A request stays until it is taken", "[nbd][reader]") {
  ReaderAndClient pair;
  pair.send(encode(numbered(Command::read, 7, 512)));
  CHECK(pair.reader.next().value() == std::nullopt);
  CHECK_FALSE(pair.reader.has_next());
  REQUIRE(pair.reader.fill(pair.ours.get()) == RequestReader::Fill::some);
  CHECK(pair.reader.has_next());
  CHECK(pair.reader.next().value()->cookie == 7);
  CHECK(pair.reader.next().value()->cookie == 7);
  CHECK_FALSE(pair.reader.is_between());
  pair.reader.take();
  CHECK(pair.reader.is_between());
  CHECK(pair.reader.next().value() == std::nullopt);
}

TEST_CASE("A WRITE comes out after its payload was dropped", "[nbd][reader]") {
  ReaderAndClient pair;
  pair.send(encode(numbered(Command::write, 1, 100)));
  pair.send(Bytes(99));
  CHECK(pair.cookies().empty());
  CHECK_FALSE(pair.reader.is_between());
  pair.send(Bytes(1));
  CHECK(pair.cookies() == std::vector<std::uint64_t>{1});
}

TEST_CASE("Half a request goes from one reader to the next", "[nbd][reader]") {
  ReaderAndClient old;
  auto const raw = encode(numbered(Command::read, 9, 512));
  auto const half = GENERATE(std::size_t{0}, std::size_t{1}, std::size_t{27});
  if (half != 0) old.send(std::span(raw).first(half));
  CHECK(old.cookies().empty());
  CHECK(old.reader.is_between());
  ReaderAndClient young;
  young.reader.reset(old.reader.unread());
  young.send(std::span(raw).subspan(half));
  CHECK(young.cookies() == std::vector<std::uint64_t>{9});
}

TEST_CASE("What is no request, and a WRITE too long, are errors", "[nbd][reader][error]") {
  ReaderAndClient pair;
  SECTION("no request") {
    pair.send(Bytes(Request::wire_size));
  }
  SECTION("too long") {
    pair.send(encode(numbered(Command::write, 1, RequestReader::longest_write + 1)));
  }
  REQUIRE(pair.reader.fill(pair.ours.get()) == RequestReader::Fill::some);
  CHECK(pair.reader.next().error().code == Errc::protocol);
  CHECK(pair.reader.next().error().code == Errc::protocol);
}

TEST_CASE("A closed connection is no error", "[nbd][reader]") {
  ReaderAndClient pair;
  CHECK(pair.reader.fill(pair.ours.get()) == RequestReader::Fill::nothing);
  pair.client.reset();
  CHECK(pair.reader.fill(pair.ours.get()) == RequestReader::Fill::closed);
  CHECK_FALSE(pair.reader.fill(-1));
}

}  // namespace request_reader_test
}  // namespace erofs_oci::nbd
