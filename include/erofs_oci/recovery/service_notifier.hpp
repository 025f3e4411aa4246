// SPDX-License-Identifier: Apache-2.0
/// @file
/// ServiceNotifier: tells a service manager how the service is, as sd_notify(3) does.
#pragma once

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include <sys/socket.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/un.h>
#include <unistd.h>

#include <erofs_oci/core/fd.hpp>
#include <erofs_oci/core/result.hpp>

namespace erofs_oci {

/// Sends states to the socket in NOTIFY_SOCKET, or nowhere if there is none: a service runs the
/// same without a manager. No message waits longer than a second for one that does not listen.
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
  /// @error{Errc::invalid_argument, an address that is too long}
  /// @error{an errno, as socket(2)}
  [[nodiscard]] static Result<ServiceNotifier> open(std::string_view address) {
    ServiceNotifier notifier;
    if (address.empty()) return notifier;
    if (address.front() != '/' && address.front() != '@') {
      return fail(Errc::unsupported, "NOTIFY_SOCKET: neither a path nor an abstract name");
    }
    if (address.size() >= sizeof notifier.address_.sun_path || address.size() < 2) {
      return fail(Errc::invalid_argument, "NOTIFY_SOCKET: not a socket's name");
    }
    notifier.address_.sun_family = AF_UNIX;
    std::ranges::copy(address, notifier.address_.sun_path);
    if (address.front() == '@') notifier.address_.sun_path[0] = '\0';
    notifier.length_ = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + address.size() +
                                              (address.front() == '/' ? 1 : 0));
    notifier.fd_ = UniqueFd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    if (!notifier.fd_) return fail_errno(errno, "NOTIFY_SOCKET");
    timeval const second{1, 0};
    ::setsockopt(notifier.fd_.get(), SOL_SOCKET, SO_SNDTIMEO, &second, sizeof second);
    return notifier;
  }

  /// Takes NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID out of the environment, so that children
  /// do not speak for the service. Call it before there are threads.
  /// @error{as open(), as there}
  [[nodiscard]] static Result<ServiceNotifier> from_environment() {
    auto const take = [](char const* name) {
      auto const* const value = std::getenv(name);
      auto text = std::string(value == nullptr ? "" : value);
      ::unsetenv(name);
      return text;
    };
    auto const interval = number(take("WATCHDOG_USEC"));
    auto const pid = take("WATCHDOG_PID");
    auto notifier = open(take("NOTIFY_SOCKET"));
    if (!notifier) return notifier;
    auto const for_us = pid.empty() || number(pid) == static_cast<std::uint64_t>(::getpid());
    if (interval && *interval > 0 && for_us && notifier->is_active()) {
      notifier->watchdog_ = std::chrono::microseconds(*interval);
    }
    return notifier;
  }

  /// Whether a manager listens.
  [[nodiscard]] bool is_active() const noexcept { return static_cast<bool>(fd_); }

  /// How often watchdog() is due: half of the time after which the manager kills. Empty: never.
  [[nodiscard]] std::optional<std::chrono::microseconds> watchdog_interval() const noexcept {
    if (!watchdog_) return std::nullopt;
    return *watchdog_ / 2;
  }

  /// @name Messages
  /// @error{an errno, as sendto(2)}
  /// @{

  /// The service has started.
  [[nodiscard]] Result<void> ready() const { return send("READY=1"); }

  /// It is about to end.
  [[nodiscard]] Result<void> stopping() const { return send("STOPPING=1"); }

  /// It is well.
  [[nodiscard]] Result<void> watchdog() const { return send("WATCHDOG=1"); }

  /// Another process is the service from here on.
  [[nodiscard]] Result<void> main_pid(pid_t pid) const {
    return send("MAINPID=" + std::to_string(pid));
  }

  /// A line for people; control characters become spaces, lest they begin another message.
  [[nodiscard]] Result<void> status(std::string_view text) const {
    auto line = "STATUS=" + std::string(text);
    std::ranges::replace_if(line, [](char c) { return c >= 0 && c < ' '; }, ' ');
    return send(line);
  }
  /// @}

 private:
  static std::optional<std::uint64_t> number(std::string const& text) {
    std::uint64_t value = 0;
    auto const [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    constexpr std::uint64_t most = std::uint64_t{1} << 62;  // fits std::chrono
    if (error != std::errc() || end != text.data() + text.size() || value > most) {
      return std::nullopt;
    }
    return value;
  }

  Result<void> send(std::string const& message) const {
    if (!fd_) return {};
    for (;;) {
      auto const n = ::sendto(fd_.get(), message.data(), message.size(), MSG_NOSIGNAL,
                              reinterpret_cast<sockaddr const*>(&address_), length_);
      if (n >= 0) return {};
      if (errno != EINTR) return fail_errno(errno, "NOTIFY_SOCKET");
    }
  }

  UniqueFd fd_{};
  sockaddr_un address_{};
  socklen_t length_ = 0;
  std::optional<std::chrono::microseconds> watchdog_{};
};

}  // namespace erofs_oci
