// SPDX-License-Identifier: Apache-2.0
// Mounting: one process serves the image, another one mounts it, and they exchange messages.
#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <optional>
#include <utility>

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <erofs_oci/host/block_device.hpp>
#include <erofs_oci/host/detached_mount.hpp>
#include <erofs_oci/host/mount_point.hpp>
#include <erofs_oci/host/privilege.hpp>
#include <erofs_oci/host/unmount.hpp>
#include <erofs_oci/host/verity_device.hpp>
#include <erofs_oci/nbd/device.hpp>
#include <erofs_oci/posix/wait.hpp>

#include "commands.hpp"
#include "image.hpp"
#include "merkle_tree.hpp"
#include "mount_table.hpp"
#include "overlay.hpp"
#include "reader.hpp"
#include "records.hpp"
#include "share.hpp"
#include "supervise.hpp"

namespace mount_oci {
namespace {

using erofs_oci::fail;
using erofs_oci::fail_errno;
using erofs_oci::MountChannel;
using erofs_oci::MountMessage;
using erofs_oci::MountPoint;
using erofs_oci::VerityDevice;
using erofs_oci::VerityTable;
using namespace std::chrono_literals;

/// A mount namespace, named by a process id or a path.
Result<UniqueFd> open_namespace(std::string const& name) {
  auto const is_pid = name.find_first_not_of("0123456789") == std::string::npos;
  EROFS_OCI_TRY_ASSIGN(auto fd, erofs_oci::open_read(is_pid ? "/proc/" + name + "/ns/mnt" : name),
                       "-N");
  return fd;
}

Result<void> enter_namespace(int fd) {
  if (::setns(fd, CLONE_NEWNS) != 0) return fail_errno(errno, "-N");
  return {};
}

/// Sets how far the kernel reads ahead, for fewer and longer requests.
void set_read_ahead(std::string const& device, std::uint64_t bytes, Log const& log) {
  auto const number = block_device(device);
  auto const index = number ? nbd_index_of(*number) : std::nullopt;
  if (!index) return;
  auto const kib = static_cast<std::uint32_t>(bytes / 1024);
  if (auto const ok = erofs_oci::set_nbd_read_ahead(*index, kib); !ok) {
    log.say(Level::info, "read ahead: " + ok.error().message());
  }
}

/// Has the kernel's EROFS open a device; what checks it goes with the mount.
Result<UniqueFd> open_device(MountOptions const& options, std::string const& device,
                             std::optional<VerityTable> const& table, Log const& log) {
  if (!table) return erofs_oci::detached_erofs(device, options.flags, options.data);
  auto const verity = VerityDevice::open(device, *table);
  if (verity) {
    auto mount = erofs_oci::detached_erofs(verity->path(), options.flags, options.data);
    return mount ? std::move(mount) : fail(erofs_oci::explain_verity(mount.error()));
  }
  if (table->required) return fail(verity.error());
  log.say(Level::warning, verity.error().message() + "; the kernel does not check the image");
  return erofs_oci::detached_erofs(device, options.flags, options.data);
}

/// Mounts a device; in another mount namespace too, which need not have a node of it.
Result<std::string> mount_device(MountOptions const& options, std::string const& device,
                                 std::optional<VerityTable> const& table, std::uint64_t read_ahead,
                                 Log const& log) {
  EROFS_OCI_TRY(erofs_oci::wait_for_block_device(device));
  set_read_ahead(device, read_ahead, log);
  UniqueFd space;
  if (!options.name_space.empty()) {
    EROFS_OCI_TRY_ASSIGN(space, open_namespace(options.name_space));
  }
  EROFS_OCI_TRY_ASSIGN(auto const mount, open_device(options, device, table, log), options.target);
  EROFS_OCI_TRY(erofs_oci::check_mounted(mount.get(), device));
  if (space) EROFS_OCI_TRY(enter_namespace(space.get()));
  EROFS_OCI_TRY_ASSIGN(auto const place, MountPoint::open(options.target));
  EROFS_OCI_TRY(place.attach(mount.get()));
  return place.path();
}

/// What the mounting process needs.
struct MountTask {
  MountOptions mount;            ///< of the image
  std::string target;            ///< that the user named
  std::uint64_t read_ahead = 0;  ///< of the kernel on the device, in bytes
  std::optional<Overlay> overlay{};
};

/// Mounts the worker's device, or checks what the worker has mounted by FUSE.
Result<std::string> make_mount(MountTask const& task, MountMessage const& message, Log const& log) {
  if (message.kind == MountMessage::Kind::device) {
    auto const end = std::min(message.text.find('\n'), message.text.size());
    EROFS_OCI_TRY_ASSIGN(
        auto const table,
        parse_table(std::string_view(message.text).substr(std::min(end + 1, message.text.size()))));
    return mount_device(task.mount, message.text.substr(0, end), table, task.read_ahead, log);
  }
  if (message.kind != MountMessage::Kind::mounted) return fail(message.error);
  EROFS_OCI_TRY_ASSIGN(auto const root, erofs_oci::open_place(message.text));
  EROFS_OCI_TRY(erofs_oci::check_mounted(root.get(), message.text));
  return message.text;
}

/// Mounts the image and, for --writable, the overlay over it.
Result<std::string> make_whole_mount(MountTask& task, MountMessage const& message, Log const& log) {
  auto target = make_mount(task, message, log);
  if (!target || !task.overlay) return target;
  auto over = task.mount;
  over.target = task.target;
  return task.overlay->put_over(over);
}

/// The part of the process that mounts; returns once the mount stands or everything has failed.
Result<void> mount_over(MountChannel const& link, MountTask& task, Log const& log) {
  auto const& options = task.mount;
  EROFS_OCI_TRY_ASSIGN(auto const first, link.receive(), "the serving process");
  EROFS_OCI_TRY_ASSIGN(auto target, make_whole_mount(task, first, log));
  // A path of another namespace means nothing to the server.
  link.tell(
      {MountMessage::Kind::mounted, options.name_space.empty() ? target : std::string(), {}, {}});
  auto const last = link.receive();
  if (!last || last->kind != MountMessage::Kind::settled) {
    static_cast<void>(erofs_oci::unmount(target, erofs_oci::UnmountBusy::detach));
    return fail(last ? last->error : last.error(), "the serving process");
  }
  if (!last->text.empty()) log.say(Level::warning, last->text);
  return {};
}

/// Gives a child the time to clean up, then ends it.
void wait_for_end(pid_t child) {
  if (erofs_oci::wait_for(10s, [=] { return ::waitpid(child, nullptr, WNOHANG) != 0; })) return;
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
}

/// Two processes: in the background the child serves and this one mounts, in the foreground it is
/// the other way round.
Result<void> mount_and_serve(Options const& options, MountTask& task, Log& log) {
  EROFS_OCI_TRY_ASSIGN(auto links, MountChannel::make());
  auto const foreground = options.mount.foreground;
  auto const child = ::fork();
  if (child < 0) return fail_errno(errno, "fork");
  Result<void> done;
  if (foreground == (child == 0)) {
    links.first.close();
    done = mount_over(links.second, task, log);
    if (!foreground) links.second.close();
    if (!done && task.overlay) task.overlay->undo();
    if (!done && foreground) links.second.tell({MountMessage::Kind::failed, {}, done.error(), {}});
  } else {
    links.second.close();
    auto const life = foreground ? Life::foreground : Life::daemon;
    done = supervise(options, std::move(links.first), life, {}, log);
    // In the background the parent tells the user.
    if (!done && !foreground) log.say(Level::debug, done.error().message());
  }
  if (child == 0) std::_Exit(done ? 0 : 2);
  if (!done || foreground) wait_for_end(child);
  return done;
}

/// Changes or moves a mount that exists already, which needs no worker.
Result<void> change_mount(Options const& options) {
  auto const& mount = options.mount;
  if (!mount.name_space.empty()) {
    EROFS_OCI_TRY_ASSIGN(auto const space, open_namespace(mount.name_space));
    EROFS_OCI_TRY(enter_namespace(space.get()));
  }
  EROFS_OCI_TRY_ASSIGN(auto const place, MountPoint::open(mount.target));
  auto const* const data = mount.data.empty() ? nullptr : mount.data.c_str();
  if (::mount(options.image.image.c_str(), place.place().c_str(), "erofs", mount.flags, data) ==
      0) {
    return {};
  }
  return fail_errno(errno, mount.target);
}

Result<void> check_target(Options const& options) {
  auto const& target = options.mount.target;
  auto const place = MountPoint::open(target);
  if (place) return {};
  auto const bare = place.error().code == std::errc::no_such_file_or_directory &&
                    options.image.image.find_first_of("/.:@") == std::string::npos;
  if (!bare) return fail(place.error());
  return fail(place.error().code,
              target + " (and mount-oci has no command `" + options.image.image + "`)");
}

/// Whether the image is mounted at the directory already. What waits there for a mount does not
/// count: automount(8) and systemd put it there.
/// @error{EBUSY, something else is mounted there}
Result<bool> is_mounted_already(Options const& options, Log& log) {
  auto const& target = options.mount.target;
  EROFS_OCI_TRY_ASSIGN(auto const table, read_mount_table());
  auto const there = find_target(table, real_path(target).value_or(target));
  if (!there || there->type == "autofs") return false;
  auto const noted = is_ours(*there) ? noted_mount(options, target)
                                     : Result<NotedMount>(fail(Errc::not_found, target));
  if (noted && noted->is_of_image(options.image.image)) return true;
  // A clone has the record of a mount that may have named the image by another tag.
  if (noted && options.helper && is_same_image(options.image, *noted, log)) return true;
  return fail_errno(
      EBUSY, target + ": " + (noted ? noted->image() : there->type + " from " + there->source) +
                 " is mounted there; unmount it first, or mount over it with -o stack");
}

/// A device can be mounted in any mount namespace; FUSE only in that of its server.
Result<Attach> ways_into(MountOptions const& options) {
  auto const wanted = options.attach;
  if (options.name_space.empty()) return wanted;
  if (wanted == Attach::automatic) return Attach::nbd;
  if (wanted == Attach::fuse || wanted == Attach::fuse_file || wanted == Attach::fuse_tree) {
    return fail(Errc::invalid_argument,
                "-N: FUSE cannot be mounted in another namespace; run mount-oci in it instead "
                "(nsenter -m)");
  }
  return wanted;
}

Result<void> mount_image(Options options, Log& log) {
  MountTask task{options.mount, options.mount.target, options.image.readahead};
  if (options.mount.writable) {
    EROFS_OCI_TRY_ASSIGN(auto overlay, Overlay::prepare(options.mount));
    options.mount.target = overlay.lower();
    task.mount.target = overlay.lower();
    task.overlay = std::move(overlay);
  }
  return mount_and_serve(options, task, log);
}

/// Mounts the image by a server that is there already, or starts one.
Result<void> share_or_serve(Options options, Log& log) {
  if (erofs_oci::may_mount()) options.mount.share_key = share_key(options);
  auto const& key = options.mount.share_key;
  auto const turn = ShareTurn::wait(options, key, log);  // until the mount stands
  if (!key.empty()) {
    EROFS_OCI_TRY_ASSIGN(auto const where, mount_shared(options, key, log));
    if (!where.empty()) {
      log.say(options.mount.attach == Attach::automatic ? Level::notice : Level::info,
              "mounted by the server that serves " + where);
      return {};
    }
  }
  return mount_image(std::move(options), log);
}

}  // namespace

Result<void> run_mount(Options const& options, Log& log) {
  auto const& mount = options.mount;
  if ((mount.flags & (MS_REMOUNT | MS_MOVE)) != 0) return change_mount(options);
  if (mount.name_space.empty()) {  // else it is looked up where it will be mounted
    EROFS_OCI_TRY(check_target(options));
    if (!mount.stack && !mount.fake) {
      EROFS_OCI_TRY_ASSIGN(auto const is_there, is_mounted_already(options, log));
      if (is_there && options.helper) return {};
      if (is_there)
        return fail_errno(EBUSY, mount.target + ": this image is mounted there already");
    }
  }
  auto chosen = options;
  if (mount.fake) {
    EROFS_OCI_TRY(become_reader(chosen.image, nullptr, {}, log));
    EROFS_OCI_TRY(open_source(chosen.image, log));
    return {};
  }
  // mount(8) says rw to a helper whenever it does not say ro.
  if (mount.asks_rw && !mount.writable && !options.helper) {
    log.say(Level::warning,
            "-o rw: the image is mounted read-only; with --writable or oci.writable "
            "an overlay keeps changes");
  }
  if (!options.keep.supervise && ::geteuid() == 0 && !options.image.allow_unconfined) {
    return fail(Errc::invalid_argument,
                "--no-supervise: the process that keeps the mount would read the image with root's "
                "privileges; leave it out, or add --allow-unconfined");
  }
  EROFS_OCI_TRY_ASSIGN(chosen.mount.attach, ways_into(mount));
  return share_or_serve(std::move(chosen), log);
}

}  // namespace mount_oci
