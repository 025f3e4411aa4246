// SPDX-License-Identifier: Apache-2.0
/// @file
/// What fuse/mount.hpp only declares.
#pragma once

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <erofs_oci/core/config.hpp>
#include <erofs_oci/core/fd.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/fuse/mount.hpp>
#include <erofs_oci/host/mount_point.hpp>
#include <erofs_oci/host/privilege.hpp>
#include <erofs_oci/host/unmount.hpp>
#include <erofs_oci/posix/descriptor.hpp>
#include <erofs_oci/posix/program.hpp>
#include <erofs_oci/posix/text_file.hpp>

namespace erofs_oci {
namespace detail {

EROFS_OCI_BODY bool for_everyone(FuseAccess access) noexcept {
  return access == FuseAccess::everyone || (access == FuseAccess::automatic && may_mount());
}

EROFS_OCI_BODY std::string fuse_helper_options(FuseMountOptions const& options) {
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

EROFS_OCI_BODY Result<FuseConnection> mount_fuse_by_helper(std::string const& directory,
                                                           FuseMountOptions const& options) {
  auto const what = options.helper + " " + directory;
  EROFS_OCI_TRY_ASSIGN(auto ends, socket_pair());
  auto& [ours, theirs] = ends;
  auto helper = ReportingProgram::start(
      {options.helper, "-o", fuse_helper_options(options), "--", directory},
      {.descriptors = {{theirs.get(), 3}}, .variables = {"_FUSE_COMMFD=3"}});
  if (!helper && helper.error().code == std::errc::no_such_file_or_directory) {
    return fail(Errc::unsupported,
                what + ": there is no such program (Debian has it in package fuse3)");
  }
  if (!helper) return fail(helper.error(), what);
  theirs.reset();
  auto device = receive_descriptor(ours.get());
  EROFS_OCI_TRY(helper->wait(what));
  if (!device) return fail(Errc::protocol, what + ": it gave no descriptor");
  return FuseConnection{std::move(device)};
}

[[nodiscard]] inline Result<FuseConnection> mount_fuse_directly(MountPoint const& place,
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
  if (::mount(options.source.c_str(), place.place().c_str(), type.c_str(), options.flags,
              data.c_str()) != 0) {
    return fail_errno(errno, "mount fuse at " + place.path());
  }
  return FuseConnection{std::move(device)};
}

}  // namespace detail

EROFS_OCI_BODY Result<FuseConnection> mount_fuse(std::string const& directory,
                                                 FuseMountOptions const& options) {
  EROFS_OCI_TRY_ASSIGN(auto const place, MountPoint::open(directory));
  return may_mount() ? detail::mount_fuse_directly(place, options)
                     : detail::mount_fuse_by_helper(directory, options);
}

EROFS_OCI_BODY Result<void> set_fuse_read_ahead(std::string const& directory, std::uint32_t kib) {
  struct stat status{};
  if (::stat(directory.c_str(), &status) != 0) return fail_errno(errno, directory);
  return write_text_file("/sys/class/bdi/" + std::to_string(major(status.st_dev)) + ':' +
                             std::to_string(minor(status.st_dev)) + "/read_ahead_kb",
                         std::to_string(kib));
}

}  // namespace erofs_oci
