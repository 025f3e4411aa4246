// SPDX-License-Identifier: Apache-2.0
/// @file
/// ServiceNotifier: reports the state of a service to its manager, as sd_notify(3) does.
#pragma once

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>

#include <sys/socket.h>
#include <sys/time.h>

#include <erofs_oci/core/fd.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/posix/unix_socket.hpp>

namespace erofs_oci {

/// Sends states to the socket that NOTIFY_SOCKET names, or nowhere if it is not set. Sending blocks
/// for a second at most if the manager does not receive.
/// @spec{sd_notify(3): one datagram a message, of lines `NAME=value`}
///
/// @par Thread safety
/// All const members, from any thread.
class ServiceNotifier {
 public:
  /// Sends nowhere.
  ServiceNotifier() = default;

  /// Sends to that socket: an absolute path, or `@name` for an abstract one. Empty: nowhere.
  /// @error{Errc::unsupported, another kind of address}
  /// @error{Errc::invalid_argument, an address without a name}
  /// @error{std::errc::filename_too_long, as UnixAddress}
  /// @error{an errno, as socket(2)}
  [[nodiscard]] static Result<ServiceNotifier> open(std::string_view address) {
    ServiceNotifier notifier;
    if (address.empty()) return notifier;
    if (address.front() != '/' && address.front() != '@') {
      return fail(Errc::unsupported, "NOTIFY_SOCKET: neither a path nor an abstract name");
    }
    if (address.size() < 2) {
      return fail(Errc::invalid_argument, "NOTIFY_SOCKET: not a socket's name");
    }
    EROFS_OCI_TRY_ASSIGN(notifier.address_,
                         address.front() == '@' ? UnixAddress::abstract(address.substr(1))
                                                : UnixAddress::at(std::string(address)),
                         "NOTIFY_SOCKET");
    notifier.fd_ = UniqueFd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    if (!notifier.fd_) return fail_errno(errno, "NOTIFY_SOCKET");
    timeval const second{1, 0};
    ::setsockopt(notifier.fd_.get(), SOL_SOCKET, SO_SNDTIMEO, &second, sizeof second);
    return notifier;
  }

  /// Removes NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID from the environment, so that children
  /// do not report for the service. Call it before there are threads.
  /// @error{as open(), as there}
  [[nodiscard]] static Result<ServiceNotifier> from_environment() {
    auto const* const value = std::getenv("NOTIFY_SOCKET");
    auto const address = std::string(value == nullptr ? "" : value);
    for (auto const* name : {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"}) ::unsetenv(name);
    return open(address);
  }

  /// Whether a manager listens.
  [[nodiscard]] bool is_active() const noexcept { return static_cast<bool>(fd_); }

  /// @name Messages
  /// @error{an errno, as sendto(2)}
  /// @{

  /// The service has started.
  [[nodiscard]] Result<void> ready() const { return send("READY=1"); }

  /// The service is about to end.
  [[nodiscard]] Result<void> stopping() const { return send("STOPPING=1"); }

  /// A line for people. Control characters become spaces, since a newline would begin another
  /// message.
  [[nodiscard]] Result<void> status(std::string_view text) const {
    auto line = "STATUS=" + std::string(text);
    std::ranges::replace_if(line, [](char c) { return c >= 0 && c < ' '; }, ' ');
    return send(line);
  }
  /// @}

 private:
  Result<void> send(std::string const& message) const {
    if (!fd_) return {};
    for (;;) {
      auto const n = ::sendto(fd_.get(), message.data(), message.size(), MSG_NOSIGNAL,
                              address_->get(), address_->size());
      if (n >= 0) return {};
      if (errno != EINTR) return fail_errno(errno, "NOTIFY_SOCKET");
    }
  }

  UniqueFd fd_{};
  std::optional<UnixAddress> address_{};  // there is one if there is a descriptor
};

}  // namespace erofs_oci
