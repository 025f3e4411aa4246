// SPDX-License-Identifier: Apache-2.0
/// @file
/// Mounting /dev/fuse on a directory, with and without privileges. Needs no libfuse.
#pragma once

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <spawn.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/fd.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/core/text_file.hpp>
#include <erofs_oci/fuse/privilege.hpp>

namespace erofs_oci {

/// An open /dev/fuse that is mounted somewhere.
///
/// It can outlive the process that serves it: who holds a descriptor keeps the mount alive, and
/// requests wait. A new server needs `opening` too, since the kernel says it only once, and
/// `inflight`, since it hands each request out only once.
struct FuseConnection {
  UniqueFd device;
  Bytes opening{};      ///< the kernel's first request, FUSE_INIT; empty until it has come
  UniqueFd inflight{};  ///< of FuseInflight; empty until a server has begun
};

/// Who may use a mounted file system.
enum class FuseAccess : std::uint8_t {
  automatic,  ///< everyone if this process may mount, else owner
  owner,      ///< who mounted it, and that user may read all of it
  everyone,   ///< every user, as modes, owners and ACLs say. Without privileges this needs
              ///< user_allow_other in /etc/fuse.conf
};

/// How /dev/fuse is mounted.
struct FuseMountOptions {
  std::string source = "erofs_oci";   ///< the first word in /proc/mounts
  std::string subtype = "erofs_oci";  ///< the type there is fuse.SUBTYPE
  /// MS_ flags. fusermount3 adds nosuid and nodev whatever they say.
  unsigned long flags = MS_RDONLY | MS_NOSUID | MS_NODEV;
  FuseAccess access = FuseAccess::automatic;
  std::string helper = "fusermount3";  ///< what mounts for those who may not; looked up in PATH
};

/// Whether a file system in use is unmounted.
enum class UnmountBusy : std::uint8_t {
  refuse,  ///< EBUSY
  detach,  ///< it vanishes from its directory now, and ends with its last user
};

namespace detail {

/// Puts a backslash before what would end the value in a list of options.
[[nodiscard]] inline std::string escape_mount_option(std::string_view value) {
  std::string text;
  for (auto const c : value) {
    if (c == ',' || c == '\\') text += '\\';
    text += c;
  }
  return text;
}

[[nodiscard]] inline bool for_everyone(FuseAccess access) noexcept {
  return access == FuseAccess::everyone || (access == FuseAccess::automatic && may_mount());
}

/// MS_ flags as fusermount3's words.
[[nodiscard]] inline std::string fuse_helper_options(FuseMountOptions const& options) {
  std::string text = "fsname=" + escape_mount_option(options.source) +
                     ",subtype=" + escape_mount_option(options.subtype);
  constexpr std::array<std::pair<unsigned long, std::string_view>, 5> words{
      {{MS_RDONLY, ",ro"},
       {MS_NOEXEC, ",noexec"},
       {MS_NOATIME, ",noatime"},
       {MS_NOSUID, ",nosuid"},
       {MS_NODEV, ",nodev"}}};
  for (auto const& [flag, word] : words) {
    if ((options.flags & flag) != 0) text += word;
  }
  if (for_everyone(options.access)) text += ",allow_other,default_permissions";
  return text;
}

/// A running program: its standard error is read by us.
struct HelperProcess {
  pid_t id = -1;
  UniqueFd errors;

  /// Waits for its end; yields what it said, without the newline at the end.
  /// @error{std::errc::io_error, it ended with a status that is not 0; the text is what it said}
  [[nodiscard]] Result<void> wait(std::string const& what) const {
    Bytes said(4096);
    auto const n = read_full(errors.get(), said);
    auto text = std::string(as_text(std::span(said).first(n.value_or(0))));
    while (!text.empty() && text.back() == '\n') text.pop_back();
    int status = 0;
    pid_t done = -1;
    do {
      done = ::waitpid(id, &status, 0);
    } while (done < 0 && errno == EINTR);
    if (done == id && WIFEXITED(status) && WEXITSTATUS(status) == 0) return {};
    if (done < 0) return fail_errno(errno, what);  // somebody else waits for all children
    return fail(make_error_code(std::errc::io_error), text.empty() ? what : what + ": " + text);
  }
};

/// Runs a program of PATH. It has one descriptor of ours, `kept`, as number 3 and in _FUSE_COMMFD.
[[nodiscard]] inline Result<HelperProcess> start_helper(std::vector<std::string> words, int kept) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return fail_errno(errno, "pipe");
  HelperProcess helper{-1, UniqueFd(ends[0])};
  UniqueFd const theirs(ends[1]);

  std::vector<char*> arguments;
  for (auto& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  std::string channel = "_FUSE_COMMFD=3";
  std::vector<char*> environment;
  for (auto** variable = environ; *variable != nullptr; ++variable) {
    if (std::string_view(*variable).starts_with("_FUSE_COMMFD=")) continue;
    environment.push_back(*variable);
  }
  environment.push_back(channel.data());
  environment.push_back(nullptr);

  posix_spawn_file_actions_t actions;
  if (auto const error = ::posix_spawn_file_actions_init(&actions)) {
    return fail_errno(error, words.front());
  }
  ::posix_spawn_file_actions_adddup2(&actions, theirs.get(), STDERR_FILENO);
  if (kept >= 0) ::posix_spawn_file_actions_adddup2(&actions, kept, 3);
  auto const error = ::posix_spawnp(&helper.id, words.front().c_str(), &actions, nullptr,
                                    arguments.data(), environment.data());
  ::posix_spawn_file_actions_destroy(&actions);
  if (error != 0) return fail_errno(error, words.front());
  return helper;
}

/// The descriptor that a peer sends with one byte; none if it hangs up first.
[[nodiscard]] inline UniqueFd receive_descriptor(int socket) {
  char byte = 0;
  iovec part{&byte, 1};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  ssize_t n = 0;
  do {
    n = ::recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
  } while (n < 0 && errno == EINTR);
  auto const* const header = n > 0 ? CMSG_FIRSTHDR(&message) : nullptr;
  if (header == nullptr || header->cmsg_type != SCM_RIGHTS) return UniqueFd();
  int fd = -1;
  std::memcpy(&fd, CMSG_DATA(header), sizeof fd);
  return UniqueFd(fd);
}

[[nodiscard]] inline Result<FuseConnection> mount_fuse_by_helper(std::string const& directory,
                                                                 FuseMountOptions const& options) {
  auto const what = options.helper + " " + directory;
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
    return fail_errno(errno, "socketpair");
  }
  UniqueFd const ours(ends[0]);
  UniqueFd theirs(ends[1]);
  auto const helper = start_helper(
      {options.helper, "-o", fuse_helper_options(options), "--", directory}, theirs.get());
  if (!helper) {
    if (helper.error().code == std::errc::no_such_file_or_directory) {
      return fail(Errc::unsupported,
                  what + ": there is no such program (Debian has it in package fuse3)");
    }
    return fail(helper.error(), what);
  }
  theirs.reset();
  auto device = receive_descriptor(ours.get());
  if (auto const ok = helper->wait(what); !ok) return fail(ok.error());
  if (!device) return fail(Errc::protocol, what + ": it gave no descriptor");
  return FuseConnection{std::move(device)};
}

[[nodiscard]] inline Result<FuseConnection> mount_fuse_directly(std::string const& directory,
                                                                FuseMountOptions const& options) {
  UniqueFd device(::open("/dev/fuse", O_RDWR | O_CLOEXEC));
  if (!device) {
    auto const absent = errno == ENOENT || errno == ENODEV;
    return fail_errno(errno, absent ? "/dev/fuse (load it: modprobe fuse; containers need it given)"
                                    : "/dev/fuse");
  }
  auto data = "fd=" + std::to_string(device.get()) +
              ",rootmode=40000,user_id=" + std::to_string(::geteuid()) +
              ",group_id=" + std::to_string(::getegid());
  if (for_everyone(options.access)) data += ",allow_other,default_permissions";
  auto const type = options.subtype.empty() ? "fuse" : "fuse." + options.subtype;
  if (::mount(options.source.c_str(), directory.c_str(), type.c_str(), options.flags,
              data.c_str()) != 0) {
    return fail_errno(errno, "mount fuse at " + directory);
  }
  return FuseConnection{std::move(device)};
}

}  // namespace detail

/// Mounts a new /dev/fuse at a directory; somebody has to serve it from then on.
///
/// With mount(2) if this process may, else with fusermount3, which needs a directory that the user
/// may write to.
/// @error{std::errc::not_a_directory, `directory` is none}
/// @error{Errc::unsupported, there is no fusermount3}
/// @error{std::errc::io_error, fusermount3 refuses; the text is its own}
/// @error{an errno, as open(2) of /dev/fuse and mount(2)}
[[nodiscard]] inline Result<FuseConnection> mount_fuse(std::string const& directory,
                                                       FuseMountOptions const& options = {}) {
  struct stat status{};
  if (::stat(directory.c_str(), &status) != 0) return fail_errno(errno, directory);
  if (!S_ISDIR(status.st_mode)) return fail_errno(ENOTDIR, directory);
  return may_mount() ? detail::mount_fuse_directly(directory, options)
                     : detail::mount_fuse_by_helper(directory, options);
}

/// Unmounts what is mounted at a directory, with umount(2) or fusermount3 -u.
/// @error{std::errc::device_or_resource_busy, it is in use; only by umount(2)}
/// @error{std::errc::io_error, fusermount3 refuses; the text is its own}
/// @error{an errno, as umount(2)}
[[nodiscard]] inline Result<void> unmount_fuse(std::string const& directory, UnmountBusy busy,
                                               FuseMountOptions const& options = {}) {
  if (may_mount()) {
    auto const flags = UMOUNT_NOFOLLOW | (busy == UnmountBusy::detach ? MNT_DETACH : 0);
    if (::umount2(directory.c_str(), flags) != 0) return fail_errno(errno, "unmount " + directory);
    return {};
  }
  auto const what = options.helper + " -u " + directory;
  std::vector<std::string> words{options.helper, "-u", "-q", "--", directory};
  if (busy == UnmountBusy::detach) words.insert(words.begin() + 2, "-z");
  auto const helper = detail::start_helper(std::move(words), -1);
  if (!helper) return fail(helper.error(), what);
  return helper->wait(what);
}

/// How far the kernel reads ahead on a mounted FUSE file system, in KiB; its default is 128. Asks
/// for attributes of `directory`, so somebody must serve it.
/// @error{an errno, as stat(2)\, open(2) and write(2): only root may}
[[nodiscard]] inline Result<void> set_fuse_read_ahead(std::string const& directory,
                                                      std::uint32_t kib) {
  struct stat status{};
  if (::stat(directory.c_str(), &status) != 0) return fail_errno(errno, directory);
  return write_text_file("/sys/class/bdi/" + std::to_string(major(status.st_dev)) + ':' +
                             std::to_string(minor(status.st_dev)) + "/read_ahead_kb",
                         std::to_string(kib));
}

}  // namespace erofs_oci
