// SPDX-License-Identifier: Apache-2.0
#include "device_server.hpp"

#include <cerrno>
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>

#include <fcntl.h>
#include <unistd.h>

#include <erofs_oci/fuse/choose_mount.hpp>
#include <erofs_oci/nbd/device.hpp>
#include <erofs_oci/nbd/ioctl_connect.hpp>
#include <erofs_oci/nbd/netlink_connect.hpp>
#include <erofs_oci/nbd/server.hpp>
#include <erofs_oci/nbd/wakeup.hpp>

#include "choose_way.hpp"
#include "daemon.hpp"
#include "fuse_server.hpp"
#include "image.hpp"
#include "keeper.hpp"
#include "mount_table.hpp"

namespace mount_oci {
namespace {

using erofs_oci::fail;
using erofs_oci::fail_errno;
using erofs_oci::IoctlConnect;
using erofs_oci::MountWay;
using erofs_oci::NetlinkConnect;
using erofs_oci::nbd::Wakeup;

/// Whether a file system is mounted from a device, in whatever mount namespace.
bool is_in_use(std::uint32_t index) {
  auto const path = erofs_oci::nbd_device_path(index);
  UniqueFd const fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_EXCL));
  return !fd && errno == EBUSY;
}

/// Makes the last unmount end the device, where the kernel can do that; yields a warning or
/// nothing.
template <class Connect>
std::string settle([[maybe_unused]] Connect& connect) {
  if constexpr (requires { connect.set_disconnect_on_close(); }) {
    auto const ok = connect.set_disconnect_on_close();
    if (!ok) return "umount will not end the device: " + ok.error().message();
  }
  return {};
}

template <class Connect>
Result<void> serve_nbd(Connect connect, erofs_oci::DeviceImage image, Options const& options,
                       Keeper& keeper, Log& log) {
  erofs_oci::NbdServer server(
      std::move(image.source), std::move(connect),
      {.zeros_from = image.zeros_from,
       .workers = worker_count(options.image),
       .on_read_error = [&log](std::uint64_t offset, std::uint32_t length, Error const& error) {
         log.say(Level::error, "read of " + std::to_string(length) + " bytes at offset " +
                                   std::to_string(offset) + ": " + error.message());
       }});
  auto done = server.run(keeper.stop_token(), [&](Connect& device) {
    auto const index = device.index();
    Attached attached{{Message::Kind::device, erofs_oci::nbd_device_path(index), {}, {}},
                      [&device] { return settle(device); },
                      {}};
    if (std::is_same_v<Connect, IoctlConnect>) {
      attached.in_use = [index] { return is_in_use(index); };
    }
    keeper.begin(std::move(attached));
  });
  keeper.finish();
  return done;
}

Result<void> serve_fuse(FuseServing const& what, erofs_oci::DeviceImage image, Keeper& keeper,
                        Log& log) {
  auto const done = serve_by_fuse(
      what, std::move(image), std::nullopt, keeper.stop_token(),
      [&](erofs_oci::FuseSession&) {
        keeper.begin({.news = {Message::Kind::mounted, what.target, {}, {}}});
      },
      log);
  keeper.finish();
  if (!done) return fail(done.error());
  return {};
}

Result<void> serve_by(MountWay way, erofs_oci::DeviceImage image, Options const& options,
                      std::string const& target, Keeper& keeper, Log& log) {
  erofs_oci::NbdDeviceOptions device;
  device.dead_connection_timeout = std::chrono::seconds(0);  // nobody would come in our place
  device.backend = "mount-oci";
  switch (way) {
    case MountWay::netlink:
      return serve_nbd(NetlinkConnect(device), std::move(image), options, keeper, log);
    case MountWay::ioctl:
      return serve_nbd(IoctlConnect(device), std::move(image), options, keeper, log);
    default: break;
  }
  FuseServing const what{.way = way,
                         .target = target,
                         .flags = options.mount.flags,
                         .data = options.mount.data,
                         .readahead = options.image.readahead,
                         .threads = worker_count(options.image)};
  return serve_fuse(what, std::move(image), keeper, log);
}

Result<void> open_and_serve(Options const& options, Keeper& keeper, Log& log) {
  auto const way = choose_way(options.mount.attach, {}, log);
  if (!way) return fail(way.error());
  // A path of another namespace means nothing here, and FUSE mounts only in its own.
  auto const target =
      options.mount.name_space.empty() ? real_path(options.mount.target) : std::string();
  if (!target) return fail(target.error());
  auto image = open_or_exit(options.image, keeper.signals(), log, keeper.link_fd());
  if (!image) return fail(std::move(image).error());
  if (keeper.life() == Life::daemon && ::chdir("/") != 0) return fail_errno(errno, "/");
  lock_memory(log);
  return serve_by(*way, *std::move(image), options, *target, keeper, log);
}

}  // namespace

Result<void> serve_device(Options const& options, Link link, Life life, Log& log) {
  if (life == Life::daemon) {
    if (auto ok = leave_caller({link.fd()}); !ok) return ok;
  }
  auto signals = Signals::take();
  if (!signals) return fail(std::move(signals).error());
  auto ended = Wakeup::open();
  if (!ended) return fail(std::move(ended).error());

  Keeper keeper(std::move(link), *std::move(signals), *std::move(ended), life, log);
  auto done = open_and_serve(options, keeper, log);
  keeper.finish();
  if (!done) keeper.report(done.error());
  if (done && keeper.failure()) return fail(*keeper.failure());
  return done;
}

}  // namespace mount_oci
