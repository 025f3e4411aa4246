// SPDX-License-Identifier: Apache-2.0
/// @file
/// Resolver: addresses of hosts, looked up within a deadline and kept for a short time.
#pragma once

#include <algorithm>
#include <array>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <stop_token>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <erofs_oci/core/result.hpp>

namespace erofs_oci {

/// Where an address can be reached from, the widest first. A server at a wider one has no business
/// with those behind it.
enum class Reach : std::uint8_t {
  everywhere,  ///< public
  site,        ///< private networks: RFC 1918, RFC 6598, RFC 4193
  machine,     ///< loopback
  link,        ///< link-local (among them what clouds call metadata service), multicast, reserved
};

/// An address of a host, without a port.
struct HostAddress {
  sockaddr_storage address{};
  socklen_t length = 0;

  /// Reads what getaddrinfo(3) has found.
  [[nodiscard]] static HostAddress of(addrinfo const& found) noexcept {
    HostAddress out;
    out.length = std::min<socklen_t>(found.ai_addrlen, sizeof out.address);
    std::memcpy(&out.address, found.ai_addr, out.length);
    return out;
  }

  [[nodiscard]] Reach reach() const noexcept {
    if (address.ss_family == AF_INET) {
      sockaddr_in v4{};
      std::memcpy(&v4, &address, sizeof v4);
      return reach_of(ntohl(v4.sin_addr.s_addr));
    }
    sockaddr_in6 v6{};
    std::memcpy(&v6, &address, sizeof v6);
    auto const& bytes = v6.sin6_addr.s6_addr;
    if ((bytes[0] & 0xfeU) == 0xfc) return Reach::site;
    if (bytes[0] == 0xff || (bytes[0] == 0xfe && (bytes[1] & 0xc0U) == 0x80)) return Reach::link;
    constexpr std::array<std::uint8_t, 12> translated{0, 0x64, 0xff, 0x9b};  // RFC 6052
    auto const* const zeros_end = std::ranges::find_if(bytes, [](auto b) { return b != 0; });
    auto const zeros = zeros_end - std::begin(bytes);
    auto const mapped = zeros == 10 && bytes[10] == 0xff && bytes[11] == 0xff;
    if (zeros >= 12 || mapped || std::equal(translated.begin(), translated.end(), bytes)) {
      if (zeros >= 15 && bytes[15] <= 1) return Reach::machine;  // :: and ::1
      std::uint32_t v4 = 0;
      std::memcpy(&v4, bytes + 12, sizeof v4);
      return reach_of(ntohl(v4));
    }
    return Reach::everywhere;
  }

  /// As numbers.
  [[nodiscard]] std::string text() const {
    std::array<char, NI_MAXHOST> name{};
    auto const* const raw = reinterpret_cast<sockaddr const*>(&address);
    if (::getnameinfo(raw, length, name.data(), name.size(), nullptr, 0, NI_NUMERICHOST) != 0) {
      return {};
    }
    return name.data();
  }

  void set_port(std::uint16_t port) noexcept {
    static_assert(offsetof(sockaddr_in, sin_port) == offsetof(sockaddr_in6, sin6_port));
    auto const big = htons(port);
    std::memcpy(reinterpret_cast<char*>(&address) + offsetof(sockaddr_in, sin_port), &big, 2);
  }

 private:
  [[nodiscard]] static constexpr Reach reach_of(std::uint32_t v4) noexcept {
    auto const in = [v4](std::uint32_t net, unsigned bits) {
      return v4 >> (32 - bits) == net >> (32 - bits);
    };
    if (in(0x0a000000, 8) || in(0xac100000, 12) || in(0xc0a80000, 16) || in(0x64400000, 10)) {
      return Reach::site;
    }
    if (in(0x7f000000, 8) || in(0, 8)) return Reach::machine;
    return in(0xa9fe0000, 16) || v4 >= 0xe0000000 ? Reach::link : Reach::everywhere;
  }
};

/// The addresses of a host by getaddrinfo(3), in its order. Takes what the system's resolver takes.
/// @param flags  AI_NUMERICHOST: no look-up, only addresses are read
/// @error{Errc::unavailable, there are none}
[[nodiscard]] inline Result<std::vector<HostAddress>> look_up(std::string const& host,
                                                              int flags = 0) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = flags;
  addrinfo* found = nullptr;
  if (auto const error = ::getaddrinfo(host.c_str(), nullptr, &hints, &found); error != 0) {
    return fail(explain(Errc::unavailable, "looking up " + host + ": " + ::gai_strerror(error)));
  }
  std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> const owner(found, &::freeaddrinfo);
  std::vector<HostAddress> out;
  for (auto const* one = found; one != nullptr; one = one->ai_next) {
    if (one->ai_family == AF_INET || one->ai_family == AF_INET6) {
      out.push_back(HostAddress::of(*one));
    }
  }
  if (out.empty()) return fail(Errc::unavailable, "looking up " + host + ": no address");
  return out;
}

/// Looks hosts up, each once for all who ask at the same time, in threads that are left behind when
/// they take longer than anybody waits: getaddrinfo(3) has no deadline.
///
/// @par Thread safety
/// All members, from any thread.
class Resolver {
 public:
  using Addresses = std::vector<HostAddress>;
  using LookUp = std::function<Result<Addresses>(std::string const& host)>;

  /// How long addresses are kept.
  static constexpr std::chrono::seconds kept{30};
  /// Most look-ups that run at a time.
  static constexpr std::size_t most_running = 16;

  explicit Resolver(LookUp ask = [](std::string const& host) { return look_up(host); })
      : state_(std::make_shared<State>()) {
    state_->ask = std::move(ask);
  }

  /// The addresses of a name, or of an address.
  /// @error{Errc::timed_out, not by `deadline`; a later call may find them}
  /// @error{Errc::stopping, `stop` is requested first}
  /// @error{Errc::unavailable, there are none\, or too many look-ups run}
  [[nodiscard]] Result<Addresses> resolve(std::string const& host,
                                          std::chrono::steady_clock::time_point deadline,
                                          std::stop_token const& stop = {}) {
    if (auto literal = look_up(host, AI_NUMERICHOST)) return literal;
    std::unique_lock lock(state_->mutex);
    auto const now = std::chrono::steady_clock::now();
    std::erase_if(state_->entries, [now](auto const& entry) {
      return !entry.second->running && entry.second->until <= now;
    });
    auto& slot = state_->entries[host];
    if (!slot) {
      auto const running = std::ranges::count_if(
          state_->entries, [](auto const& entry) { return entry.second && entry.second->running; });
      if (running >= static_cast<std::ptrdiff_t>(most_running)) {
        state_->entries.erase(host);
        return fail(Errc::unavailable, "looking up " + host + ": too many look-ups run");
      }
      slot = std::make_shared<Entry>();
      start(host, slot);
    }
    auto const entry = slot;
    auto const longest =
        std::min<std::chrono::steady_clock::duration>(deadline - now, std::chrono::hours(24));
    if (!state_->changed.wait_for(lock, stop, longest, [&] { return !entry->running; })) {
      return fail(stop.stop_requested() ? Errc::stopping : Errc::timed_out, "looking up " + host);
    }
    return entry->found;
  }

 private:
  struct Entry {
    bool running = true;
    std::chrono::steady_clock::time_point until{};  // of an error: not kept
    Result<Addresses> found = Addresses();
  };

  struct State {
    LookUp ask;
    std::mutex mutex;
    std::condition_variable_any changed;
    std::map<std::string, std::shared_ptr<Entry>> entries;
  };

  void start(std::string const& host, std::shared_ptr<Entry> const& entry) {
    auto begun = without_throwing([&]() -> Result<void> {
      std::thread([state = state_, host, entry] {
        auto found = without_throwing([&] { return state->ask(host); });
        std::lock_guard const lock(state->mutex);
        if (found) entry->until = std::chrono::steady_clock::now() + kept;
        entry->found = std::move(found);
        entry->running = false;
        state->changed.notify_all();
      }).detach();
      return {};
    });
    if (begun) return;
    entry->running = false;
    entry->found = fail(std::move(begun).error());
  }

  std::shared_ptr<State> state_;
};

}  // namespace erofs_oci
