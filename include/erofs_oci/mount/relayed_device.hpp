// SPDX-License-Identifier: Apache-2.0
/// @file
/// RelayedDevice: an NBD device of the kernel, and the relay that serves it.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include <poll.h>

#include <erofs_oci/core/result.hpp>
#include <erofs_oci/digest/digest.hpp>
#include <erofs_oci/digest/sha256.hpp>
#include <erofs_oci/mount/mount_channel.hpp>
#include <erofs_oci/nbd/device.hpp>
#include <erofs_oci/nbd/ioctl_connect.hpp>
#include <erofs_oci/nbd/netlink_connect.hpp>
#include <erofs_oci/nbd/relay.hpp>
#include <erofs_oci/posix/memory_file.hpp>

namespace erofs_oci {

/// The kernel's device and the relay in front of it. Workers read for it, and can be replaced.
///
/// @par Thread safety
/// None: one thread, which polls.
class RelayedDevice {
 public:
  using Connect = std::variant<NetlinkConnect, IoctlConnect>;

  /// Most bytes by which workers are compared.
  static constexpr std::uint64_t most_sample = 64 * 1024;

  /// Sets the device up, or gives it new sockets.
  /// @param sample  see WorkerImage::sample
  /// @error{as the connect's attach() says}
  [[nodiscard]] static Result<RelayedDevice> open(Connect connect, Export served,
                                                  std::uint64_t sample = most_sample) {
    auto const length = sample_length(served, sample);
    EROFS_OCI_TRY_ASSIGN(
        auto sockets,
        std::visit([&](auto& one) { return one.attach(served, std::stop_token()); }, connect));
    auto relay = NbdRelay::make(std::move(served), std::move(sockets));
    if (!relay) {
      std::visit([](auto& one) { one.detach(); }, connect);
      return fail(std::move(relay).error());
    }
    return RelayedDevice(std::move(connect), *std::move(relay), length);
  }

  /// A device that another process serves; it has no sockets before adopt().
  /// @param connect  NetlinkConnect::to_device()
  /// @param sample   see WorkerImage::sample
  [[nodiscard]] static Result<RelayedDevice> beside(Connect connect, Export served,
                                                    std::uint64_t sample = most_sample) {
    auto const length = sample_length(served, sample);
    EROFS_OCI_TRY_ASSIGN(auto relay, NbdRelay::make(std::move(served), {}));
    return RelayedDevice(std::move(connect), std::move(relay), length);
  }

  /// @name Handover
  /// @{

  /// Takes over the sockets that another process has given by release().
  /// @error{Errc::protocol, the message holds none}
  [[nodiscard]] Result<void> adopt(MountMessage message) {
    if (message.kind != MountMessage::Kind::sockets || message.fds.empty() ||
        message.fds.size() % 2 != 0) {
      return fail(Errc::protocol, path() + ": no sockets");
    }
    for (std::size_t i = 0; i < message.fds.size(); i += 2) {
      EROFS_OCI_TRY_ASSIGN(auto unread, from_memory_file(message.fds[i + 1]));
      EROFS_OCI_TRY(relay_.add_socket({std::move(message.fds[i]), std::move(unread)}));
    }
    return {};
  }

  /// Takes no more requests.
  void pause() noexcept { relay_.pause(); }

  /// Whether, once paused, every request is answered.
  [[nodiscard]] bool is_idle() const noexcept { return relay_.is_idle(); }

  /// Gives the sockets away, for adopt() in another process; is_idle(). After an error they are
  /// here still.
  /// @error{as to_memory_file() says}
  [[nodiscard]] Result<MountMessage> release() {
    MountMessage message{MountMessage::Kind::sockets, {}, {}, {}};
    auto sockets = relay_.release_sockets();
    std::vector<UniqueFd> unread;
    for (auto const& socket : sockets) {
      auto file = to_memory_file(socket.unread);
      if (!file) {
        for (auto& each : sockets) EROFS_OCI_TRY(relay_.add_socket(std::move(each)));
        return fail(std::move(file).error());
      }
      unread.push_back(*std::move(file));
    }
    for (std::size_t i = 0; i < sockets.size(); ++i) {
      message.fds.push_back(std::move(sockets[i].fd));
      message.fds.push_back(std::move(unread[i]));
    }
    return message;
  }

  /// Serves again.
  /// @param message  what release() gave, since the other process will not serve it
  /// @error{as adopt() says}
  [[nodiscard]] Result<void> resume(std::optional<MountMessage> message) {
    relay_.resume();
    return message ? adopt(*std::move(message)) : Result<void>();
  }
  /// @}

  /// N of /dev/nbdN.
  [[nodiscard]] std::uint32_t index() const {
    return std::visit([](auto const& one) { return one.index(); }, connect_);
  }

  /// /dev/nbdN.
  [[nodiscard]] std::string path() const { return nbd_device_path(index()); }

  /// @name Workers
  /// @{

  /// What the next worker needs. The one before must be dead and reaped, or have been given up by
  /// drop_worker().
  /// @error{as NbdRelay::add_engine() says}
  [[nodiscard]] Result<nbd::RelayPort> next_worker() {
    EROFS_OCI_TRY_ASSIGN(auto added, relay_.add_engine());
    worker_ = added.first;
    return std::move(added.second);
  }

  /// The worker is dead and reaped.
  /// @param how  its end: whether what it was asked may be the cause
  void drop_worker(EngineEnd how) {
    if (worker_ != 0) relay_.remove_engine(std::exchange(worker_, 0), how);
  }

  /// Reads the sample by the newest worker and compares it with what the first one read. Unless
  /// they differ, requests go to that worker from here on. One that answers that it cannot read the
  /// sample is as well as any: what is wrong is the image or the network, for the next one, too.
  /// @param done  gets the outcome, during act() or at once: Errc::mismatch if the bytes differ,
  ///              Errc::unavailable if the worker does not answer
  void verify_worker(std::function<void(Result<void>)> done) {
    relay_.probe(worker_, 0, length_, [this, id = worker_, done = std::move(done)](auto bytes) {
      auto const unreadable = !bytes && bytes.error().code == std::errc::io_error;
      if (!bytes && !unreadable) return done(fail(bytes.error()));
      if (bytes) {
        auto const digest = digest_of(*bytes);
        if (sample_ && digest != *sample_) {
          return done(fail(Errc::mismatch, "the worker reads other bytes than the one before"));
        }
        sample_ = digest;
      }
      done({});
      relay_.activate(id);
    });
  }

  /// Digest of what the first worker could read; empty before that.
  [[nodiscard]] std::optional<Digest> const& sample() const noexcept { return sample_; }

  /// Another device of the same image was here before: workers must read what its first one read.
  void expect(std::optional<Digest> sample) { sample_ = std::move(sample); }

  /// Closes the workers' channels, which ends them.
  void dismiss() noexcept { relay_.close_engines(); }
  /// @}

  /// Makes the last unmount end the device, where the kernel can do that; yields a warning or
  /// nothing.
  [[nodiscard]] std::string settle() {
    auto* const netlink = std::get_if<NetlinkConnect>(&connect_);
    if (netlink == nullptr) return {};
    auto const ok = netlink->set_disconnect_on_close();
    return ok ? std::string() : "umount will not end the device: " + ok.error().message();
  }

  /// Disconnects the device; it ends soon.
  void detach() noexcept {
    std::visit([](auto& one) { one.detach(); }, connect_);
  }

  /// @name In a poll(2) loop
  /// @{
  void watch(std::vector<pollfd>& fds) const { relay_.watch(fds); }
  void act(std::span<pollfd const> fds) { relay_.act(fds); }
  [[nodiscard]] std::optional<NbdRelayEnd> ended() const noexcept { return relay_.ended(); }
  /// @}

  [[nodiscard]] NbdRelay const& relay() const noexcept { return relay_; }

  /// Whether the kernel has the device still.
  [[nodiscard]] bool is_connected() const { return nbd_attribute(index(), "pid").has_value(); }

 private:
  RelayedDevice(Connect connect, NbdRelay relay, std::uint32_t length)
      : connect_(std::move(connect)), relay_(std::move(relay)), length_(length) {}

  [[nodiscard]] static std::uint32_t sample_length(Export const& served,
                                                   std::uint64_t sample) noexcept {
    auto const most = std::min(served.size, most_sample);
    return static_cast<std::uint32_t>(
        std::clamp<std::uint64_t>(sample, 1, std::max<std::uint64_t>(most, 1)));
  }

  Connect connect_;
  NbdRelay relay_;                 // after `connect_`: its sockets are closed first
  std::uint32_t length_;           // bytes of the sample
  NbdRelay::EngineId worker_ = 0;  // the newest; 0: none
  std::optional<Digest> sample_;
};

}  // namespace erofs_oci
