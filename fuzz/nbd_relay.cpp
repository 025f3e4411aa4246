// SPDX-License-Identifier: Apache-2.0
/// @file
/// NbdRelay between a kernel and engines, by a script: engines that answer in any order, lie, die
/// and come, and bytes of the kernel's that are no requests. The relay answers each request at most
/// once, with the bytes that an honest engine read, and answers all once there is one.
#include <array>
#include <cstdint>
#include <cstring>
#include <map>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include <poll.h>
#include <sys/socket.h>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/nbd/relay.hpp>
#include <erofs_oci/posix/descriptor.hpp>

#include "input.hpp"

using namespace erofs_oci;

namespace {

constexpr std::uint64_t device_size = 1 << 20;

std::byte byte_at(std::uint64_t offset) {
  return static_cast<std::byte>(offset * 31 >> 5);
}

/// An engine's end of the channel.
struct Engine {
  nbd::EngineId id = 0;
  UniqueFd channel;
  SharedMemory arena;
  std::vector<nbd::EngineRequest> requests{};

  void receive() {
    nbd::Packet<nbd::EngineRequest> packet;
    while (channel) {
      auto const n =
          ::recv(channel.get(), packet.room().data(), packet.room().size(), MSG_DONTWAIT);
      if (n <= 0) return;
      for (std::size_t i = 0; i < packet.count(static_cast<std::size_t>(n)); ++i) {
        auto const& r = requests.emplace_back(packet[i]);
        fuzz::require(r.length > 0 && r.offset <= device_size &&
                      r.length <= device_size - r.offset);
        auto const room = arena.bytes().size();
        fuzz::require(r.place <= room && r.length <= room - r.place);
      }
    }
  }

  void answer(std::size_t index, std::uint32_t error) {
    if (requests.empty()) return;
    auto const at = requests.begin() + static_cast<std::ptrdiff_t>(index % requests.size());
    auto const place = arena.bytes().subspan(at->place, at->length);
    for (std::size_t i = 0; i < place.size(); ++i) place[i] = byte_at(at->offset + i);
    nbd::EngineAnswer const answer{at->id, error};
    send(std::as_bytes(std::span(&answer, 1)));
    requests.erase(at);
  }

  void send(std::span<std::byte const> bytes) const {
    if (!channel) return;
    [[maybe_unused]] auto const n =
        ::send(channel.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  }
};

/// The kernel's end of a socket.
class Kernel {
 public:
  explicit Kernel(UniqueFd fd) : fd_(std::move(fd)) {}

  void ask(std::uint16_t type, std::uint64_t offset, std::uint32_t length) {
    nbd::Request const request{0, type, ++cookie_, offset, length};
    if (request.is(nbd::Command::write)) return;  // its payload would follow
    if (send(nbd::encode(request))) waiting_.emplace(request.cookie, request);
  }

  void send_any(std::span<std::byte const> bytes) {
    exact_ = exact_ && bytes.empty();
    send(bytes);
  }

  void lie() { honest_ = false; }
  [[nodiscard]] bool exact() const { return exact_; }

  /// READs that no reply has come for.
  [[nodiscard]] std::size_t waiting() const { return waiting_.size(); }

  void receive() {
    std::array<std::byte, 1 << 14> buffer{};
    for (;;) {
      auto const n = ::recv(fd_.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
      if (n <= 0) break;
      input_.insert(input_.end(), buffer.begin(), buffer.begin() + n);
    }
    while (exact_ && take_reply()) {}
  }

 private:
  bool send(std::span<std::byte const> bytes) const {
    return ::send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT) > 0;
  }

  bool take_reply() {
    constexpr auto header = nbd::SimpleReply::wire_size;
    if (input_.size() < header) return false;
    auto const reply = nbd::decode_simple_reply(std::span(input_).first<header>());
    fuzz::require(reply.has_value());
    auto const found = waiting_.find(reply->cookie);
    fuzz::require(found != waiting_.end());
    auto const request = found->second;
    auto const good = reply->error == nbd::Errno::none && request.is(nbd::Command::read);
    auto const length = good ? request.length : 0;
    if (input_.size() - header < length) return false;
    for (std::uint32_t i = 0; honest_ && i < length; ++i) {
      fuzz::require(input_[header + i] == byte_at(request.offset + i));
    }
    waiting_.erase(found);
    input_.erase(input_.begin(), input_.begin() + static_cast<std::ptrdiff_t>(header + length));
    return true;
  }

  UniqueFd fd_;
  std::uint64_t cookie_ = 0;
  std::map<std::uint64_t, nbd::Request> waiting_{};
  Bytes input_{};
  bool exact_ = true;   // nothing but requests was sent
  bool honest_ = true;  // no engine may have answered without having read
};

void act(NbdRelay& relay) {
  for (int i = 0; i < 4; ++i) {
    std::vector<pollfd> fds;
    relay.watch(fds);
    if (::poll(fds.data(), fds.size(), 0) <= 0) return;
    relay.act(fds);
  }
}

std::optional<Engine> new_engine(NbdRelay& relay) {
  auto added = relay.add_engine();
  if (!added) return std::nullopt;
  auto arena = SharedMemory::map(std::move(added->second.arena));
  fuzz::require(arena.has_value());
  return Engine{added->first, std::move(added->second.channel), *std::move(arena)};
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  constexpr std::array errors{0U, 1U, 5U, 12U, 22U, 28U, 75U, 95U, 108U};
  fuzz::Input input(data, size);
  auto ends = socket_pair();
  if (!ends) return 0;
  Kernel kernel(std::move(ends->first));
  std::vector<UniqueFd> sockets;
  sockets.push_back(std::move(ends->second));
  NbdRelayOptions const options{.arena = 1 << 16, .requests = 8};
  auto relay = NbdRelay::make({.size = device_size}, std::move(sockets), options);
  if (!relay) return 0;
  std::vector<Engine> engines;
  std::size_t probes = 0;
  auto const any_engine = [&]() -> Engine* {
    auto const index = input.byte();
    return engines.empty() ? nullptr : &engines[index % engines.size()];
  };

  while (!input.empty()) {
    auto const what = input.byte();
    if (what < 100) {
      auto const offset = input.number<std::uint16_t>() * std::uint64_t{17};
      kernel.ask(what < 80 ? 0 : what % 8, offset, input.number<std::uint16_t>());
    } else if (what < 104) {
      kernel.send_any(input.bytes(input.byte()));
    } else if (what < 120 && engines.size() < 4) {
      if (auto engine = new_engine(*relay)) engines.push_back(*std::move(engine));
    } else if (auto* const engine = any_engine(); engine != nullptr) {
      if (what < 140) relay->activate(engine->id);
      if (what >= 140 && what < 200) engine->answer(input.byte(), errors[what % errors.size()]);
      if (what >= 200 && what < 210) {
        kernel.lie();
        engine->send(input.bytes(input.byte()));
      }
      if (what >= 210 && what < 215) engine->channel.reset();
      if (what >= 215 && what < 235) {
        relay->remove_engine(engine->id, what % 2 == 0 ? EngineEnd::crashed : EngineEnd::killed);
        std::swap(*engine, engines.back());
        engines.pop_back();
      }
      if (what >= 235 && what < 245) {
        ++probes;
        relay->probe(engine->id, 512, input.byte() + 1U, [&](auto const&) { --probes; });
      }
    }
    if (what == 250) relay->pause();
    if (what == 251) relay->resume();
    act(*relay);
    for (auto& engine : engines) engine.receive();
    kernel.receive();
  }

  // In the end an honest engine comes, and everything is answered.
  for (auto const& engine : engines) relay->remove_engine(engine.id);
  fuzz::require(probes == 0);
  relay->resume();
  auto last = new_engine(*relay);
  if (!last) return 0;
  relay->activate(last->id);
  for (int i = 0; i < 2000 && (i < 3 || kernel.waiting() > 0); ++i) {
    act(*relay);
    last->receive();
    while (!last->requests.empty()) last->answer(0, 0);
    kernel.receive();
  }
  if (kernel.exact() && !relay->ended()) {
    fuzz::require(kernel.waiting() == 0 && relay->in_flight() == 0);
  }
  return 0;
}
