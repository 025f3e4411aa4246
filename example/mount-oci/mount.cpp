// SPDX-License-Identifier: Apache-2.0
// Mounting: one process serves the image, another one mounts it, and they tell each other.
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <memory>
#include <optional>
#include <thread>
#include <utility>

#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <erofs_oci/fuse/mount.hpp>
#include <erofs_oci/nbd/device.hpp>

#include "commands.hpp"
#include "device_server.hpp"
#include "image.hpp"
#include "link.hpp"
#include "mount_flags.hpp"
#include "mount_table.hpp"
#include "overlay.hpp"
#include "supervise.hpp"

namespace mount_oci {
namespace {

using erofs_oci::fail;
using erofs_oci::fail_errno;
using namespace std::chrono_literals;

/// A mount namespace, named by a process id or a path.
Result<UniqueFd> open_namespace(std::string const& name) {
  auto const is_pid = name.find_first_not_of("0123456789") == std::string::npos;
  auto fd = erofs_oci::open_read(is_pid ? "/proc/" + name + "/ns/mnt" : name);
  if (!fd) return fail(std::move(fd).error(), "-N");
  return fd;
}

Result<void> enter_namespace(int fd) {
  if (::setns(fd, CLONE_NEWNS) != 0) return fail_errno(errno, "-N");
  return {};
}

/// Waits for udev or devtmpfs to make the node of a device that is new.
Result<void> wait_for_node(std::string const& device) {
  Result<dev_t> found = block_device(device);
  for (int i = 0; !found && i < 500; ++i) {
    std::this_thread::sleep_for(10ms);
    found = block_device(device);
  }
  if (!found) return fail(found.error());
  return {};
}

/// Says what the kernel's bare errno most likely means here.
Error explain_mount(int number, std::string const& device, std::string const& target) {
  auto context = "mount " + device + " at " + target;
  switch (number) {
    case ENODEV: context += " (this kernel has no EROFS)"; break;
    case EINVAL:
      context +=
          " (dmesg may say more; a tarindex needs Linux 6.4, and unknown -o words are refused)";
      break;
    default: break;
  }
  return {std::error_code(number, std::system_category()), std::move(context), {}};
}

/// Proves that files can be read: the root's inode and its first entries come from the image.
Result<void> check_mounted(std::string const& target) {
  std::unique_ptr<DIR, int (*)(DIR*)> const folder(::opendir(target.c_str()), &::closedir);
  if (!folder) return fail_errno(errno, target);
  struct stat status{};
  if (::fstat(::dirfd(folder.get()), &status) != 0) return fail_errno(errno, target);
  errno = 0;
  if (::readdir(folder.get()) == nullptr) {
    return fail_errno(errno != 0 ? errno : EIO, target + ": read the root directory");
  }
  return {};
}

/// A mount that is nowhere yet.
Result<UniqueFd> mount_detached(MountOptions const& options, std::string const& device) {
  UniqueFd const context(::fsopen("erofs", FSOPEN_CLOEXEC));
  auto const set = [&](unsigned command, char const* key, char const* value) {
    return ::fsconfig(context.get(), command, key, value, 0) == 0;
  };
  auto ok = context && set(FSCONFIG_SET_STRING, "source", device.c_str()) &&
            set(FSCONFIG_SET_FLAG, "ro", nullptr);
  for (auto const& word : split_list(options.data).value_or(std::vector<Word>())) {
    if (!ok) break;
    ok = word.has_value ? set(FSCONFIG_SET_STRING, word.key.c_str(), word.value.c_str())
                        : set(FSCONFIG_SET_FLAG, word.key.c_str(), nullptr);
  }
  ok = ok && set(FSCONFIG_CMD_CREATE, nullptr, nullptr);
  if (!ok) return fail(explain_mount(errno, device, options.target));
  UniqueFd mount(::fsmount(context.get(), FSMOUNT_CLOEXEC, mount_attributes(options.flags)));
  if (!mount) return fail(explain_mount(errno, device, options.target));
  return mount;
}

/// Mounts in another namespace, which need not have a node of the device.
Result<std::string> mount_elsewhere(MountOptions const& options, std::string const& device) {
  auto const space = open_namespace(options.name_space);
  if (!space) return fail(space.error());
  auto const mount = mount_detached(options, device);
  if (!mount) return fail(mount.error());
  if (auto ok = enter_namespace(space->get()); !ok) return fail(ok.error());
  auto target = real_path(options.target);
  if (!target) return target;
  if (::move_mount(mount->get(), "", AT_FDCWD, target->c_str(), MOVE_MOUNT_F_EMPTY_PATH) != 0) {
    return fail(explain_mount(errno, device, *target));
  }
  return target;
}

Result<std::string> mount_here(MountOptions const& options, std::string const& device) {
  auto target = real_path(options.target);
  if (!target) return target;
  auto const* data = options.data.empty() ? nullptr : options.data.c_str();
  if (::mount(device.c_str(), target->c_str(), "erofs", options.flags, data) != 0) {
    return fail(explain_mount(errno, device, *target));
  }
  return target;
}

/// Has the kernel wait for reads that are in flight: not for the process that answers them.
void set_read_ahead(std::string const& device, std::uint64_t bytes, Log const& log) {
  auto const number = block_device(device);
  auto const index = number ? nbd_index_of(*number) : std::nullopt;
  if (!index) return;
  auto const kib = static_cast<std::uint32_t>(bytes / 1024);
  if (auto const ok = erofs_oci::set_nbd_read_ahead(*index, kib); !ok) {
    log.say(Level::info, "read ahead: " + ok.error().message());
  }
}

Result<std::string> mount_device(MountOptions const& options, std::string const& device,
                                 std::uint64_t read_ahead, Log const& log) {
  if (auto ok = wait_for_node(device); !ok) return fail(ok.error());
  set_read_ahead(device, read_ahead, log);
  auto target =
      options.name_space.empty() ? mount_here(options, device) : mount_elsewhere(options, device);
  if (!target) return target;
  if (auto ok = check_mounted(*target); !ok) {
    ::umount2(target->c_str(), MNT_DETACH);
    return fail(ok.error());
  }
  return target;
}

/// What the mounting process does.
struct MountTask {
  MountOptions mount;            ///< of the image
  std::string target;            ///< that the user named
  std::uint64_t read_ahead = 0;  ///< of the kernel on the device, in bytes
  std::optional<Overlay> overlay{};
};

/// Mounts the device that the server has, or checks what it has mounted by itself.
Result<std::string> make_mount(MountTask const& task, Message const& message, Log const& log) {
  if (message.kind == Message::Kind::device) {
    return mount_device(task.mount, message.text, task.read_ahead, log);
  }
  if (message.kind != Message::Kind::mounted) return fail(message.error);
  if (auto ok = check_mounted(message.text); !ok) return fail(ok.error());
  return message.text;
}

/// Mounts the image, and over it what makes it writable if that is wanted.
Result<std::string> make_whole_mount(MountTask& task, Message const& message, Log const& log) {
  auto target = make_mount(task, message, log);
  if (!target || !task.overlay) return target;
  auto over = task.mount;
  over.target = task.target;
  return task.overlay->put_over(over);
}

/// The part of the process that mounts; returns once the mount stands or everything has failed.
Result<void> mount_over(Link const& link, MountTask& task, Log const& log) {
  auto const& options = task.mount;
  auto const first = link.receive();
  if (!first) return fail(first.error(), "the serving process");
  auto target = make_whole_mount(task, *first, log);
  if (!target) return fail(std::move(target).error());
  // A path of another namespace means nothing to the server.
  link.send({Message::Kind::mounted, options.name_space.empty() ? *target : std::string(), {}, {}});
  auto const last = link.receive();
  if (!last || last->kind != Message::Kind::settled) {
    static_cast<void>(erofs_oci::unmount_fuse(*target, erofs_oci::UnmountBusy::detach));
    return fail(last ? last->error : last.error(), "the serving process");
  }
  if (!last->text.empty()) log.say(Level::warning, last->text);
  return {};
}

/// Gives a child the time to clean up, then ends it.
void wait_for_end(pid_t child) {
  for (int i = 0; i < 1000; ++i) {
    if (::waitpid(child, nullptr, WNOHANG) != 0) return;
    std::this_thread::sleep_for(10ms);
  }
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
}

Result<void> serve_mount(Options const& options, Link link, Life life, Log& log) {
  if (options.keep.supervise) return supervise(options, std::move(link), life, {}, log);
  return serve_device(options, std::move(link), life, log);
}

Result<void> mount_in_background(Options const& options, MountTask& task, Log& log) {
  auto links = Link::make();
  if (!links) return fail(std::move(links).error());
  auto const child = ::fork();
  if (child < 0) return fail_errno(errno, "fork");
  if (child == 0) {
    links->second.close();
    auto const done = serve_mount(options, std::move(links->first), Life::daemon, log);
    if (!done) log.say(Level::debug, done.error().message());  // the parent tells the user
    std::_Exit(done ? 0 : 2);
  }
  links->first.close();
  auto done = mount_over(links->second, task, log);
  links->second.close();
  if (!done && task.overlay) task.overlay->undo();
  if (!done) wait_for_end(child);
  return done;
}

Result<void> mount_in_foreground(Options const& options, MountTask& task, Log& log) {
  auto links = Link::make();
  if (!links) return fail(std::move(links).error());
  auto const child = ::fork();
  if (child < 0) return fail_errno(errno, "fork");
  if (child == 0) {
    links->first.close();
    auto const done = mount_over(links->second, task, log);
    if (!done && task.overlay) task.overlay->undo();
    if (!done) links->second.send({Message::Kind::failed, {}, done.error(), {}});
    std::_Exit(done ? 0 : 2);
  }
  links->second.close();
  auto done = serve_mount(options, std::move(links->first), Life::foreground, log);
  wait_for_end(child);
  return done;
}

/// What needs no server: a mount that is there already is changed or moved.
Result<void> change_mount(Options const& options) {
  auto const& mount = options.mount;
  if (!mount.name_space.empty()) {
    auto const space = open_namespace(mount.name_space);
    if (!space) return fail(space.error());
    if (auto ok = enter_namespace(space->get()); !ok) return ok;
  }
  auto const* data = mount.data.empty() ? nullptr : mount.data.c_str();
  if (::mount(options.image.image.c_str(), mount.target.c_str(), "erofs", mount.flags, data) != 0) {
    return fail_errno(errno, mount.target);
  }
  return {};
}

Result<void> check_target(MountOptions const& options) {
  if (!options.name_space.empty()) return {};  // it is looked up where it will be mounted
  struct stat status{};
  if (::stat(options.target.c_str(), &status) != 0) return fail_errno(errno, options.target);
  if (!S_ISDIR(status.st_mode)) return fail_errno(ENOTDIR, options.target);
  return {};
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
    auto overlay = Overlay::prepare(options.mount);
    if (!overlay) return fail(std::move(overlay).error());
    options.mount.target = overlay->lower();
    task.mount.target = overlay->lower();
    task.overlay = *std::move(overlay);
  }
  return options.mount.foreground ? mount_in_foreground(options, task, log)
                                  : mount_in_background(options, task, log);
}

}  // namespace

Result<void> run_mount(Options const& options, Log& log) {
  auto const& mount = options.mount;
  if ((mount.flags & (MS_REMOUNT | MS_MOVE)) != 0) return change_mount(options);
  if (auto ok = check_target(mount); !ok) return ok;
  if (mount.fake) {
    auto const image = open_source(options.image, log);
    if (!image) return fail(image.error());
    return {};
  }
  auto const ways = ways_into(mount);
  if (!ways) return fail(ways.error());
  auto chosen = options;
  chosen.mount.attach = *ways;
  return mount_image(std::move(chosen), log);
}

}  // namespace mount_oci
