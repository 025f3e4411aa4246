// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/http/http.hpp>  // first: proves that the header stands alone

#include <atomic>
#include <chrono>
#include <cstring>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include <arpa/inet.h>
#include <netinet/in.h>

#include <catch2/catch.hpp>

#include <erofs_oci/combinator/ref.hpp>

namespace erofs_oci {
namespace {

using namespace std::chrono_literals;
using Steady = std::chrono::steady_clock;

static_assert(RandomAccessSource<Http> && RandomAccessSource<OciBlob>);

/// A server that speaks raw bytes: each connection is handed to a function on a thread of its own.
class RawServer {
 public:
  using Serve = std::function<void(int socket, unsigned connection)>;

  explicit RawServer(Serve serve) : serve_(std::move(serve)) {
    listener_ = UniqueFd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    auto* const raw = reinterpret_cast<sockaddr*>(&address);
    REQUIRE(::bind(listener_.get(), raw, sizeof address) == 0);
    REQUIRE(::listen(listener_.get(), 16) == 0);
    socklen_t length = sizeof address;
    REQUIRE(::getsockname(listener_.get(), raw, &length) == 0);
    port_ = ntohs(address.sin_port);
    acceptor_ = std::jthread([this] { accept_all(); });
  }

  ~RawServer() {
    ::shutdown(listener_.get(), SHUT_RDWR);
    acceptor_.join();
    for (auto& socket : sockets_) ::shutdown(socket.get(), SHUT_RDWR);
    threads_.clear();
  }

  std::string url(std::string const& path = "/x") const {
    return "http://127.0.0.1:" + std::to_string(port_) + path;
  }

  unsigned connections() const { return connections_; }

 private:
  void accept_all() {
    for (;;) {
      auto const socket = ::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC);
      if (socket < 0) return;
      sockets_.emplace_back(socket);
      auto const number = connections_++;
      threads_.emplace_back([this, socket, number] {
        serve_(socket, number);
        ::shutdown(socket, SHUT_RDWR);
      });
    }
  }

  Serve serve_;
  UniqueFd listener_;
  std::uint16_t port_ = 0;
  std::atomic<unsigned> connections_{0};
  std::vector<UniqueFd> sockets_;
  std::vector<std::jthread> threads_;
  std::jthread acceptor_;
};

/// Reads one request's head; empty when the connection has ended.
std::string read_head(int socket) {
  std::string head;
  char c = 0;
  while (!head.ends_with("\r\n\r\n")) {
    if (::recv(socket, &c, 1, 0) != 1) return {};
    head += c;
  }
  return head;
}

bool say(int socket, std::string_view text) {
  while (!text.empty()) {
    auto const n = ::send(socket, text.data(), text.size(), MSG_NOSIGNAL);
    if (n <= 0) return false;
    text.remove_prefix(static_cast<std::size_t>(n));
  }
  return true;
}

struct Got {
  Result<void> done;
  std::optional<HttpHead> head;
  Bytes body;
};

Got get(HttplibTransport const& transport, std::string const& url, HttpLimits limits = {}) {
  HttpRequest request;
  request.url = *Url::parse(url);
  request.headers = {{"Accept-Encoding", "identity"}};
  request.limits = limits;
  request.deadline = Steady::now() + limits.total;
  Got got;
  got.done = transport.exchange(
      request,
      [&](HttpHead const& head) {
        got.head = head;
        return true;
      },
      [&](std::span<std::byte const> bytes) {
        got.body.insert(got.body.end(), bytes.begin(), bytes.end());
        return true;
      });
  return got;
}

std::string const ok_head = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";

TEST_CASE("A request goes out as it was made, on one connection", "[http]") {
  std::vector<std::string> heads;
  RawServer server([&](int socket, unsigned) {
    for (auto head = read_head(socket); !head.empty(); head = read_head(socket)) {
      heads.push_back(head);
      say(socket, ok_head + "hello");
    }
  });
  HttplibTransport const transport;

  for (int i = 0; i < 3; ++i) {
    auto const got = get(transport, server.url("/a%2Fb?sig=%2b+%&x"));
    REQUIRE(got.done.has_value());
    CHECK(got.body == to_bytes("hello"));
  }

  CHECK(server.connections() == 1);
  REQUIRE(heads.size() == 3);
  CHECK_THAT(heads[2], Catch::StartsWith("GET /a%2Fb?sig=%2b+%&x HTTP/1.1\r\n") &&
                           Catch::Contains("User-Agent: erofs_oci\r\n") &&
                           Catch::Contains("Accept-Encoding: identity\r\n"));
}

TEST_CASE("A kept connection that the server closed is replaced without a word", "[http]") {
  RawServer server([&](int socket, unsigned connection) {
    read_head(socket);
    say(socket, ok_head + "hello");
    if (connection == 0) read_head(socket);  // swallows the next request, then closes
  });
  HttplibTransport const transport;

  CHECK(get(transport, server.url()).done.has_value());
  CHECK(get(transport, server.url()).done.has_value());
  std::this_thread::sleep_for(50ms);
  CHECK(get(transport, server.url()).done.has_value());

  CHECK(server.connections() == 3);
}

TEST_CASE("A fresh connection that breaks is an error that may pass", "[http][error]") {
  RawServer server([&](int socket, unsigned) { read_head(socket); });

  auto const got = get(HttplibTransport(), server.url());

  REQUIRE_FALSE(got.done.has_value());
  CHECK(got.done.error().code == Errc::unavailable);
  CHECK(server.connections() == 1);
}

TEST_CASE("A refused connection is an error that may pass", "[http][error]") {
  std::string url;
  {
    RawServer server([](int, unsigned) {});
    url = server.url();
  }
  CHECK(get(HttplibTransport(), url).done.error().code == Errc::unavailable);
}

TEST_CASE("A body that ends early is an error with the bytes so far", "[http][error]") {
  RawServer server([&](int socket, unsigned) {
    read_head(socket);
    say(socket, ok_head + "hel");
  });

  auto const got = get(HttplibTransport(), server.url());

  REQUIRE_FALSE(got.done.has_value());
  CHECK(got.done.error().code == Errc::unavailable);
  CHECK(got.body == to_bytes("hel"));
}

TEST_CASE("A source goes on after a body that ends early", "[http]") {
  RawServer server([&](int socket, unsigned connection) {
    auto const head = read_head(socket);
    auto const range = [&](std::string const& r, std::string const& body, std::size_t n) {
      say(socket, "HTTP/1.1 206 x\r\nContent-Range: bytes " + r + "/10\r\nContent-Length: " +
                      std::to_string(n) + "\r\nConnection: close\r\n\r\n" + body);
    };
    if (connection == 0) range("0-0", "0", 1);
    if (connection == 1) range("2-8", "234", 7);
    if (connection == 2) {
      CHECK_THAT(head, Catch::Contains("Range: bytes=5-8\r\n"));
      range("5-8", "5678", 4);
    }
  });
  auto const source = *Http::open(server.url());
  Bytes out(7);

  CHECK(source.read_at(2, out) == std::size_t{7});

  CHECK(out == to_bytes("2345678"));
  CHECK(server.connections() == 3);
}

TEST_CASE("Every exchange ends by its deadline, however slowly the server speaks",
          "[http][error]") {
  auto const dribble = [](int socket, std::string const& start, std::string_view piece) {
    read_head(socket);
    say(socket, start);
    while (say(socket, piece)) std::this_thread::sleep_for(20ms);
  };
  std::function<void(int)> const silent = [&](int s) {
    while (!read_head(s).empty()) continue;
  };
  std::function<void(int)> const slow_head = [&](int s) {
    dribble(s, "HTTP/1.1 200 OK\r\nX: ", "y");
  };
  std::function<void(int)> const slow_lines = [&](int s) {
    dribble(s, "HTTP/1.1 200 OK\r\n", "X: y\r\n");
  };
  std::function<void(int)> const slow_body = [&](int s) {
    dribble(s, "HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n", "y");
  };
  std::function<void(int)> const slow_chunks = [&](int s) {
    dribble(s, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "1\r\ny\r\n");
  };
  for (auto const& serve : {silent, slow_head, slow_lines, slow_body, slow_chunks}) {
    RawServer server([&](int socket, unsigned) { serve(socket); });
    HttpLimits limits;
    limits.total = 300ms;
    auto const start = Steady::now();

    auto const got = get(HttplibTransport(), server.url(), limits);

    auto const took = Steady::now() - start;
    REQUIRE_FALSE(got.done.has_value());
    CHECK(got.done.error().code == Errc::timed_out);
    CHECK(took >= 290ms);
    CHECK(took < 2s);
  }
}

TEST_CASE("A server that says nothing is given up after the idle limit", "[http][error]") {
  RawServer server([&](int socket, unsigned) {
    read_head(socket);
    say(socket, ok_head + "hel");
    read_head(socket);
  });
  HttpLimits limits;
  limits.idle = 200ms;
  auto const start = Steady::now();

  auto const got = get(HttplibTransport(), server.url(), limits);

  REQUIRE_FALSE(got.done.has_value());
  CHECK(got.done.error().code == Errc::timed_out);
  CHECK(Steady::now() - start < 2s);
}

TEST_CASE("A TLS handshake that never ends is ended", "[http][error]") {
  RawServer server([&](int socket, unsigned) {
    char c = 0;
    (void)::recv(socket, &c, 1, 0);
    say(socket, std::string("\x16\x03\x03\x3f\xff", 5));  // a record of 16 KiB, byte by byte
    while (say(socket, "x")) std::this_thread::sleep_for(20ms);
  });
  HttpLimits limits;
  limits.total = 300ms;
  auto const start = Steady::now();

  auto const got = get(HttplibTransport(), "https" + server.url().substr(4), limits);

  REQUIRE_FALSE(got.done.has_value());
  CHECK(got.done.error().code == Errc::timed_out);
  CHECK(Steady::now() - start < 2s);
}

TEST_CASE("TLS to a server that speaks none is an error that stays", "[http][error]") {
  RawServer server([&](int socket, unsigned) {
    char c = 0;
    (void)::recv(socket, &c, 1, 0);
    say(socket, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
    read_head(socket);
  });

  auto const got = get(HttplibTransport(), "https" + server.url().substr(4));

  REQUIRE_FALSE(got.done.has_value());
  INFO(got.done.error().message());
  CHECK(got.done.error().code == Errc::protocol);
  CHECK_THAT(got.done.error().message(), Catch::Contains("TLS"));
}

TEST_CASE("Answers that are not HTTP, or too much of it, are errors", "[http][error]") {
  auto const lengths = [](std::string const& a, std::string const& b) {
    return "HTTP/1.1 200 OK\r\nContent-Length: " + a + "\r\nContent-Length: " + b + "\r\n\r\nhello";
  };
  std::string many = "HTTP/1.1 200 OK\r\n";
  for (int i = 0; i < 20'000; ++i) many += "X-Header: 0123456789\r\n";
  for (auto const& text :
       {std::string("hello\r\n\r\n"), std::string(5'000'000, 'x'),
        "HTTP/1.1 200 " + std::string(5'000'000, 'x'),
        "HTTP/1.1 200 OK\r\nX: " + std::string(5'000'000, 'x'), many, lengths("5", "6"),
        lengths("5x", "5x"), lengths("-5", "-5"), lengths("0x5", "0x5"),
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + std::string(5'000'000, '0')}) {
    RawServer server([&](int socket, unsigned) {
      read_head(socket);
      say(socket, text);
    });

    auto const got = get(HttplibTransport(), server.url());

    INFO(text.substr(0, 100));
    REQUIRE_FALSE(got.done.has_value());
    CHECK(got.done.error().code == Errc::protocol);
  }
}

TEST_CASE("A body is never unpacked", "[http]") {
  RawServer server([&](int socket, unsigned) {
    read_head(socket);
    say(socket,
        "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\n\x1f\x8b\x08xx");
  });

  auto const got = get(HttplibTransport(), server.url());

  CHECK(got.body == to_bytes("\x1f\x8b\x08xx"));
}

TEST_CASE("A limit on the body holds", "[http][error]") {
  RawServer server([&](int socket, unsigned) {
    read_head(socket);
    say(socket, "HTTP/1.1 200 OK\r\n\r\n" + std::string(100'000, 'x'));
  });
  HttpLimits limits;
  limits.body = 50'000;

  auto const got = get(HttplibTransport(), server.url(), limits);

  REQUIRE_FALSE(got.done.has_value());
  CHECK(got.done.error().code == Errc::protocol);
  CHECK(got.body.size() <= 50'000);
}

TEST_CASE("Exchanges run side by side and connections are kept", "[http]") {
  std::atomic<int> inside{0};
  std::atomic<int> most{0};
  RawServer server([&](int socket, unsigned) {
    for (auto head = read_head(socket); !head.empty(); head = read_head(socket)) {
      most = std::max<int>(most, ++inside);
      std::this_thread::sleep_for(20ms);
      --inside;
      say(socket, ok_head + "hello");
    }
  });
  HttplibTransport const transport;
  std::atomic<int> good{0};
  {
    std::vector<std::jthread> threads;
    for (int i = 0; i < 8; ++i) {
      threads.emplace_back([&] {
        for (int k = 0; k < 5; ++k) good += get(transport, server.url()).done.has_value() ? 1 : 0;
      });
    }
  }
  CHECK(good == 40);
  CHECK(most > 2);
  CHECK(server.connections() <= 8);
}

TEST_CASE("Reading is not slowed by the library's small pieces", "[http]") {
  constexpr std::size_t size = 32 * 1024 * 1024;
  auto const body = std::string(size, 'x');
  RawServer server([&](int socket, unsigned) {
    for (auto head = read_head(socket); !head.empty(); head = read_head(socket)) {
      say(socket, "HTTP/1.1 200 OK\r\nContent-Length: " + std::to_string(size) + "\r\n\r\n");
      say(socket, body);
    }
  });
  auto const source = *Http::open(server.url());
  double best = 0;

  for (int i = 0; i < 3; ++i) {
    std::uint64_t got = 0;
    auto const start = Steady::now();
    REQUIRE(source.stream(0, size, [&](std::span<std::byte const> bytes) {
      got += bytes.size();
      return true;
    }));
    auto const took = std::chrono::duration<double>(Steady::now() - start).count();
    REQUIRE(got == size);
    best = std::max(best, static_cast<double>(size) / took / 1e6);
  }

  WARN("32 MiB over loopback: " << static_cast<int>(best) << " MB/s");
  CHECK(best > 50);  // far below what it does, for sanitizers and busy machines
}

}  // namespace
}  // namespace erofs_oci
