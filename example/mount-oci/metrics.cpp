// SPDX-License-Identifier: Apache-2.0
#include "metrics.hpp"

#include <array>
#include <cerrno>
#include <cstddef>
#include <utility>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <erofs_oci/posix/host_port.hpp>
#include <erofs_oci/posix/unix_socket.hpp>

namespace mount_oci {
namespace {

using erofs_oci::fail;
using erofs_oci::fail_errno;

constexpr std::size_t longest_request = 8192;

Result<UniqueFd> bound(int family, sockaddr const* address, socklen_t length,
                       std::string const& name) {
  UniqueFd fd(::socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return fail_errno(errno, name);
  int const one = 1;
  ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (::bind(fd.get(), address, length) != 0 || ::listen(fd.get(), 16) != 0) {
    return fail_errno(errno, name);
  }
  return fd;
}

Result<UniqueFd> listen_tcp(std::string const& text) {
  EROFS_OCI_TRY_ASSIGN(auto const parsed, erofs_oci::HostPort::parse(text, "127.0.0.1"));
  sockaddr_in v4{};
  sockaddr_in6 v6{};
  v4.sin_family = AF_INET;
  v6.sin6_family = AF_INET6;
  v4.sin_port = v6.sin6_port = htons(parsed.port);
  auto const host = parsed.host == "localhost" ? std::string("127.0.0.1") : parsed.host;
  if (::inet_pton(AF_INET, host.c_str(), &v4.sin_addr) == 1 && host.starts_with("127.")) {
    return bound(AF_INET, reinterpret_cast<sockaddr const*>(&v4), sizeof v4, text);
  }
  if (::inet_pton(AF_INET6, host.c_str(), &v6.sin6_addr) == 1 && host == "::1") {
    return bound(AF_INET6, reinterpret_cast<sockaddr const*>(&v6), sizeof v6, text);
  }
  return fail(Errc::invalid_argument, text + ": not a loopback address");
}

/// Whether to receive more from the client.
bool serve_metrics(ClientSockets::Client& client, std::function<std::string()> const& text) {
  std::array<char, 1024> buffer{};
  auto const n = ::recv(client.fd.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
  if (n < 0) return errno == EAGAIN || errno == EINTR;
  if (n == 0) return false;
  client.request.append(buffer.data(), static_cast<std::size_t>(n));
  auto const whole = client.request.find("\r\n\r\n") != std::string::npos;
  if (!whole) return client.request.size() < longest_request;
  auto const body = text();
  auto const answer =
      "HTTP/1.0 200 OK\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"
      "Connection: close\r\nContent-Length: " +
      std::to_string(body.size()) + "\r\n\r\n" + body;
  // A client that does not read gets no more than the socket's buffer takes. The usual one is
  // enough for a mount's text; only root can have a larger one for sure.
  constexpr std::size_t usual = 64 * 1024;
  constexpr std::size_t most = 64 << 20;
  if (answer.size() > usual && answer.size() < most) {
    auto const wanted = static_cast<int>(2 * answer.size());
    if (::setsockopt(client.fd.get(), SOL_SOCKET, SO_SNDBUFFORCE, &wanted, sizeof wanted) != 0) {
      ::setsockopt(client.fd.get(), SOL_SOCKET, SO_SNDBUF, &wanted, sizeof wanted);
    }
  }
  [[maybe_unused]] auto const sent =
      ::send(client.fd.get(), answer.data(), answer.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  return false;
}

}  // namespace

std::string metric_family(std::string_view name, std::string_view kind, std::string_view help,
                          std::vector<MetricSample> const& samples) {
  auto const full = std::string(name);
  auto text = "# HELP " + full + " " + std::string(help) + "\n# TYPE " + full + " " +
              std::string(kind) + "\n";
  for (auto const& [labels, value] : samples) {
    text += full + (labels.empty() ? "" : "{");
    for (auto const& [label, content] : labels) {
      if (text.back() != '{') text += ',';
      text += label + "=\"";
      for (auto const c : content) {
        if (c == '"' || c == '\\') text += '\\';
        text += c == '\n' ? std::string("\\n") : std::string(1, c);
      }
      text += '"';
    }
    text += (labels.empty() ? " " : "} ") + std::to_string(value) + "\n";
  }
  return text;
}

std::string metric_text(std::string_view name, std::string_view kind, std::string_view help,
                        MetricLabels const& labels, std::uint64_t value) {
  return metric_family("erofs_oci_" + std::string(name), kind, help, {{labels, value}});
}

Result<ClientSockets> listen_metrics(std::string const& address,
                                     std::function<std::string()> text) {
  auto const by_path = address.starts_with("/");
  EROFS_OCI_TRY_ASSIGN(
      auto fd, by_path ? erofs_oci::listen_unix(address, SOCK_STREAM, 16) : listen_tcp(address));
  return ClientSockets(
      std::move(fd), by_path ? address : std::string(), 8, ClientSockets::Full::drops_oldest,
      [text = std::move(text)](auto& client) { return serve_metrics(client, text); });
}

}  // namespace mount_oci
