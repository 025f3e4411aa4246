// SPDX-License-Identifier: Apache-2.0
#include "kept_device.hpp"

#include <algorithm>
#include <cerrno>
#include <utility>

#include <fcntl.h>

#include <erofs_oci/digest/sha256.hpp>

#include "memory_file.hpp"

namespace mount_oci {

using erofs_oci::fail;

Result<KeptDevice> KeptDevice::open(Connect connect, erofs_oci::Export served) {
  auto const size = served.size;
  auto sockets =
      std::visit([&](auto& one) { return one.attach(served, std::stop_token()); }, connect);
  if (!sockets) return fail(std::move(sockets).error());
  auto relay = erofs_oci::NbdRelay::make(std::move(served), *std::move(sockets));
  if (!relay) {
    std::visit([](auto& one) { one.detach(); }, connect);
    return fail(std::move(relay).error());
  }
  return KeptDevice(std::move(connect), *std::move(relay), size);
}

Result<KeptDevice> KeptDevice::beside(Connect connect, erofs_oci::Export served) {
  auto const size = served.size;
  auto relay = erofs_oci::NbdRelay::make(std::move(served), {});
  if (!relay) return fail(std::move(relay).error());
  return KeptDevice(std::move(connect), *std::move(relay), size);
}

Result<void> KeptDevice::adopt(Message message) {
  auto const& kind = message.kind;
  if (kind != Message::Kind::sockets || message.fds.empty() || message.fds.size() % 2 != 0) {
    return fail(Errc::protocol, path() + ": no sockets");
  }
  for (std::size_t i = 0; i < message.fds.size(); i += 2) {
    auto unread = from_memory_file(message.fds[i + 1]);
    if (!unread) return fail(std::move(unread).error());
    auto const ok = relay_.add_socket({std::move(message.fds[i]), *std::move(unread)});
    if (!ok) return ok;
  }
  return {};
}

Result<Message> KeptDevice::release() {
  Message message{Message::Kind::sockets, {}, {}, {}};
  for (auto& socket : relay_.release_sockets()) {
    auto unread = to_memory_file(socket.unread);
    if (!unread) return fail(std::move(unread).error());
    message.fds.push_back(std::move(socket.fd));
    message.fds.push_back(*std::move(unread));
  }
  return message;
}

Result<void> KeptDevice::resume(Message message) {
  relay_.resume();
  return adopt(std::move(message));
}

std::uint32_t KeptDevice::index() const {
  return std::visit([](auto const& one) { return one.index(); }, connect_);
}

Result<erofs_oci::nbd::RelayPort> KeptDevice::next_reader() {
  auto added = relay_.add_engine();
  if (!added) return fail(std::move(added).error());
  reader_ = added->first;
  return std::move(added->second);
}

void KeptDevice::drop_reader(erofs_oci::EngineEnd how) {
  if (reader_ != 0) relay_.remove_engine(std::exchange(reader_, 0), how);
}

void KeptDevice::verify_reader(std::function<void(Result<void>)> done) {
  constexpr std::uint64_t most = 64 * 1024;
  auto const length = static_cast<std::uint32_t>(std::min(size_, most));
  relay_.probe(reader_, 0, length, [this, id = reader_, done = std::move(done)](auto bytes) {
    if (!bytes) return done(fail(bytes.error()));
    auto const digest = erofs_oci::digest_of(*bytes);
    if (sample_ && digest != *sample_) {
      return done(fail(Errc::mismatch, "other bytes are read than before"));
    }
    sample_ = digest;
    done({});
    relay_.activate(id);
  });
}

std::string KeptDevice::settle() {
  auto* const netlink = std::get_if<erofs_oci::NetlinkConnect>(&connect_);
  if (netlink == nullptr) return {};
  auto const ok = netlink->set_disconnect_on_close();
  return ok ? std::string() : "umount will not end the device: " + ok.error().message();
}

void KeptDevice::detach() noexcept {
  std::visit([](auto& one) { one.detach(); }, connect_);
}

bool KeptDevice::is_connected() const {
  return erofs_oci::nbd_attribute(index(), "pid").has_value();
}

bool KeptDevice::is_in_use() const {
  UniqueFd const fd(::open(path().c_str(), O_RDONLY | O_CLOEXEC | O_EXCL));
  return !fd && errno == EBUSY;
}

}  // namespace mount_oci
