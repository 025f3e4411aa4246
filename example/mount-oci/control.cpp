// SPDX-License-Identifier: Apache-2.0
#include "control.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <utility>

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

namespace mount_oci {
namespace {

using erofs_oci::fail;
using erofs_oci::fail_errno;

constexpr std::size_t longest_answer = 256 * 1024;
constexpr std::size_t longest_question = 8192;

Result<std::pair<sockaddr_un, socklen_t>> address_of(std::string const& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) {
    return fail(Errc::invalid_argument, path + ": too long for a socket");
  }
  std::ranges::copy(path, address.sun_path);
  auto const length = offsetof(sockaddr_un, sun_path) + path.size() + 1;
  return std::pair(address, static_cast<socklen_t>(length));
}

Result<UniqueFd> make_socket(int flags) {
  UniqueFd fd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | flags, 0));
  if (!fd) return fail_errno(errno, "socket");
  return fd;
}

}  // namespace

std::string control_path(std::string const& directory, std::string const& name) {
  return directory + "/" + name + ".sock";
}

Result<ControlSocket> ControlSocket::listen(std::string path, Answer answer) {
  auto const address = address_of(path);
  if (!address) return fail(address.error());
  auto fd = make_socket(SOCK_NONBLOCK);
  if (!fd) return fail(std::move(fd).error());
  ::unlink(path.c_str());
  ::fchmod(fd->get(), 0600);  // the node that bind(2) makes gets this mode
  auto const* const raw = reinterpret_cast<sockaddr const*>(&address->first);
  if (::bind(fd->get(), raw, address->second) != 0 || ::listen(fd->get(), 16) != 0) {
    return fail_errno(errno, path);
  }
  ControlSocket result;
  result.path_ = std::move(path);
  result.answer_ = std::move(answer);
  result.listener_ = *std::move(fd);
  return result;
}

ControlSocket& ControlSocket::operator=(ControlSocket&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(answer_, other.answer_);
  std::swap(listener_, other.listener_);
  std::swap(clients_, other.clients_);
  return *this;
}

ControlSocket::~ControlSocket() {
  if (listener_) ::unlink(path_.c_str());
}

void ControlSocket::watch(std::vector<pollfd>& fds) const {
  short const accepts = clients_.size() < most_clients ? POLLIN : 0;
  fds.push_back({listener_.get(), accepts, 0});
  for (auto const& client : clients_) fds.push_back({client.get(), POLLIN, 0});
}

void ControlSocket::act(std::span<pollfd const> fds) {
  std::array<char, longest_question> buffer{};
  for (std::size_t i = 0; i < clients_.size(); ++i) {
    if (fds[i + 1].revents == 0) continue;
    auto const fd = clients_[i].get();
    auto const n = ::recv(fd, buffer.data(), buffer.size(), MSG_DONTWAIT);
    if (n > 0) {
      auto const question = std::string_view(buffer.data(), static_cast<std::size_t>(n));
      auto const text = answer_(question, clients_[i]);
      // Who asks and does not read gets no answer.
      if (clients_[i]) ::send(fd, text.data(), text.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    }
    clients_[i].reset();
  }
  std::erase_if(clients_, [](UniqueFd const& fd) { return !fd; });
  if (fds[0].revents == 0) return;
  UniqueFd client(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (client) clients_.push_back(std::move(client));
}

Result<UniqueFd> send_question(std::string const& path, std::string_view question,
                               std::chrono::seconds patience) {
  auto const address = address_of(path);
  if (!address) return fail(address.error());
  auto fd = make_socket(0);
  if (!fd) return fd;
  timeval const limit{static_cast<time_t>(patience.count()), 0};
  ::setsockopt(fd->get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  ::setsockopt(fd->get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
  auto const* const raw = reinterpret_cast<sockaddr const*>(&address->first);
  if (::connect(fd->get(), raw, address->second) != 0) return fail_errno(errno, path);
  if (::send(fd->get(), question.data(), question.size(), MSG_NOSIGNAL) < 0) {
    return fail_errno(errno, path);
  }
  return fd;
}

Result<std::string> ask_control(std::string const& path, std::string_view question) {
  auto const fd = send_question(path, question, std::chrono::seconds(2));
  if (!fd) return fail(fd.error());
  std::string answer(longest_answer, '\0');
  auto const n = ::recv(fd->get(), answer.data(), answer.size(), 0);
  if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
    return fail(Errc::timed_out, path + ": no answer");
  }
  if (n < 0) return fail_errno(errno, path);
  answer.resize(static_cast<std::size_t>(n));
  return answer;
}

}  // namespace mount_oci
