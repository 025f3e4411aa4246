// SPDX-License-Identifier: Apache-2.0
#include "control.hpp"

#include <array>
#include <cerrno>
#include <utility>

#include <sys/socket.h>
#include <sys/time.h>

#include <erofs_oci/posix/unix_socket.hpp>

namespace mount_oci {
namespace {

using erofs_oci::fail;
using erofs_oci::fail_errno;

constexpr std::size_t longest_answer = 256 * 1024;
constexpr std::size_t longest_question = 8192;

}  // namespace

std::string control_path(std::string const& directory, std::string const& name) {
  return directory + "/" + name + ".sock";
}

Result<ClientSockets> listen_control(std::string const& path, ControlAnswer answer) {
  // One that a predecessor still has is replaced, too.
  EROFS_OCI_TRY_ASSIGN(auto listener, erofs_oci::listen_unix(path, SOCK_SEQPACKET, 16,
                                                             erofs_oci::OldSocket::replace));
  auto const serve = [answer = std::move(answer)](ClientSockets::Client& client) {
    std::array<char, longest_question> buffer{};
    auto const fd = client.fd.get();
    auto const n = ::recv(fd, buffer.data(), buffer.size(), MSG_DONTWAIT);
    if (n <= 0) return false;
    auto const text = answer({buffer.data(), static_cast<std::size_t>(n)}, client.fd);
    // A client that does not read gets no answer.
    if (client.fd) ::send(fd, text.data(), text.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    return false;
  };
  return ClientSockets(std::move(listener), path, 16, ClientSockets::Full::waits, serve);
}

Result<UniqueFd> send_question(std::string const& path, std::string_view question,
                               std::chrono::seconds patience) {
  EROFS_OCI_TRY_ASSIGN(auto const address, erofs_oci::UnixAddress::at(path));
  UniqueFd fd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  if (!fd) return fail_errno(errno, "socket");
  timeval const limit{static_cast<time_t>(patience.count()), 0};
  ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  ::setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
  if (::connect(fd.get(), address.get(), address.size()) != 0 ||
      ::send(fd.get(), question.data(), question.size(), MSG_NOSIGNAL) < 0) {
    return fail_errno(errno, path);
  }
  return fd;
}

Result<std::string> ask_control(std::string const& path, std::string_view question) {
  EROFS_OCI_TRY_ASSIGN(auto const fd, send_question(path, question, std::chrono::seconds(2)));
  std::string answer(longest_answer, '\0');
  auto const n = ::recv(fd.get(), answer.data(), answer.size(), 0);
  if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
    return fail(Errc::timed_out, path + ": no answer");
  }
  if (n < 0) return fail_errno(errno, path);
  answer.resize(static_cast<std::size_t>(n));
  return answer;
}

}  // namespace mount_oci
