// SPDX-License-Identifier: Apache-2.0
/// @file
/// NbdRelay: keeps a device's sockets while the processes that read for it come and go.
#pragma once

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <functional>
#include <iterator>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/fd.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/core/shared_memory.hpp>
#include <erofs_oci/nbd/arena.hpp>
#include <erofs_oci/nbd/connect.hpp>
#include <erofs_oci/nbd/engine_protocol.hpp>
#include <erofs_oci/nbd/protocol.hpp>
#include <erofs_oci/nbd/reply.hpp>

namespace erofs_oci {

/// How much a relay takes on.
struct NbdRelayOptions {
  /// Bytes of data in flight; a multiple of 4096, and not less than the longest READ that is to
  /// work. Default: 32 MiB, the longest that the protocol asks for.
  std::size_t arena = nbd::max_payload;
  std::size_t requests = 128;  ///< in flight a socket; the kernel has 128
  /// A READ that so many engines have crashed with is a suspect: an engine gets it alone.
  unsigned suspect_after = 2;
  /// A suspect that so many more engines have crashed with is answered EIO.
  unsigned refuse_after = 3;
};

/// Why an engine has ended.
enum class EngineEnd : std::uint8_t {
  killed,   ///< by somebody else, or on purpose
  crashed,  ///< perhaps by something that it was asked: a signal of its own making, a hang
};

/// How a relay ended.
enum class NbdRelayEnd : std::uint8_t {
  disconnected,  ///< the kernel said so
  hung_up,       ///< all its sockets are closed
};

/// What a relay has done so far.
struct NbdRelayCounters {
  std::uint64_t requests = 0;    ///< READs
  std::uint64_t bytes = 0;       ///< of READs that were answered with data
  std::uint64_t errors = 0;      ///< READs that were answered with an error
  std::uint64_t taken_over = 0;  ///< READs that an engine left behind and another one got
};

/// A socket on its way from one relay to another.
struct NbdRelaySocket {
  UniqueFd fd{};
  Bytes unread{};  ///< what was received of a request that is not whole yet
};

/// Stands between the kernel's NBD client and the process that reads the image, the engine. It owns
/// the sockets and knows which requests are unanswered, and nothing else: no source, no network, no
/// secret. An engine may be killed at any instant. Since it has no socket of the kernel's, no reply
/// is ever cut short; what it had not answered goes to the next one, and the kernel notices nothing
/// but time.
///
/// A READ that crashes whoever gets it would so end one engine after the other. It is found out by
/// being given to an engine alone, and costs that READ an error and not the device.
///
/// Data go through shared memory: an engine writes them, the relay sends them.
///
/// Only simple replies and no handshake: for sockets that the kernel was given.
///
/// It makes no thread and never blocks: the caller polls what watch() names and calls act().
///
/// @par Thread safety
/// None: one thread at a time.
class NbdRelay {
 public:
  using EngineId = std::uint64_t;

  /// Gets the bytes of a probe, or why there are none; they are gone when it returns.
  using OnProbe = std::function<void(Result<std::span<std::byte const>>)>;

  /// Owns the sockets.
  /// @error{an errno, as SharedMemory::make()}
  [[nodiscard]] static Result<NbdRelay> make(Export served, std::vector<UniqueFd> sockets,
                                             NbdRelayOptions options = {}) {
    auto arena = SharedMemory::make(options.arena);
    if (!arena) return fail(std::move(arena).error(), "nbd relay");
    return NbdRelay(std::move(served), std::move(sockets), *std::move(arena), options);
  }

  /// @name Sockets
  /// @{

  /// Takes over what another relay has released.
  /// @error{Errc::protocol, more is unread than a relay leaves}
  [[nodiscard]] Result<void> add_socket(NbdRelaySocket socket) {
    if (socket.unread.size() >= nbd::Request::wire_size) {
      return fail(Errc::protocol, "nbd relay: a whole request is unread");
    }
    auto& added = sockets_.emplace_back();
    added.fd = std::move(socket.fd);
    std::ranges::copy(socket.unread, added.input.begin());
    added.size = socket.unread.size();
    return {};
  }

  /// Takes no new request from here on, but answers those that it has.
  void pause() noexcept { paused_ = true; }

  /// Whether, once paused, everything is answered and sent.
  [[nodiscard]] bool is_idle() const noexcept {
    return paused_ && reads_.empty() && std::ranges::all_of(sockets_, [](Socket const& socket) {
             return socket.replies.empty() && socket.drop == 0 &&
                    socket.size < nbd::Request::wire_size;
           });
  }

  /// Takes requests again, if it has sockets or gets some.
  void resume() noexcept { paused_ = false; }

  /// Gives the sockets away; for one that is_idle(). Nothing is answered any more, but for sockets
  /// that add_socket() brings.
  [[nodiscard]] std::vector<NbdRelaySocket> release_sockets() {
    std::vector<NbdRelaySocket> released;
    for (auto& socket : sockets_) {
      if (!socket.fd) continue;
      auto const unread = std::span<std::byte const>(socket.input).first(socket.size);
      released.push_back({std::move(socket.fd), to_bytes(unread)});
    }
    sockets_.clear();
    return released;
  }
  /// @}

  /// @name Engines
  /// @{

  /// A place for one more engine. It gets no request before activate().
  /// @error{an errno, as socketpair(2)}
  [[nodiscard]] Result<std::pair<EngineId, nbd::RelayPort>> add_engine() {
    std::array<int, 2> fds{};
    if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds.data()) != 0) {
      return fail_errno(errno, "nbd relay: socketpair");
    }
    UniqueFd ours(fds[0]);
    nbd::RelayPort port;
    port.channel = UniqueFd(fds[1]);
    port.arena = UniqueFd(::fcntl(arena_.fd(), F_DUPFD_CLOEXEC, 3));
    if (!port.arena) return fail_errno(errno, "nbd relay: dup");
    auto const id = next_engine_++;
    engines_.emplace(id, std::move(ours));
    return std::pair(id, std::move(port));
  }

  /// New requests go to this engine from here on, as do those that nobody has. Those that an older
  /// one has stay with it.
  void activate(EngineId id) {
    active_ = id;
    settle();
  }

  /// Forgets an engine whose process has been reaped: only then can it write to the arena no more.
  /// What it has not answered goes to the active one, or waits for the next.
  void remove_engine(EngineId id, EngineEnd how = EngineEnd::killed) {
    if (active_ == id) active_ = 0;
    engines_.erase(id);
    std::vector<std::uint64_t> ended;
    for (auto& [token, read] : reads_) {
      if (read.engine != id) continue;
      if (read.socket == no_socket) {
        ended.push_back(token);
        continue;
      }
      read.engine = 0;
      unsent_.push_back(token);
      if (how == EngineEnd::crashed) ++read.crashes;
      has_suspects_ = has_suspects_ || is_suspect(read);
      ++counters_.taken_over;
    }
    for (auto const token : ended) drop(token);
    refuse_crashers();
    settle();
  }

  /// Reads a part of the device by one engine, active or not.
  /// @param length  bytes, at least 1
  void probe(EngineId id, std::uint64_t offset, std::uint32_t length, OnProbe on_probe) {
    auto const place = ranges_.take(length);
    auto const engine = engines_.find(id);
    if (!place || engine == engines_.end()) {
      if (place) ranges_.give_back(*place, length);
      return on_probe(fail(Errc::unavailable, "nbd relay: no room for a probe"));
    }
    auto const token = next_read_++;
    nbd::EngineRequest const message{token, offset, *place, length, nbd::EngineCommand::read};
    reads_.emplace(token, Read{no_socket, 0, offset, length, *place, id, std::move(on_probe)});
    if (!send_to(engine->second, {&message, 1})) end_probe(token, nbd::Errno::io);
  }

  /// How many requests an engine has not answered.
  [[nodiscard]] std::size_t unanswered(EngineId id) const {
    return static_cast<std::size_t>(
        std::ranges::count_if(reads_, [&](auto const& each) { return each.second.engine == id; }));
  }

  /// Closes the channels of all engines, which ends them.
  void close_engines() noexcept {
    for (auto& [id, channel] : engines_) channel.reset();
  }
  /// @}

  /// @name In a poll(2) loop
  /// @{

  /// Adds what to wait for.
  void watch(std::vector<pollfd>& fds) const {
    for (auto const& socket : sockets_) {
      short events = 0;
      if (can_receive(socket)) events |= POLLIN;
      if (!socket.replies.empty()) events |= POLLOUT;
      fds.push_back({socket.fd.get(), events, 0});
    }
    for (auto const& [id, channel] : engines_) {
      short const events = channel && is_full_ && id == active_ ? POLLIN | POLLOUT : POLLIN;
      fds.push_back({channel.get(), events, 0});
    }
  }

  /// Does what can be done.
  /// @param fds  what watch() added the last time, since when nothing else was called
  void act(std::span<pollfd const> fds) {
    std::vector<EngineId> ids;
    for (auto const& [id, channel] : engines_) ids.push_back(id);
    for (std::size_t i = 0; i < ids.size(); ++i) {
      if (fds[sockets_.size() + i].revents != 0) hear(ids[i]);
    }
    for (std::size_t i = 0; i < sockets_.size(); ++i) {
      if (fds[i].revents != 0) serve(i);
    }
    settle();
  }

  /// Whether and how the connection to the kernel has ended.
  [[nodiscard]] std::optional<NbdRelayEnd> ended() const noexcept { return ended_; }
  /// @}

  [[nodiscard]] NbdRelayCounters const& counters() const noexcept { return counters_; }

  /// READs that are not answered yet.
  [[nodiscard]] std::size_t in_flight() const noexcept { return reads_.size(); }

  /// Why an engine or the kernel was not understood; the last such text, or empty.
  [[nodiscard]] std::string const& complaint() const noexcept { return complaint_; }

 private:
  static constexpr std::size_t no_socket = static_cast<std::size_t>(-1);
  static constexpr std::size_t input_size = 64 * nbd::Request::wire_size;
  static constexpr std::uint32_t write_slack = 1024 * 1024;

  /// A READ on its way.
  struct Read {
    std::size_t socket = no_socket;  // none: a probe, or its socket has gone
    std::uint64_t cookie = 0;
    std::uint64_t offset = 0;
    std::uint32_t length = 0;
    std::size_t place = 0;  // in the arena
    EngineId engine = 0;    // that has it; 0: nobody
    OnProbe on_probe{};
    unsigned crashes = 0;  // of engines that had it
  };

  /// A reply on its way, with or without data.
  struct Reply {
    std::array<std::byte, nbd::SimpleReply::wire_size> header{};
    std::size_t place = 0;     // in the arena
    std::uint32_t length = 0;  // of the data
    bool counted = false;      // in Socket::in_flight
    std::uint32_t held = 0;    // bytes taken from the arena; 0: none
  };

  struct Socket {
    UniqueFd fd;
    std::array<std::byte, input_size> input{};
    std::size_t size = 0;       // of the input
    std::uint32_t drop = 0;     // bytes of a WRITE's payload that are still to come
    std::uint64_t dropped = 0;  // cookie of that WRITE
    nbd::Errno refusal{};       // what it is answered
    std::deque<Reply> replies{};
    std::size_t sent = 0;       // of the first reply
    std::size_t in_flight = 0;  // READs
    bool full = false;          // waits for room in the arena
  };

  NbdRelay(Export served, std::vector<UniqueFd> sockets, SharedMemory arena,
           NbdRelayOptions options)
      : served_(std::move(served)),
        arena_(std::move(arena)),
        ranges_(options.arena),
        limit_(std::max<std::size_t>(options.requests, 1)),
        suspect_after_(std::max(options.suspect_after, 1U)),
        refuse_after_(std::max(options.refuse_after, 1U)) {
    for (auto& fd : sockets) {
      sockets_.emplace_back();
      sockets_.back().fd = std::move(fd);
    }
  }

  [[nodiscard]] bool can_receive(Socket const& socket) const noexcept {
    // What is half of a WRITE is taken to its end.
    if (paused_ && socket.drop == 0 && socket.size < nbd::Request::wire_size) return false;
    return socket.fd && !socket.full && socket.in_flight < limit_ && socket.size < input_size;
  }

  // --- the kernel's side -----------------------------------------------------------------------

  void serve(std::size_t index) {
    auto& socket = sockets_[index];
    send(socket);
    while (can_receive(socket)) {
      auto const n = ::recv(socket.fd.get(), socket.input.data() + socket.size,
                            socket.input.size() - socket.size, MSG_DONTWAIT);
      if (n > 0) {
        socket.size += static_cast<std::size_t>(n);
        parse(index);
        continue;
      }
      if (n < 0 && errno == EINTR) continue;
      if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return;
      return close(index, NbdRelayEnd::hung_up);
    }
  }

  /// Takes every whole request for which there is room.
  void parse(std::size_t index) {
    auto& socket = sockets_[index];
    socket.full = false;
    std::size_t at = 0;
    while (socket.fd) {
      if (socket.drop != 0) {
        auto const n = std::min<std::size_t>(socket.drop, socket.size - at);
        at += n;
        socket.drop -= static_cast<std::uint32_t>(n);
        if (socket.drop != 0) break;
        reply(socket, socket.dropped, socket.refusal);
        continue;
      }
      if (socket.size - at < nbd::Request::wire_size) break;
      auto const raw = std::span<std::byte const>(socket.input).subspan(at);
      auto const request = nbd::decode_request(raw.first<nbd::Request::wire_size>());
      if (!request) return refuse(index, request.error().message());
      if (!start(index, *request)) break;
      at += nbd::Request::wire_size;
    }
    if (!socket.fd) return;  // closed by one of them
    std::copy(socket.input.begin() + static_cast<std::ptrdiff_t>(at),
              socket.input.begin() + static_cast<std::ptrdiff_t>(socket.size),
              socket.input.begin());
    socket.size -= at;
  }

  /// Begins to answer a request; false if there is no room for it now.
  bool start(std::size_t index, nbd::Request const& request) {
    auto& socket = sockets_[index];
    if (request.is(nbd::Command::disconnect)) {
      close(index, NbdRelayEnd::disconnected);
      return true;
    }
    auto const error = nbd::judge(request, served_, {});
    if (request.is(nbd::Command::write)) {
      if (request.length > nbd::max_payload + write_slack) {
        refuse(index, "a WRITE of " + std::to_string(request.length) + " bytes");
        return true;
      }
      socket.drop = request.length;
      socket.dropped = request.cookie;
      socket.refusal = error;
      if (socket.drop == 0) reply(socket, request.cookie, error);
      return true;
    }
    auto const reads = request.is(nbd::Command::read) && request.length != 0;
    if (error == nbd::Errno::none && reads) return start_read(index, request);
    if (error == nbd::Errno::none && request.is(nbd::Command::cache)) start_prefetch(request);
    reply(socket, request.cookie, error);
    return true;
  }

  bool start_read(std::size_t index, nbd::Request const& request) {
    auto& socket = sockets_[index];
    if (request.length > arena_.bytes().size()) {
      reply(socket, request.cookie, nbd::Errno::inval);
      return true;
    }
    if (socket.in_flight >= limit_) return false;
    auto const place = ranges_.take(request.length);
    socket.full = !place;
    if (!place) return false;
    auto const token = next_read_++;
    reads_.emplace(token, Read{index, request.cookie, request.offset, request.length, *place, 0});
    unsent_.push_back(token);
    ++socket.in_flight;
    ++counters_.requests;
    return true;
  }

  void start_prefetch(nbd::Request const& request) {
    auto const engine = engines_.find(active_);
    if (engine == engines_.end()) return;
    nbd::EngineRequest const message{0, request.offset, 0, request.length,
                                     nbd::EngineCommand::prefetch};
    static_cast<void>(send_to(engine->second, {&message, 1}));  // a hint
  }

  void reply(Socket& socket, std::uint64_t cookie, nbd::Errno error) {
    Reply reply;
    reply.header = nbd::encode(nbd::SimpleReply{error, cookie});
    socket.replies.push_back(reply);
    send(socket);
  }

  /// Sends what the socket takes.
  void send(Socket& socket) {
    while (socket.fd && !socket.replies.empty()) {
      auto const& reply = socket.replies.front();
      auto const size = reply.header.size() + reply.length;
      if (socket.sent == size) {
        finish(socket);
        continue;
      }
      auto const n = send_rest(socket, reply);
      if (n > 0) {
        socket.sent += static_cast<std::size_t>(n);
        continue;
      }
      if (errno == EINTR) continue;
      // Any other error shows again when the socket is read.
      return;
    }
  }

  [[nodiscard]] ssize_t send_rest(Socket const& socket, Reply const& reply) const noexcept {
    auto header = std::span<std::byte const>(reply.header);
    auto data = std::span<std::byte const>(arena_.bytes()).subspan(reply.place, reply.length);
    auto const in_header = std::min(socket.sent, header.size());
    header = header.subspan(in_header);
    data = data.subspan(socket.sent - in_header);
    std::array<iovec, 2> parts{{{const_cast<std::byte*>(header.data()), header.size()},
                                {const_cast<std::byte*>(data.data()), data.size()}}};
    msghdr message{};
    message.msg_iov = parts.data();
    message.msg_iovlen = parts.size();
    return ::sendmsg(socket.fd.get(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
  }

  /// The first reply is sent whole.
  void finish(Socket& socket) {
    auto const reply = socket.replies.front();
    socket.replies.pop_front();
    socket.sent = 0;
    release(socket, reply);
  }

  /// Gives back what a reply held.
  void release(Socket& socket, Reply const& reply) {
    if (reply.counted) --socket.in_flight;
    if (reply.held != 0) ranges_.give_back(reply.place, reply.held);
    has_room_ = true;
  }

  /// Goes on with what had no room, as long as that makes more of it.
  void settle() {
    while (std::exchange(has_room_, false)) {
      for (std::size_t i = 0; i < sockets_.size(); ++i) {
        if (sockets_[i].fd) parse(i);
      }
    }
    hand_over();
  }

  void refuse(std::size_t index, std::string why) {
    complaint_ = "the kernel: " + std::move(why);
    close(index, NbdRelayEnd::hung_up);
  }

  void close(std::size_t index, NbdRelayEnd how) {
    auto& socket = sockets_[index];
    if (how == NbdRelayEnd::disconnected) ended_ = how;
    if (!socket.fd) return;
    socket.fd.reset();
    for (auto const& reply : std::exchange(socket.replies, {})) {
      if (reply.held != 0) ranges_.give_back(reply.place, reply.held);
    }
    socket.in_flight = socket.size = socket.sent = 0;
    drop_reads_of(index);
    auto const none =
        std::ranges::none_of(sockets_, [](auto const& each) { return bool(each.fd); });
    if (none && !ended_) ended_ = NbdRelayEnd::hung_up;
  }

  /// Nobody waits for them any more; an engine may still write to their places.
  void drop_reads_of(std::size_t index) {
    for (auto each = reads_.begin(); each != reads_.end();) {
      auto& read = each->second;
      auto const unsent = read.socket == index && read.engine == 0;
      if (read.socket == index) read.socket = no_socket;
      if (unsent) ranges_.give_back(read.place, read.length);
      each = unsent ? reads_.erase(each) : std::next(each);
    }
    std::erase_if(unsent_, [&](auto token) { return !reads_.contains(token); });
  }

  // --- the engines' side -----------------------------------------------------------------------

  /// Sends all or nothing.
  static bool send_to(UniqueFd const& channel, std::span<nbd::EngineRequest const> messages) {
    if (!channel) return false;
    auto const size = messages.size_bytes();
    ssize_t n = -1;
    do {
      n = ::send(channel.get(), messages.data(), size, MSG_NOSIGNAL | MSG_DONTWAIT);
    } while (n < 0 && errno == EINTR);
    return n == static_cast<ssize_t>(size);
  }

  [[nodiscard]] bool is_suspect(Read const& read) const noexcept {
    return read.crashes >= suspect_after_;
  }

  /// Answers what has crashed those that had nothing else to do.
  void refuse_crashers() {
    auto const is_crasher = [this](std::uint64_t token) {
      return reads_.at(token).crashes >= suspect_after_ + refuse_after_;
    };
    std::vector<std::uint64_t> tokens;
    std::ranges::copy_if(unsent_, std::back_inserter(tokens), is_crasher);
    std::erase_if(unsent_, is_crasher);
    for (auto const token : tokens) {
      auto const found = reads_.find(token);
      auto const read = std::move(found->second);
      reads_.erase(found);
      complaint_ = "a READ of " + std::to_string(read.length) + " bytes at offset " +
                   std::to_string(read.offset) + " has crashed " + std::to_string(read.crashes) +
                   " processes";
      finish_read(read, nbd::Errno::io);
    }
  }

  /// How many of those that nobody has the active engine may get at once, from the front. Where
  /// there are suspects they come first, and one at a time.
  [[nodiscard]] std::size_t may_send() {
    if (!has_suspects_) return unsent_.size();
    auto const is_one = [this](auto const& each) { return is_suspect(each.second); };
    has_suspects_ = std::ranges::any_of(reads_, is_one);
    auto const busy = unanswered(active_) != 0;
    auto const is_tried = [&](auto const& each) {
      return each.second.engine == active_ && is_one(each);
    };
    if (busy && std::ranges::any_of(reads_, is_tried)) return 0;
    auto const suspect = std::ranges::find_if(
        unsent_, [this](std::uint64_t token) { return is_suspect(reads_.at(token)); });
    if (suspect == unsent_.end()) return unsent_.size();
    if (busy) return 0;
    std::rotate(unsent_.begin(), suspect, suspect + 1);
    return 1;
  }

  /// Gives the active engine what nobody has.
  void hand_over() {
    is_full_ = false;
    auto const engine = engines_.find(active_);
    if (engine == engines_.end()) return;
    while (!unsent_.empty()) {
      std::array<nbd::EngineRequest, nbd::most_in_packet> messages{};
      auto const count = std::min(may_send(), messages.size());
      if (count == 0) return;
      for (std::size_t i = 0; i < count; ++i) {
        auto const& read = reads_.at(unsent_[i]);
        messages[i] = {unsent_[i], read.offset, read.place, read.length, nbd::EngineCommand::read};
      }
      is_full_ = !send_to(engine->second, std::span(messages).first(count));
      if (is_full_) return;
      for (std::size_t i = 0; i < count; ++i) reads_.at(unsent_[i]).engine = active_;
      unsent_.erase(unsent_.begin(), unsent_.begin() + static_cast<std::ptrdiff_t>(count));
    }
  }

  void hear(EngineId id) {
    nbd::Packet<nbd::EngineAnswer> packet;
    for (;;) {
      auto const engine = engines_.find(id);
      if (engine == engines_.end() || !engine->second) return;
      auto const n =
          ::recv(engine->second.get(), packet.room().data(), packet.room().size(), MSG_DONTWAIT);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return;
      if (n <= 0) return engine->second.reset();  // its death is somebody else's news
      auto const count = packet.count(static_cast<std::size_t>(n));
      if (count == 0) return distrust(id, "a packet that is no answer");
      for (std::size_t i = 0; i < count; ++i) {
        if (!take(id, packet[i])) return distrust(id, "an answer to what it was not asked");
      }
    }
  }

  /// Its word counts no more; it can still write to the arena, so what it has waits for its end.
  void distrust(EngineId id, std::string why) {
    complaint_ = "the engine: " + std::move(why);
    if (auto const engine = engines_.find(id); engine != engines_.end()) engine->second.reset();
  }

  static bool is_known(std::uint32_t error) noexcept {
    using enum nbd::Errno;
    constexpr std::array known{none, perm, io, nomem, inval, nospc, overflow, notsup, shutdown};
    return std::ranges::find(known, nbd::Errno{error}) != known.end();
  }

  /// An answer; false if it is none to anything.
  bool take(EngineId id, nbd::EngineAnswer const& answer) {
    auto const found = reads_.find(answer.id);
    if (found == reads_.end() || found->second.engine != id || !is_known(answer.error)) {
      return false;
    }
    auto const error = nbd::Errno{answer.error};
    if (found->second.on_probe) {
      end_probe(answer.id, error);
      return true;
    }
    auto const read = std::move(found->second);
    reads_.erase(found);
    if (read.socket == no_socket) {
      ranges_.give_back(read.place, read.length);
      has_room_ = true;
      return true;
    }
    finish_read(read, error);
    return true;
  }

  /// Answers the kernel.
  void finish_read(Read const& read, nbd::Errno error) {
    auto const good = error == nbd::Errno::none;
    counters_.bytes += good ? read.length : 0;
    counters_.errors += good ? 0 : 1;
    Reply reply;
    reply.header = nbd::encode(nbd::SimpleReply{error, read.cookie});
    reply.place = read.place;
    reply.length = good ? read.length : 0;
    reply.counted = true;
    reply.held = read.length;
    auto& socket = sockets_[read.socket];
    socket.replies.push_back(reply);
    send(socket);
  }

  void end_probe(std::uint64_t token, nbd::Errno error) {
    auto const found = reads_.find(token);
    auto const read = std::move(found->second);
    reads_.erase(found);
    if (error == nbd::Errno::none) {
      read.on_probe(std::span<std::byte const>(arena_.bytes()).subspan(read.place, read.length));
    } else {
      read.on_probe(fail(Errc::unavailable, "nbd relay: the engine cannot read at offset " +
                                                std::to_string(read.offset)));
    }
    ranges_.give_back(read.place, read.length);
    has_room_ = true;
  }

  /// Ends a READ that nobody of the kernel's waits for.
  void drop(std::uint64_t token) {
    auto const found = reads_.find(token);
    if (found->second.on_probe) return end_probe(token, nbd::Errno::io);
    ranges_.give_back(found->second.place, found->second.length);
    reads_.erase(found);
    has_room_ = true;
  }

  Export served_;
  SharedMemory arena_;
  nbd::ArenaRanges ranges_;
  std::size_t limit_;
  unsigned suspect_after_;
  unsigned refuse_after_;
  std::vector<Socket> sockets_{};
  std::map<EngineId, UniqueFd> engines_{};  // their channels; empty: closed
  std::map<std::uint64_t, Read> reads_{};
  std::deque<std::uint64_t> unsent_{};  // of reads_, those that nobody has
  EngineId active_ = 0;                 // 0: none
  EngineId next_engine_ = 1;
  std::uint64_t next_read_ = 1;
  std::optional<NbdRelayEnd> ended_{};
  NbdRelayCounters counters_{};
  std::string complaint_{};
  bool paused_ = false;
  bool has_room_ = false;  // for requests that had none
  bool is_full_ = false;   // the active engine's channel, for what is unsent
  bool has_suspects_ = false;
};

}  // namespace erofs_oci
