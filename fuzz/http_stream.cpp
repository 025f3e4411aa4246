// SPDX-License-Identifier: Apache-2.0
/// @file
/// The raw bytes of an HTTP server, to cpp-httplib behind ConnectionStream, over a socketpair: two
/// exchanges on one connection end at once, with no more of head and body than the limits allow,
/// and with all of the body that a success promised.
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>

#include <sys/socket.h>

#include <erofs_oci/core/fd.hpp>
#include <erofs_oci/http/transport.hpp>
#include <erofs_oci/posix/descriptor.hpp>

#include "input.hpp"

using namespace erofs_oci;

namespace {

/// A client whose connection is made already.
class PairClient final : public detail::ConnectionClient<httplib::ClientImpl> {
 public:
  PairClient(detail::ExchangeState& state, int fd)
      : ConnectionClient(state, "server.example"), fd_(fd) {}

 private:
  bool create_and_connect_socket(Socket& socket, httplib::Error& error) override {
    error = httplib::Error::Connection;
    socket.sock = std::exchange(fd_, -1);
    return socket.sock >= 0;
  }

  int fd_;
};

void exchange(detail::Connection& connection, detail::ConnectionPool& pool) {
  constexpr std::uint64_t most = 32 * 1024;
  HttpRequest request{HttpMethod::get, *Url::parse("http://server.example/x"), {}, {}, {}, {}};
  request.limits.idle = std::chrono::seconds(2);
  request.limits.body = most;
  request.limits.header = 8 * 1024;
  request.deadline = std::chrono::steady_clock::now() + std::chrono::seconds(5);
  std::uint64_t received = 0;
  std::optional<std::uint64_t> length;
  std::size_t heads = 0;
  auto const head = [&](HttpHead const& response) {
    ++heads;
    std::size_t bytes = 0;
    for (auto const& one : response.headers) bytes += one.name.size() + one.value.size();
    fuzz::require(bytes <= request.limits.header);
    auto const text = response.find("Content-Length");
    auto const chunked = response.find("Transfer-Encoding");
    if (text && !chunked && response.status != 204 && response.status != 304) {
      length = parse_number(*text);
    }
    return true;
  };
  auto const body = [&](std::span<std::byte const> bytes) {
    received += bytes.size();
    fuzz::require(received <= most);
    return true;
  };
  auto const done = detail::Attempt(request, {}, head, body).run(connection, pool);
  fuzz::require(heads <= 1);
  if (done) {
    fuzz::require(heads == 1 && received == length.value_or(received));
  } else {
    auto const code = done.error().code;
    fuzz::require(code == Errc::unavailable || code == Errc::protocol);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  static detail::ConnectionPool pool{HttplibOptions()};
  auto ends = socket_pair();
  if (!ends) return 0;
  auto& [ours, theirs] = *ends;
  // What the socket's buffer does not take, no limit would let pass.
  [[maybe_unused]] auto const n = ::send(ours.get(), data, size, MSG_NOSIGNAL | MSG_DONTWAIT);
  ::shutdown(ours.get(), SHUT_WR);

  detail::Connection connection;
  connection.client = std::make_unique<PairClient>(connection.state, theirs.release());
  connection.own_stream = true;
  connection.client->set_keep_alive(true);
  connection.client->set_decompress(false);
  exchange(connection, pool);
  exchange(connection, pool);
  return 0;
}
