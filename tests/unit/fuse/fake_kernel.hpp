// SPDX-License-Identifier: Apache-2.0
// The kernel's side of a FUSE connection, played over a socket: no privileges, no mount.
#pragma once

#include <array>
#include <cstring>
#include <functional>
#include <latch>
#include <map>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <linux/fuse.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <catch.hpp>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/fd.hpp>
#include <erofs_oci/fuse/session.hpp>

namespace erofs_oci::test {

/// What the kernel said it can do. All that FuseTree makes use of.
inline constexpr std::uint32_t modern =
    FUSE_ASYNC_READ | FUSE_EXPORT_SUPPORT | FUSE_BIG_WRITES | FUSE_AUTO_INVAL_DATA |
    FUSE_DO_READDIRPLUS | FUSE_READDIRPLUS_AUTO | FUSE_ASYNC_DIO | FUSE_NO_OPEN_SUPPORT |
    FUSE_PARALLEL_DIROPS | FUSE_POSIX_ACL | FUSE_MAX_PAGES | FUSE_CACHE_SYMLINKS |
    FUSE_NO_OPENDIR_SUPPORT | FUSE_EXPLICIT_INVAL_DATA;
inline constexpr std::uint32_t ancient = FUSE_ASYNC_READ | FUSE_BIG_WRITES;

struct Answer {
  std::uint64_t unique = 0;
  int error = 0;  // as errno, positive
  Bytes body{};

  template <class T>
  [[nodiscard]] T as() const {
    T value{};
    if (body.size() < sizeof value) throw std::runtime_error("an answer is too short");
    std::memcpy(&value, body.data(), sizeof value);
    return value;
  }
};

template <class T>
[[nodiscard]] std::string raw(T const& value) {
  return std::string(reinterpret_cast<char const*>(&value), sizeof value);
}

class FakeKernel {
 public:
  FakeKernel() {
    int ends[2];
    REQUIRE(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0);
    ours_ = UniqueFd(ends[0]);
    theirs_ = UniqueFd(ends[1]);
    int const size = 4 * 1024 * 1024;
    ::setsockopt(ends[1], SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size);
  }

  /// The server's end; several servers can have it, one after the other.
  [[nodiscard]] FuseConnection connection(Bytes opening = {}, UniqueFd inflight = {}) const {
    std::lock_guard const lock(mutex_);
    return FuseConnection{UniqueFd(::dup(theirs_.get())), std::move(opening), std::move(inflight)};
  }

  /// Ends the connection, as unmounting does.
  void hang_up() {
    std::lock_guard const lock(mutex_);
    theirs_.reset();
    ours_.reset();
  }

  /// A request that nobody has been sent yet.
  std::string request(std::uint32_t opcode, std::uint64_t node, std::string const& arguments = {}) {
    unique_ += 2;
    fuse_in_header header{};
    header.len = static_cast<std::uint32_t>(sizeof header + arguments.size());
    header.opcode = opcode;
    header.unique = unique_;
    header.nodeid = node;
    header.uid = caller;
    return raw(header) + arguments;
  }

  std::uint64_t send(std::uint32_t opcode, std::uint64_t node, std::string const& arguments = {}) {
    auto const packet = request(opcode, node, arguments);
    REQUIRE(::send(ours_.get(), packet.data(), packet.size(), 0) ==
            static_cast<ssize_t>(packet.size()));
    return unique_;
  }

  /// The next answer, whatever it answers. Throws after a minute.
  Answer receive() {
    pollfd wait{ours_.get(), POLLIN, 0};
    if (::poll(&wait, 1, 60'000) != 1) throw std::runtime_error("no answer");
    Bytes packet(2 * 1024 * 1024);
    auto const n = ::recv(ours_.get(), packet.data(), packet.size(), 0);
    fuse_out_header header{};
    if (n < static_cast<ssize_t>(sizeof header)) throw std::runtime_error("a short answer");
    std::memcpy(&header, packet.data(), sizeof header);
    if (header.len != static_cast<std::uint32_t>(n)) throw std::runtime_error("a wrong length");
    packet.resize(static_cast<std::size_t>(n));
    packet.erase(packet.begin(), packet.begin() + sizeof header);
    return {header.unique, -header.error, std::move(packet)};
  }

  Answer ask(std::uint32_t opcode, std::uint64_t node, std::string const& arguments = {}) {
    auto const unique = send(opcode, node, arguments);
    auto answer = receive();
    if (answer.unique != unique) throw std::runtime_error("an answer to another request");
    return answer;
  }

  fuse_init_out init(std::uint32_t flags = modern, std::uint32_t minor = 36) {
    fuse_init_in in{};
    in.major = 7;
    in.minor = minor;
    in.max_readahead = 128 * 1024;
    in.flags = flags;
    return ask(FUSE_INIT, 0, raw(in)).as<fuse_init_out>();
  }

  Answer lookup(std::uint64_t parent, std::string const& name) {
    return ask(FUSE_LOOKUP, parent, name + '\0');
  }

  Answer read(std::uint64_t node, std::uint64_t offset, std::uint32_t size,
              std::uint32_t opcode = FUSE_READ) {
    fuse_read_in in{};
    in.offset = offset;
    in.size = size;
    return ask(opcode, node, raw(in));
  }

  Answer getxattr(std::uint64_t node, std::string const& name, std::uint32_t size) {
    fuse_getxattr_in in{};
    in.size = size;
    return ask(FUSE_GETXATTR, node, raw(in) + name + '\0');
  }

  std::uint32_t caller = 0;  ///< user id of who asks

 private:
  mutable std::mutex mutex_;  // so that it is seen that a server has its end before we close ours
  UniqueFd ours_;
  UniqueFd theirs_;
  std::uint64_t unique_ = 0;
};

/// One name of a directory, as READDIR and READDIRPLUS answer.
struct Name {
  std::string text;
  std::uint64_t inode = 0;
  std::uint64_t next = 0;
  std::uint32_t type = 0;
  fuse_entry_out entry{};

  friend bool operator==(Name const& a, Name const& b) {
    return a.text == b.text && a.inode == b.inode && a.next == b.next && a.type == b.type;
  }
};

inline std::vector<Name> names_of(Bytes const& body, bool plus) {
  std::vector<Name> all;
  for (std::size_t at = 0; at < body.size();) {
    Name name;
    if (plus) {
      REQUIRE(body.size() - at >= sizeof name.entry);
      std::memcpy(&name.entry, body.data() + at, sizeof name.entry);
      at += sizeof name.entry;
    }
    fuse_dirent head{};
    constexpr auto head_size = offsetof(fuse_dirent, name);
    REQUIRE(body.size() - at >= head_size);
    std::memcpy(&head, body.data() + at, head_size);
    name.inode = head.ino;
    name.next = head.off;
    name.type = head.type;
    name.text = as_text(std::span(body).subspan(at + head_size, head.namelen));
    at += (head_size + head.namelen + 7) / 8 * 8;
    all.push_back(std::move(name));
  }
  return all;
}

/// A server on a thread of its own, until the kernel hangs up or it is stopped.
class Serving {
 public:
  /// @param serve  called on the thread; (stop, ready, on_stop)
  template <class F>
  explicit Serving(F serve)
      : thread_([this, serve](std::stop_token stop) {
          end_ = serve(
              std::move(stop),
              [this](FuseSession& session) {
                opening_ = session.share().value().opening;
                ready_.count_down();
              },
              [this] { ++stops_; });
        }) {}

  /// Of a server that will be.
  void wait_until_ready() { ready_.wait(); }

  /// Stops or waits, and yields how it ended.
  Result<FuseEnd> end(bool stop = false) {
    if (stop) thread_.request_stop();
    if (thread_.joinable()) thread_.join();
    return end_;
  }

  Bytes const& opening() const { return opening_; }
  int stops() const { return stops_; }

 private:
  Result<FuseEnd> end_;
  Bytes opening_;
  std::latch ready_{1};
  int stops_ = 0;
  std::jthread thread_;
};

}  // namespace erofs_oci::test
