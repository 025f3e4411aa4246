// SPDX-License-Identifier: Apache-2.0
#include "overlay.hpp"

#include <array>
#include <cerrno>
#include <cstdlib>
#include <string_view>
#include <utility>

#include <fcntl.h>
#include <spawn.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <erofs_oci/core/text_file.hpp>
#include <erofs_oci/fuse/host_support.hpp>
#include <erofs_oci/fuse/mount.hpp>
#include <erofs_oci/fuse/privilege.hpp>

#include "mount_flags.hpp"
#include "mount_table.hpp"

namespace mount_oci {
namespace {

using erofs_oci::fail;
using erofs_oci::fail_errno;
using erofs_oci::may_mount;

constexpr auto program = "fuse-overlayfs";

/// Where private directories go: one that is not there after a restart of the machine.
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

/// Two overlays over one directory would spoil it, and the kernel only warns in its log.
Result<void> check_unused(std::string const& directory) {
  auto const mounts = erofs_oci::read_text_file("/proc/self/mounts");
  auto const text = decode_octal(mounts.value_or(""));
  if (text.find(",upperdir=" + directory + "/upper,") == std::string::npos) return {};
  return fail_errno(EBUSY, "--writable: " + directory + " keeps the changes of another mount");
}

/// DIR, DIR/upper and DIR/work; yields DIR's absolute path.
Result<std::string> make_changes(std::string const& directory) {
  if (auto ok = make_directory(directory); !ok) return fail(ok.error());
  auto path = real_path(directory);
  if (!path) return path;
  if (auto ok = check_unused(*path); !ok) return fail(ok.error());
  for (auto const* name : {"/upper", "/work"}) {
    if (auto ok = make_directory(*path + name); !ok) return fail(ok.error());
  }
  return path;
}

/// The type of the file system that a path is on, as mount(8) calls it.
std::string file_system_of(std::string const& path) {
  struct stat status{};
  auto const table = read_mount_table();
  if (!table || ::stat(path.c_str(), &status) != 0) return "this file system";
  for (auto const& entry : *table) {
    if (entry.device == status.st_dev) return entry.type;
  }
  return "this file system";
}

/// What the kernel had to say of a mount that failed, each line behind a letter and a blank.
std::string complaints(int context) {
  std::string text;
  std::array<char, 1024> line{};
  for (;;) {
    auto const n = ::read(context, line.data(), line.size());
    if (n <= 2) return text;
    auto said = std::string_view(line.data(), static_cast<std::size_t>(n)).substr(2);
    while (said.ends_with('\n')) said.remove_suffix(1);
    text += "; ";
    text += said;
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

Result<void> run_program(std::vector<std::string> words) {
  std::vector<char*> arguments;
  for (auto& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  pid_t child = -1;
  if (auto const n =
          ::posix_spawnp(&child, arguments[0], nullptr, nullptr, arguments.data(), environ);
      n != 0) {
    return fail_errno(n, words[0]);
  }
  int status = 0;
  while (::waitpid(child, &status, 0) < 0) {
    if (errno != EINTR) return fail_errno(errno, words[0]);
  }
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return {};
  return fail(make_error_code(std::errc::io_error), words[0] + " has failed");
}

}  // namespace

Result<Overlay> Overlay::prepare(MountOptions const& options) {
  auto const& wanted = options.writable_directory;
  if (!may_mount()) {
    if (!erofs_oci::detail::in_path(program, std::getenv("PATH"))) {
      return fail(Errc::unsupported,
                  "--writable: without root this needs fuse-overlayfs, and there is none in PATH "
                  "(Debian has it in package fuse-overlayfs)");
    }
    if (wanted.empty()) {
      return fail(Errc::unsupported,
                  "--writable: without root, name a directory for the changes: --writable=DIR");
    }
  }
  auto directory = scratch() + "/mount-oci-XXXXXX";
  if (::mkdtemp(directory.data()) == nullptr) return fail_errno(errno, directory);
  Overlay overlay(directory, directory);
  auto const made = [&]() -> Result<void> {
    if (may_mount() &&
        ::mount("mount-oci", directory.c_str(), "tmpfs", MS_NOSUID | MS_NODEV, "mode=0700") != 0) {
      return fail_errno(errno, "tmpfs at " + directory);
    }
    if (auto ok = make_directory(overlay.lower()); !ok) return ok;
    auto changes = make_changes(wanted.empty() ? directory : wanted);
    if (!changes) return fail(std::move(changes).error());
    overlay.changes_ = *std::move(changes);
    return {};
  }();
  if (made) return overlay;
  overlay.undo();
  return fail(made.error());
}

Result<std::string> Overlay::put_over(MountOptions const& options) {
  auto target = real_path(options.target);
  if (!target) return target;
  auto const flags = options.flags & ~static_cast<unsigned long>(MS_RDONLY);
  auto const ok = may_mount() ? by_kernel(*target, flags) : by_program(*target, flags);
  if (!ok) return fail(ok.error());
  undo();
  return target;
}

Result<void> Overlay::by_kernel(std::string const& target, unsigned long flags) const {
  UniqueFd const context(::fsopen("overlay", FSOPEN_CLOEXEC));
  if (!context) return fail(explain(errno, -1, target, changes_));
  // Whole directories are renamed by reference; no file's data are ever looked for elsewhere.
  std::array<std::pair<char const*, std::string>, 6> const words{{{"source", "mount-oci"},
                                                                  {"lowerdir", lower()},
                                                                  {"upperdir", changes_ + "/upper"},
                                                                  {"workdir", changes_ + "/work"},
                                                                  {"redirect_dir", "on"},
                                                                  {"metacopy", "off"}}};
  for (auto const& [key, value] : words) {
    if (::fsconfig(context.get(), FSCONFIG_SET_STRING, key, value.c_str(), 0) != 0) {
      return fail(explain(errno, context.get(), target, changes_));
    }
  }
  if (::fsconfig(context.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr, 0) != 0) {
    return fail(explain(errno, context.get(), target, changes_));
  }
  UniqueFd const mount(::fsmount(context.get(), FSMOUNT_CLOEXEC, mount_attributes(flags)));
  if (!mount ||
      ::move_mount(mount.get(), "", AT_FDCWD, target.c_str(), MOVE_MOUNT_F_EMPTY_PATH) != 0) {
    return fail_errno(errno, "overlay at " + target);
  }
  return {};
}

Result<void> Overlay::by_program(std::string const& target, unsigned long flags) const {
  auto const name = [](std::string const& path) {
    return erofs_oci::detail::escape_mount_option(path);
  };
  // Nobody else's files can be changed by a user, so all are the user's own.
  auto words = "squash_to_uid=" + std::to_string(::geteuid()) +
               ",squash_to_gid=" + std::to_string(::getegid()) + ",lowerdir=" + name(lower()) +
               ",upperdir=" + name(changes_ + "/upper") + ",workdir=" + name(changes_ + "/work");
  if ((flags & MS_NOEXEC) != 0) words += ",noexec";
  return run_program({program, "-o", words, target});
}

void Overlay::undo() noexcept {
  if (private_.empty()) return;
  if (may_mount()) {
    ::umount2(private_.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW);  // and all that is below
  } else {
    static_cast<void>(erofs_oci::unmount_fuse(lower(), erofs_oci::UnmountBusy::detach));
    ::rmdir(lower().c_str());
  }
  ::rmdir(private_.c_str());
  private_.clear();
}

}  // namespace mount_oci
