// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/http/http.hpp>  // first: proves that the header stands alone

#include <atomic>
#include <chrono>
#include <cstring>
#include <functional>
#include <memory>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include <arpa/inet.h>
#include <netinet/in.h>

#include <catch.hpp>

#include <erofs_oci/combinator/ref.hpp>
#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/fd.hpp>

namespace erofs_oci {
namespace http_test {

using namespace std::chrono_literals;
using Steady = std::chrono::steady_clock;

static_assert(RandomAccessSource<Http>);

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
  Steady::duration took;
};

Got get(HttplibTransport const& transport, std::string const& url, HttpLimits limits = {},
        std::stop_token stop = {}, HttpHeaders headers = {{"Accept-Encoding", "identity"}}) {
  HttpRequest request;
  request.url = *Url::parse(url);
  request.headers = std::move(headers);
  request.stop = std::move(stop);
  request.limits = limits;
  request.deadline = Steady::now() + limits.total;
  Got got;
  auto const start = Steady::now();
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
  got.took = Steady::now() - start;
  return got;
}

/// What get() got of a server that it has to give up.
Got give_up(std::string const& url, HttpLimits const& limits) {
  auto got = get(HttplibTransport(), url, limits);
  REQUIRE_FALSE(got.done.has_value());
  CHECK(got.done.error().code == Errc::timed_out);
  CHECK(got.took < 2s);
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
    auto const got = get(transport, server.url("/a%2Fb?sig=%2B+x&y=1:2"));
    REQUIRE(got.done.has_value());
    CHECK(got.body == to_bytes("hello"));
  }

  CHECK(server.connections() == 1);
  REQUIRE(heads.size() == 3);
  CHECK_THAT(heads[2], Catch::StartsWith("GET /a%2Fb?sig=%2B+x&y=1:2 HTTP/1.1\r\n") &&
                           Catch::Contains("User-Agent: erofs_oci\r\n") &&
                           Catch::Contains("Accept-Encoding: identity\r\n"));
}

TEST_CASE("The head of an answer without a body is told, too", "[http]") {
  RawServer server([](int socket, unsigned) {
    read_head(socket);
    say(socket, "HTTP/1.1 204 No Content\r\nX: y\r\n\r\n");
  });

  auto const got = get(HttplibTransport(), server.url());

  REQUIRE(got.done.has_value());
  REQUIRE(got.head.has_value());
  CHECK(got.head->status == 204);
  CHECK(got.head->find("X") == "y");
  CHECK(Http::open(server.url()).error().code == Errc::unsupported);
}

TEST_CASE("A kept connection that the server closed is replaced without an error", "[http]") {
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

TEST_CASE("A fresh connection that breaks is a transient error", "[http][error]") {
  RawServer server([&](int socket, unsigned) { read_head(socket); });

  auto const got = get(HttplibTransport(), server.url());

  REQUIRE_FALSE(got.done.has_value());
  CHECK(got.done.error().code == Errc::unavailable);
  CHECK(server.connections() == 1);
}

TEST_CASE("A refused connection is a transient error", "[http][error]") {
  std::string url;
  {
    RawServer server([](int, unsigned) {});
    url = server.url();
  }
  auto const error = get(HttplibTransport(), url).done.error();
  CHECK(error.code == Errc::unavailable);
  CHECK_THAT(error.message(), Catch::EndsWith("cannot connect: Connection refused"));
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

    CHECK(give_up(server.url(), limits).took >= 290ms);
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

  give_up(server.url(), limits);
}

TEST_CASE("A server that is slower than the least rate is given up", "[http][error]") {
  RawServer server([&](int socket, unsigned) {
    read_head(socket);
    say(socket, "HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n");
    while (say(socket, "0123456789")) std::this_thread::sleep_for(20ms);
  });
  HttpLimits limits;
  limits.rate_time = 200ms;

  auto const got = give_up(server.url(), limits);

  CHECK_THAT(got.done.error().message(), Catch::Contains(" bytes in 200 milliseconds"));
  CHECK(got.body.size() < 9999);

  limits.least_rate = 100;
  limits.total = 500ms;
  CHECK_THAT(get(HttplibTransport(), server.url(), limits).done.error().message(),
             Catch::Contains("the request's time is over"));
}

TEST_CASE("A slow reader is no slow server", "[http]") {
  std::string const body(300'000, 'x');
  RawServer server([&](int socket, unsigned) {
    read_head(socket);
    say(socket, "HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n" + body);
  });
  HttpRequest request;
  request.url = *Url::parse(server.url());
  request.limits.least_rate = 1'000'000;
  request.limits.rate_time = 500ms;
  request.deadline = Steady::now() + 30s;
  std::size_t got = 0;

  auto const done = HttplibTransport().exchange(
      request, [](HttpHead const&) { return true; },
      [&](std::span<std::byte const> bytes) {
        if (got == 0) std::this_thread::sleep_for(1s);
        got += bytes.size();
        return true;
      });

  CHECK(done.has_value());
  CHECK(got == body.size());
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

  give_up("https" + server.url().substr(4), limits);
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
  CHECK_THAT(got.done.error().message(), Catch::EndsWith(std::string(no_tls_text)));
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

TEST_CASE("A request that a server sends inward is refused before it connects", "[http][error]") {
  RawServer server([&](int socket, unsigned) {
    read_head(socket);
    say(socket, ok_head + "hello");
  });
  HttpRequest request;
  request.url = *Url::parse(server.url());
  request.deadline = Steady::now() + 30s;
  auto const ask = [&](char const* named_by, bool inward = false) {
    request.named_by = named_by;
    return HttplibTransport({.inward_redirects = inward})
        .exchange(
            request, [](HttpHead const&) { return true; },
            [](std::span<std::byte const>) { return true; });
  };

  for (auto const* public_or_private : {"8.8.8.8", "10.0.0.1", "2001:4860::8888"}) {
    auto const done = ask(public_or_private);
    REQUIRE_FALSE(done.has_value());
    CHECK(done.error().code == Errc::protocol);
    CHECK_THAT(done.error().message(), Catch::Contains("refused"));
  }
  CHECK(server.connections() == 0);
  CHECK(ask("").has_value());
  CHECK(ask("127.0.0.2").has_value());
  CHECK(ask("127.0.0.1").has_value());
  CHECK(ask("8.8.8.8", true).has_value());
}

TEST_CASE("A redirect says who has named its target", "[http]") {
  HttpRequest request;
  request.url = *Url::parse("https://registry.x/a");

  REQUIRE(redirect(request, {307, {{"Location", "https://cdn.x/b"}}}).has_value());
  CHECK(request.named_by == "registry.x");
  REQUIRE(redirect(request, {307, {{"Location", "https://other.x/b"}}}).has_value());
  CHECK(request.named_by == "registry.x");
}

TEST_CASE("A stop ends what a transport does, and it does no more", "[http][error]") {
  std::atomic<int> reading = 0;
  RawServer server([&](int socket, unsigned) {
    read_head(socket);
    ++reading;
    reading.notify_all();
    read_head(socket);
  });
  std::stop_source stop;
  HttplibTransport const transport({.stop = stop.get_token()});
  std::jthread const stopper([&] {
    reading.wait(0);
    stop.request_stop();
  });

  auto const got = get(transport, server.url());

  CHECK(got.done.error().code == Errc::stopping);
  CHECK(got.took < 10s);
  CHECK(get(transport, server.url()).done.error().code == Errc::stopping);
  CHECK(server.connections() == 1);
}

TEST_CASE("A request's own stop ends it alone", "[http][error]") {
  std::atomic<int> reading = 0;
  RawServer server([&](int socket, unsigned connection) {
    read_head(socket);
    if (connection > 0) {
      say(socket, "HTTP/1.1 200 x\r\nContent-Length: 1\r\n\r\nx");
      return;
    }
    ++reading;
    reading.notify_all();
    read_head(socket);
  });
  HttplibTransport const transport;
  std::stop_source stop;
  std::jthread const stopper([&] {
    reading.wait(0);
    stop.request_stop();
  });

  CHECK(get(transport, server.url(), {}, stop.get_token()).done.error().code == Errc::stopping);
  CHECK(as_text(get(transport, server.url()).body) == "x");
}

TEST_CASE("A stop ends the waiting for a host that has asked for a pause", "[http][error]") {
  RawServer server([&](int socket, unsigned) {
    read_head(socket);
    say(socket, "HTTP/1.1 503 x\r\nRetry-After: 20\r\nContent-Length: 0\r\n\r\n");
  });
  std::stop_source stop;
  HttplibTransport const transport({.stop = stop.get_token()});
  REQUIRE(get(transport, server.url()).head->status == 503);
  HttpLimits limits;
  limits.total = 1h;
  std::jthread const stopper([&] { stop.request_stop(); });

  auto const got = get(transport, server.url(), limits);

  CHECK(got.done.error().code == Errc::stopping);
  CHECK(got.took < 10s);
}

TEST_CASE("A host's pause holds for all transports of a pace", "[http]") {
  RawServer server([&](int socket, unsigned) {
    read_head(socket);
    say(socket, "HTTP/1.1 429 x\r\nRetry-After: 20\r\nContent-Length: 0\r\n\r\n");
  });
  auto const pace = std::make_shared<HostPace>();
  HttplibTransport const one({.pace = pace});
  HttplibTransport const other({.pace = pace});
  HttpLimits limits;
  limits.total = 10s;
  REQUIRE(get(one, server.url(), limits).head->status == 429);

  auto const next = get(other, server.url("/other"), limits);

  CHECK(next.done.error().code == Errc::unavailable);
  CHECK(next.done.error().retry_after.value() > 10s);
  CHECK(server.connections() == 1);
  CHECK(get(HttplibTransport(), server.url(), limits).head->status == 429);
}

TEST_CASE("A request for a range that is answered late is sent a second time", "[http][hedge]") {
  RawServer server([&](int socket, unsigned connection) {
    read_head(socket);
    if (connection == 0) return static_cast<void>(read_head(socket));  // never answers
    say(socket, "HTTP/1.1 206 x\r\nContent-Length: 1\r\n\r\nx");
  });
  auto const hedging = std::make_shared<Hedging>();
  auto const host = Url::parse(server.url())->authority();
  for (std::size_t i = 0; i < Hedging::fewest; ++i) {
    static_cast<void>(hedging->begin(host));
    hedging->note(host, 1ms);
  }
  HttplibTransport const transport({.hedging = hedging});

  auto const got = get(transport, server.url(), {}, {}, {{"Range", "bytes=0-0"}});

  REQUIRE(got.done.has_value());
  CHECK(as_text(got.body) == "x");
  CHECK(got.took < 10s);
  CHECK(hedging->counts() == Hedging::Counts{Hedging::fewest + 1, 1, 1});
}

TEST_CASE("A host's pause holds for all requests to it", "[http]") {
  RawServer server([&](int socket, unsigned) {
    read_head(socket);
    say(socket, "HTTP/1.1 503 x\r\nRetry-After: 20\r\nContent-Length: 0\r\n\r\n");
  });
  HttplibTransport const transport;
  HttpLimits limits;
  limits.total = 10s;

  CHECK(get(transport, server.url(), limits).head->status == 503);
  auto const next = get(transport, server.url("/other"), limits);

  REQUIRE_FALSE(next.done.has_value());
  CHECK(next.done.error().code == Errc::unavailable);
  CHECK(next.done.error().retry_after > 15s);
  CHECK(next.took < 5s);
  CHECK(server.connections() == 1);
}

/// What a transport with a proxy that answers CONNECT so says.
Error proxy_error(std::string const& answer, HttpLimits const& limits = {}) {
  std::string asked;
  RawServer server([&](int socket, unsigned) {
    asked = read_head(socket);
    say(socket, answer);
    read_head(socket);
  });
  auto const url = *Url::parse(server.url());
  HttplibOptions options;
  options.proxies.https = Proxy{url.host, url.port, "me", "s3cret"};
  auto const got = get(HttplibTransport(options), "https://far.x:8443/", limits);
  CHECK_THAT(asked, Catch::StartsWith("CONNECT far.x:8443 HTTP/1.1\r\n"));
  CHECK_THAT(asked, Catch::Contains("\r\nHost: far.x:8443\r\n"));
  CHECK_THAT(asked, Catch::Contains("\r\nProxy-Authorization: Basic bWU6czNjcmV0\r\n"));
  REQUIRE_FALSE(got.done.has_value());
  CHECK_THAT(got.done.error().message(), !Catch::Contains("s3cret"));
  return got.done.error();
}

TEST_CASE("A proxy's answer to CONNECT has limits", "[http][proxy][error]") {
  CHECK(proxy_error("HTTP/1.1 407 x\r\n\r\n").code == Errc::unauthorized);
  CHECK(proxy_error("HTTP/1.1 503 x\r\n\r\n").code == Errc::unavailable);
  // Later versions of cpp-httplib ask for the tunnel themselves, and do not say what came.
  auto const hello = proxy_error("hello\r\n\r\n").code;
  CHECK((hello == Errc::protocol || hello == Errc::unavailable));
  CHECK(proxy_error("HTTP/1.1 200 " + std::string(5'000'000, 'x')).code == Errc::protocol);
  CHECK_THAT(proxy_error("HTTP/1.1 200 OK\r\n\r\nno TLS").message(), Catch::Contains("TLS"));
  HttpLimits limits;
  limits.idle = 100ms;
  CHECK(proxy_error("HTTP/1.1 200 OK\r\n", limits).code == Errc::timed_out);
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

}  // namespace http_test
}  // namespace erofs_oci
