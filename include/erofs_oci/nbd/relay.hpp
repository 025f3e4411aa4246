// SPDX-License-Identifier: Apache-2.0
/// @file
/// NbdRelay: keeps a device's sockets while workers, which read for it, are replaced.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <new>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <poll.h>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/fd.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/nbd/arena.hpp>
#include <erofs_oci/nbd/connect.hpp>
#include <erofs_oci/nbd/engine_channels.hpp>
#include <erofs_oci/nbd/engine_protocol.hpp>
#include <erofs_oci/nbd/hand_over.hpp>
#include <erofs_oci/nbd/probes.hpp>
#include <erofs_oci/nbd/protocol.hpp>
#include <erofs_oci/nbd/read_table.hpp>
#include <erofs_oci/nbd/relay_options.hpp>
#include <erofs_oci/nbd/relay_socket.hpp>
#include <erofs_oci/nbd/reply.hpp>
#include <erofs_oci/nbd/suspects.hpp>
#include <erofs_oci/posix/shared_memory.hpp>

namespace erofs_oci {

/// Passes requests from the kernel's NBD client to a worker's NbdEngine, and answers back. It owns
/// the sockets and knows which requests are unanswered; it has no source, no network and no secret.
/// An engine may be killed at any instant: it has no socket of the kernel's, so no reply is ever
/// cut short. The relay gives the engine's unanswered requests to the next one, and the kernel sees
/// only a delay.
///
/// A READ that crashes every engine would end one after the other. The relay finds it by giving
/// suspects to an engine alone, and answers that READ with an error instead of losing the device.
///
/// The engine writes data into shared memory, from which the relay sends them.
///
/// Sends only simple replies and does no handshake: the kernel's own client needs neither.
///
/// It makes no thread and never blocks: the caller polls what watch() names and calls act(). It
/// answers a READ with ENOMEM if it cannot allocate for it; an accepted READ needs no further
/// allocation.
///
/// @par Thread safety
/// None: one thread at a time.
class NbdRelay {
 public:
  using EngineId = nbd::EngineId;
  using OnProbe = nbd::OnProbe;

  /// Owns the sockets.
  /// @error{an errno, as SharedMemory::make()}
  [[nodiscard]] static Result<NbdRelay> make(Export served, std::vector<UniqueFd> sockets,
                                             NbdRelayOptions options = {}) {
    EROFS_OCI_TRY_ASSIGN(auto arena, SharedMemory::make(options.arena), "nbd relay");
    return NbdRelay(std::move(served), std::move(sockets), std::move(arena), options);
  }

  /// @name Sockets
  /// @{

  /// Takes over sockets that another relay has released.
  /// @error{Errc::protocol, more is unread than a relay leaves}
  [[nodiscard]] Result<void> add_socket(NbdRelaySocket socket) {
    if (socket.unread.size() >= nbd::Request::wire_size) {
      return fail(Errc::protocol, "nbd relay: a whole request is unread");
    }
    sockets_.emplace_back(std::move(socket.fd), limit_).begin_with(socket.unread);
    return {};
  }

  /// Stops taking requests; still answers those that it has.
  void pause() noexcept { paused_ = true; }

  /// Whether every request that was taken is answered and every reply sent; for a paused relay.
  [[nodiscard]] bool is_idle() const noexcept {
    return paused_ && reads_.empty() && std::ranges::all_of(sockets_, &nbd::RelaySocket::is_idle);
  }

  /// Ends pause(): takes requests again.
  void resume() noexcept { paused_ = false; }

  /// Gives all sockets away; needs is_idle(). The relay then serves only sockets that add_socket()
  /// brings.
  [[nodiscard]] std::vector<NbdRelaySocket> release_sockets() {
    std::vector<NbdRelaySocket> released;
    for (auto& socket : sockets_) {
      if (!socket.is_open()) continue;
      auto unread = to_bytes(socket.unread());
      released.push_back({socket.release(), std::move(unread)});
    }
    sockets_.clear();
    return released;
  }
  /// @}

  /// @name Engines
  /// @{

  /// Makes the channel of one more engine, which gets no request before activate().
  /// @error{an errno, as socketpair(2)}
  [[nodiscard]] Result<std::pair<EngineId, nbd::RelayPort>> add_engine() {
    return engines_.add(arena_.fd());
  }

  /// Sends new requests and all that no engine has to this engine from now on. Requests of an older
  /// engine stay with it.
  void activate(EngineId id) {
    active_ = id;
    take_waiting();
  }

  /// Removes an engine whose process has been reaped: before that, it may still write to the arena.
  /// Its unanswered requests go to the active engine, or wait for the next one.
  void remove_engine(EngineId id, EngineEnd how = EngineEnd::killed) {
    if (active_ == id) active_ = 0;
    engines_.remove(id);
    counters_.taken_over += reads_.take_back(id, how, [this](nbd::PendingRead read) {
      end_orphan(std::move(read), nbd::Errno::shutdown);
    });
    refuse_suspects();
    call_probes_back();
    take_waiting();
  }

  /// Reads a part of the device by one engine, active or not.
  /// @param length    bytes, at least 1
  /// @param on_probe  called once: by this call if the engine cannot be asked, else at the end of a
  /// call of act() or remove_engine(). It may use the relay, but not destroy it. It gets
  /// std::errc::io_error if the engine has answered that it cannot read these bytes, else
  /// Errc::unavailable
  void probe(EngineId id, std::uint64_t offset, std::uint32_t length, OnProbe on_probe) {
    auto const place = engines_.has(id) ? ranges_.take(length) : std::nullopt;
    if (!place) return on_probe(fail(Errc::unavailable, "nbd relay: no room for a probe"));
    nbd::ReadTable::Id token = 0;
    try {
      token = reads_.add({.offset = offset,
                          .length = length,
                          .place = *place,
                          .engine = id,
                          .on_probe = std::move(on_probe)});
      probes_.begin();
    } catch (std::bad_alloc const&) {
      if (token != 0) static_cast<void>(reads_.take(token));
      release(*place, length);
      throw;
    }
    nbd::EngineRequest const message{token, offset, *place, length};
    if (engines_.send(id, {&message, 1})) return;
    end_orphan(reads_.take(token), nbd::Errno::shutdown);
    call_probes_back();
  }

  /// How many requests an engine has not answered.
  [[nodiscard]] std::size_t unanswered(EngineId id) const { return reads_.count_of(id); }

  /// Closes the channels of all engines, which ends them.
  void close_engines() noexcept { engines_.close(); }
  /// @}

  /// @name In a poll(2) loop
  /// @{

  /// Adds the relay's descriptors for poll(2).
  void watch(std::vector<pollfd>& fds) const {
    for (auto const& socket : sockets_) {
      fds.push_back({socket.fd(), socket.events(paused_), 0});
    }
    engines_.watch(fds, is_full_ ? active_ : 0);
  }

  /// Receives, dispatches, answers and sends as far as that is possible without blocking.
  /// @param fds  the entries that watch() added; no other member may have been called since
  void act(std::span<pollfd const> fds) {
    engines_.receive(
        fds.subspan(sockets_.size()),
        [this](EngineId id, nbd::EngineAnswer const& answer) { return take_answer(id, answer); },
        [this](std::string_view why) {
          set_complaint([&] { return "the engine: " + std::string(why); });
        });
    for (std::size_t i = 0; i < sockets_.size(); ++i) {
      if (fds[i].revents != 0) serve(i, fds[i].revents);
    }
    call_probes_back();
    take_waiting();
  }

  /// Whether and how the connection to the kernel has ended.
  [[nodiscard]] std::optional<NbdRelayEnd> ended() const noexcept { return ended_; }
  /// @}

  [[nodiscard]] NbdRelayCounters const& counters() const noexcept { return counters_; }

  /// READs that are not answered yet.
  [[nodiscard]] std::size_t in_flight() const noexcept { return reads_.size(); }

  /// The last protocol error of an engine or of the kernel, as a text; empty: there was none.
  [[nodiscard]] std::string const& complaint() const noexcept { return complaint_; }

 private:
  NbdRelay(Export served, std::vector<UniqueFd> sockets, SharedMemory arena,
           NbdRelayOptions options)
      : served_(std::move(served)),
        arena_(std::move(arena)),
        ranges_(options.arena),
        limit_(std::clamp<std::size_t>(options.requests, 1, 4096)),
        suspects_(options.suspect_after, options.refuse_after) {
    for (auto& fd : sockets) sockets_.emplace_back(std::move(fd), limit_);
  }

  // --- the kernel's side -----------------------------------------------------------------------

  void serve(std::size_t index, short events) {
    using Fill = nbd::RelaySocket::Fill;
    auto& socket = sockets_[index];
    send(socket);
    while (socket.can_receive(paused_)) {
      auto const filled = socket.receive();
      if (!filled || *filled == Fill::closed) return close(index, NbdRelayEnd::hung_up);
      if (*filled == Fill::nothing) return;
      parse(index);
    }
    // While the relay does not receive from the socket, only POLLHUP shows its end.
    if ((events & (POLLHUP | POLLERR)) != 0) close(index, NbdRelayEnd::hung_up);
  }

  /// Begins every request that has arrived and for which there is room.
  void parse(std::size_t index) {
    auto& socket = sockets_[index];
    while (socket.is_open()) {
      auto const request = socket.next();
      if (!request) {
        set_complaint([&] { return "the kernel: " + request.error().message(); });
        return close(index, NbdRelayEnd::hung_up);
      }
      if (!*request || !start(index, **request)) return;
    }
  }

  /// Begins to answer a request; false if there is no room for it now.
  bool start(std::size_t index, nbd::Request const& request) {
    auto& socket = sockets_[index];
    if (request.is(nbd::Command::disconnect)) {
      close(index, NbdRelayEnd::disconnected);
      return true;
    }
    if (!socket.has_room()) return false;
    auto error = nbd::judge(request, served_, {});
    if (error == nbd::Errno::none && request.is(nbd::Command::read) && request.length != 0) {
      auto const begun = start_read(index, request);
      if (!begun) return false;
      error = *begun;
      if (error == nbd::Errno::none) return true;
    }
    socket.take();
    reply(socket, {.header = encode(nbd::SimpleReply{error, request.cookie})});
    return true;
  }

  /// Takes a READ, or yields the error to answer it with; empty if there is no room for it now.
  std::optional<nbd::Errno> start_read(std::size_t index, nbd::Request const& request) {
    if (request.length > arena_.bytes().size()) return nbd::Errno::inval;
    std::optional<std::size_t> place;
    try {
      place = ranges_.take(request.length);
      if (!place) return std::nullopt;
      reads_.add({index, request.cookie, request.offset, request.length, *place});
    } catch (std::bad_alloc const&) {
      if (place) ranges_.give_back(*place, request.length);
      return nbd::Errno::nomem;
    }
    sockets_[index].take();
    ++counters_.requests;
    return nbd::Errno::none;
  }

  void reply(nbd::RelaySocket& socket, nbd::RelayReply reply) {
    socket.reply(std::move(reply));
    send(socket);
  }

  void send(nbd::RelaySocket& socket) {
    socket.send([this](nbd::RelayReply const& sent) { release(sent.place, sent.held); });
  }

  /// Gives a part of the arena back.
  void release(std::size_t place, std::uint32_t length) noexcept {
    if (length != 0) ranges_.give_back(place, length);
    has_room_ = true;
  }

  /// Takes requests that had no room, as long as that makes more room.
  void take_waiting() {
    while (std::exchange(has_room_, false)) {
      for (std::size_t i = 0; i < sockets_.size(); ++i) parse(i);
    }
    is_full_ = !nbd::hand_over(reads_, suspects_, engines_, active_);
  }

  void close(std::size_t index, NbdRelayEnd how) {
    auto& socket = sockets_[index];
    if (how == NbdRelayEnd::disconnected) ended_ = how;
    if (!socket.is_open()) return;
    socket.close([this](nbd::RelayReply const& lost) { release(lost.place, lost.held); });
    reads_.forget_socket(
        index, [this](nbd::PendingRead const& read) { release(read.place, read.length); });
    if (!ended_ && std::ranges::none_of(sockets_, &nbd::RelaySocket::is_open)) {
      ended_ = NbdRelayEnd::hung_up;
    }
  }

  /// Keeps the text, unless there is no memory for it.
  template <class Text>
  void set_complaint(Text const& text) noexcept {
    try {
      complaint_ = text();
    } catch (std::bad_alloc const&) {
      complaint_.clear();
    }
  }

  // --- the engines' side -----------------------------------------------------------------------

  /// Answers suspects that have crashed too many engines.
  void refuse_suspects() {
    while (auto const id = suspects_.crasher(reads_)) {
      auto const read = reads_.take(*id);
      set_complaint([&] { return nbd::Suspects::describe(read); });
      finish_read(read, nbd::Errno::io);
    }
  }

  /// Handles an engine's answer; false if no READ has its number.
  bool take_answer(EngineId id, nbd::EngineAnswer const& answer) {
    auto const* const found = reads_.find(answer.id);
    if (found == nullptr || found->engine != id) return false;
    auto read = reads_.take(answer.id);
    auto const error = nbd::Errno{answer.error};
    if (read.socket == nbd::PendingRead::no_socket) {
      end_orphan(std::move(read), error);
    } else {
      finish_read(read, error);
    }
    return true;
  }

  /// Answers the kernel.
  void finish_read(nbd::PendingRead const& read, nbd::Errno error) {
    auto const good = error == nbd::Errno::none;
    counters_.bytes += good ? read.length : 0;
    counters_.errors += good ? 0 : 1;
    auto const data = std::span<std::byte const>(arena_.bytes()).subspan(read.place, read.length);
    reply(sockets_[read.socket], {.header = encode(nbd::SimpleReply{error, read.cookie}),
                                  .data = good ? data : data.first(0),
                                  .place = read.place,
                                  .held = read.length});
  }

  /// Ends a READ of a closed socket, or a probe.
  void end_orphan(nbd::PendingRead read, nbd::Errno error) noexcept {
    if (!read.on_probe) return release(read.place, read.length);
    probes_.end(std::move(read), error);
  }

  void call_probes_back() {
    probes_.tell(arena_.bytes(),
                 [this](nbd::PendingRead const& read) { release(read.place, read.length); });
  }

  Export served_;
  SharedMemory arena_;
  nbd::ArenaRanges ranges_;
  std::size_t limit_;
  nbd::Suspects suspects_;
  std::vector<nbd::RelaySocket> sockets_{};
  nbd::EngineChannels engines_{};
  nbd::ReadTable reads_{};
  nbd::Probes probes_{};
  EngineId active_ = 0;  // 0: none
  std::optional<NbdRelayEnd> ended_{};
  NbdRelayCounters counters_{};
  std::string complaint_{};
  bool paused_ = false;
  bool has_room_ = false;  // for requests that had none
  bool is_full_ = false;   // the active engine's channel, for what is in the line
};

}  // namespace erofs_oci
