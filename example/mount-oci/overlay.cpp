// SPDX-License-Identifier: Apache-2.0
#include "overlay.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <string_view>
#include <utility>

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <erofs_oci/host/detached_mount.hpp>
#include <erofs_oci/host/host_support.hpp>
#include <erofs_oci/host/mount_point.hpp>
#include <erofs_oci/host/privilege.hpp>
#include <erofs_oci/host/unmount.hpp>
#include <erofs_oci/posix/program.hpp>
#include <erofs_oci/posix/temporary_directory.hpp>
#include <erofs_oci/posix/text_file.hpp>

#include "mount_table.hpp"

namespace mount_oci {
namespace {

using erofs_oci::fail;
using erofs_oci::fail_errno;
using erofs_oci::may_mount;

constexpr auto program = "fuse-overlayfs";

/// Where private directories are made: a place that is empty after a restart of the machine.
std::string scratch() {
  if (::access("/run", W_OK) == 0) return "/run";
  auto const* const own = std::getenv("XDG_RUNTIME_DIR");
  return own != nullptr && ::access(own, W_OK) == 0 ? own : "/tmp";
}

Result<void> make_directory(std::string const& path) {
  if (::mkdir(path.c_str(), 0755) == 0) return {};
  auto const number = errno;
  struct stat status{};
  if (number == EEXIST && ::stat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode)) return {};
  return fail_errno(number, "--writable: " + path);
}

/// Locks the directory: two overlays over it would damage it, and the kernel only warns in its log.
Result<void> check_unused(std::string const& directory) {
  auto const mounts = erofs_oci::read_text_file("/proc/self/mounts");
  auto const text = decode_octal(mounts.value_or(""));
  if (text.find(",upperdir=" + directory + "/upper,") == std::string::npos) return {};
  return fail_errno(EBUSY, "--writable: " + directory + " keeps the changes of another mount");
}

/// DIR, DIR/upper and DIR/work; yields DIR's absolute path.
Result<std::string> make_changes(std::string const& directory) {
  EROFS_OCI_TRY(make_directory(directory));
  EROFS_OCI_TRY_ASSIGN(auto path, real_path(directory));
  EROFS_OCI_TRY(check_unused(path));
  for (auto const* name : {"/upper", "/work"}) {
    EROFS_OCI_TRY(make_directory(path + name));
  }
  return path;
}

/// The type of the file system that a path is on, as mount(8) calls it.
std::string file_system_of(std::string const& path) {
  struct stat status{};
  auto const table = read_mount_table();
  if (!table || ::stat(path.c_str(), &status) != 0) return "this file system";
  auto const entry = std::ranges::find(*table, status.st_dev, &MountEntry::device);
  return entry == table->end() ? "this file system" : entry->type;
}

/// The kernel's messages about a failed mount; each begins with a letter and a blank.
std::string complaints(int context) {
  std::string text;
  std::array<char, 1024> line{};
  for (;;) {
    auto const n = ::read(context, line.data(), line.size());
    if (n <= 2) return text;
    auto said = std::string_view(line.data(), static_cast<std::size_t>(n)).substr(2);
    while (said.ends_with('\n')) said.remove_suffix(1);
    text.append("; ").append(said);
  }
}

Error explain(int number, int context, std::string const& target, std::string const& changes) {
  auto text = "overlay at " + target;
  if (context < 0 && number == ENODEV) text += " (this kernel has no overlayfs: modprobe overlay)";
  if (context >= 0) text += complaints(context);
  if (number == EINVAL || number == EOPNOTSUPP) {
    text += "; changes are kept in " + changes + ", which is on " + file_system_of(changes) +
            ": ext4, xfs, btrfs and tmpfs are suitable, network and overlay file systems are not";
  }
  return {std::error_code(number, std::system_category()), std::move(text), {}};
}

/// Whether FUSE serves a directory.
bool is_fuse(std::string const& path) {
  struct statfs status{};
  return ::statfs(path.c_str(), &status) == 0 && status.f_type == FUSE_SUPER_MAGIC;
}

}  // namespace

Result<Overlay> Overlay::prepare(MountOptions const& options) {
  auto const& wanted = options.writable_directory;
  if (!may_mount() && !erofs_oci::in_path(program, std::getenv("PATH"))) {
    return fail(Errc::unsupported,
                "--writable: without root this needs fuse-overlayfs, and there is none in PATH "
                "(Debian has it in package fuse-overlayfs)");
  }
  if (!may_mount() && wanted.empty()) {
    return fail(Errc::unsupported,
                "--writable: without root, name a directory for the changes: --writable=DIR");
  }
  EROFS_OCI_TRY_ASSIGN(auto made_directory,
                       erofs_oci::TemporaryDirectory::make(scratch() + "/mount-oci-"));
  auto const directory = made_directory.release();
  Overlay overlay(directory, directory);
  auto made = [&]() -> Result<std::string> {
    if (may_mount() &&
        ::mount("mount-oci", directory.c_str(), "tmpfs", MS_NOSUID | MS_NODEV, "mode=0700") != 0) {
      return fail_errno(errno, "tmpfs at " + directory);
    }
    EROFS_OCI_TRY(make_directory(overlay.lower()));
    return make_changes(wanted.empty() ? directory : wanted);
  }();
  if (!made) overlay.undo();
  EROFS_OCI_TRY_ASSIGN(overlay.changes_, std::move(made));
  return overlay;
}

Result<std::string> Overlay::put_over(MountOptions const& options) {
  EROFS_OCI_TRY_ASSIGN(auto const place, erofs_oci::MountPoint::open(options.target));
  auto const flags = options.flags & ~static_cast<unsigned long>(MS_RDONLY);
  EROFS_OCI_TRY(may_mount() ? by_kernel(place, flags) : by_program(place.path(), flags));
  undo();
  return place.path();
}

Result<void> Overlay::by_kernel(erofs_oci::MountPoint const& place, unsigned long flags) const {
  auto const& target = place.path();
  UniqueFd const context(::fsopen("overlay", FSOPEN_CLOEXEC));
  if (!context) return fail(explain(errno, -1, target, changes_));
  // Whole directories are renamed by reference; no file's data are ever looked for elsewhere. Over
  // FUSE they are not: with `redirect_dir=on` overlayfs finds the origin of each changed file by
  // its handle, and takes what it finds for stale once the kernel has dropped the file's name.
  auto const redirect = is_fuse(lower()) ? "follow" : "on";
  std::array<std::pair<char const*, std::string>, 6> const words{{{"source", "mount-oci"},
                                                                  {"lowerdir", lower()},
                                                                  {"upperdir", changes_ + "/upper"},
                                                                  {"workdir", changes_ + "/work"},
                                                                  {"redirect_dir", redirect},
                                                                  {"metacopy", "off"}}};
  auto const is_set = [&](auto const& word) {
    auto const& [key, value] = word;
    return ::fsconfig(context.get(), FSCONFIG_SET_STRING, key, value.c_str(), 0) == 0;
  };
  if (!std::ranges::all_of(words, is_set) ||
      ::fsconfig(context.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr, 0) != 0) {
    return fail(explain(errno, context.get(), target, changes_));
  }
  UniqueFd const mount(
      ::fsmount(context.get(), FSMOUNT_CLOEXEC, erofs_oci::mount_attributes(flags)));
  if (!mount) return fail_errno(errno, "overlay at " + target);
  return place.attach(mount.get());
}

Result<void> Overlay::by_program(std::string const& target, unsigned long flags) const {
  auto const name = [](std::string const& path) { return erofs_oci::escape_mount_option(path); };
  // A user cannot change files of other users, so the overlay shows all files as the user's.
  auto words = "squash_to_uid=" + std::to_string(::geteuid()) +
               ",squash_to_gid=" + std::to_string(::getegid()) + ",lowerdir=" + name(lower()) +
               ",upperdir=" + name(changes_ + "/upper") + ",workdir=" + name(changes_ + "/work");
  if ((flags & MS_NOEXEC) != 0) words += ",noexec";
  return erofs_oci::run_program({program, "-o", words, target});
}

void Overlay::undo() noexcept {
  if (private_.empty()) return;
  if (may_mount()) {
    ::umount2(private_.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW);  // and all that is below
  } else {
    static_cast<void>(erofs_oci::unmount(lower(), erofs_oci::UnmountBusy::detach));
    ::rmdir(lower().c_str());
  }
  ::rmdir(private_.c_str());
  private_.clear();
}

}  // namespace mount_oci
