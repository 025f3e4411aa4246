// SPDX-License-Identifier: Apache-2.0
#include "metrics.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <utility>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

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
  ::fchmod(fd.get(), 0600);  // the node of a unix socket gets this mode
  if (::bind(fd.get(), address, length) != 0 || ::listen(fd.get(), 16) != 0) {
    return fail_errno(errno, name);
  }
  return fd;
}

Result<UniqueFd> listen_unix(std::string const& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) {
    return fail(Errc::invalid_argument, path + ": too long for a socket");
  }
  std::ranges::copy(path, address.sun_path);
  struct stat status{};
  if (::lstat(path.c_str(), &status) == 0 && S_ISSOCK(status.st_mode)) ::unlink(path.c_str());
  return bound(AF_UNIX, reinterpret_cast<sockaddr const*>(&address), sizeof address, path);
}

Result<UniqueFd> listen_tcp(std::string const& text) {
  auto const parsed = Address::parse(text);
  if (!parsed) return fail(parsed.error());
  sockaddr_in v4{};
  sockaddr_in6 v6{};
  v4.sin_family = AF_INET;
  v6.sin6_family = AF_INET6;
  v4.sin_port = v6.sin6_port = htons(parsed->port);
  auto const host = parsed->host == "localhost" ? std::string("127.0.0.1") : parsed->host;
  if (::inet_pton(AF_INET, host.c_str(), &v4.sin_addr) == 1 && host.starts_with("127.")) {
    return bound(AF_INET, reinterpret_cast<sockaddr const*>(&v4), sizeof v4, text);
  }
  if (::inet_pton(AF_INET6, host.c_str(), &v6.sin6_addr) == 1 && host == "::1") {
    return bound(AF_INET6, reinterpret_cast<sockaddr const*>(&v6), sizeof v6, text);
  }
  return fail(Errc::invalid_argument, text + ": not an address of this machine alone");
}

}  // namespace

std::string metric_text(std::string_view name, std::string_view kind, std::string_view help,
                        std::vector<std::pair<std::string, std::string>> const& labels,
                        std::uint64_t value) {
  auto const full = "erofs_oci_" + std::string(name);
  auto text = "# HELP " + full + " " + std::string(help) + "\n# TYPE " + full + " " +
              std::string(kind) + "\n" + full + "{";
  for (auto const& [label, content] : labels) {
    if (text.back() != '{') text += ',';
    text += label + "=\"";
    for (auto const c : content) {
      if (c == '"' || c == '\\') text += '\\';
      text += c == '\n' ? std::string("\\n") : std::string(1, c);
    }
    text += '"';
  }
  return text + "} " + std::to_string(value) + "\n";
}

Result<MetricsSocket> MetricsSocket::listen(std::string const& address, Text text) {
  auto const by_path = address.starts_with("/");
  auto fd = by_path ? listen_unix(address) : listen_tcp(address);
  if (!fd) return fail(std::move(fd).error(), "--metrics");
  MetricsSocket result;
  if (by_path) result.path_ = address;
  result.text_ = std::move(text);
  result.listener_ = *std::move(fd);
  return result;
}

MetricsSocket& MetricsSocket::operator=(MetricsSocket&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(text_, other.text_);
  std::swap(listener_, other.listener_);
  std::swap(clients_, other.clients_);
  return *this;
}

MetricsSocket::~MetricsSocket() {
  if (listener_ && !path_.empty()) ::unlink(path_.c_str());
}

void MetricsSocket::watch(std::vector<pollfd>& fds) const {
  fds.push_back({listener_.get(), POLLIN, 0});
  for (auto const& client : clients_) fds.push_back({client.fd.get(), POLLIN, 0});
}

/// Whether the client is still to be heard.
bool MetricsSocket::serve(Client& client) const {
  std::array<char, 1024> buffer{};
  auto const n = ::recv(client.fd.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
  if (n < 0) return errno == EAGAIN || errno == EINTR;
  if (n == 0) return false;
  client.request.append(buffer.data(), static_cast<std::size_t>(n));
  auto const whole = client.request.find("\r\n\r\n") != std::string::npos;
  if (!whole) return client.request.size() < longest_request;
  auto const body = text_();
  auto const answer =
      "HTTP/1.0 200 OK\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"
      "Connection: close\r\nContent-Length: " +
      std::to_string(body.size()) + "\r\n\r\n" + body;
  // It fits into any socket's buffer; who does not read gets nothing more.
  [[maybe_unused]] auto const sent =
      ::send(client.fd.get(), answer.data(), answer.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  return false;
}

void MetricsSocket::act(std::span<pollfd const> fds) {
  for (std::size_t i = 0; i < clients_.size(); ++i) {
    if (fds[i + 1].revents != 0 && !serve(clients_[i])) clients_[i].fd.reset();
  }
  std::erase_if(clients_, [](Client const& client) { return !client.fd; });
  if (fds[0].revents == 0) return;
  UniqueFd fd(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!fd) return;
  // The oldest has had its time: a silent one must not keep others out.
  if (clients_.size() == most_clients) clients_.erase(clients_.begin());
  clients_.push_back({std::move(fd)});
}

}  // namespace mount_oci
