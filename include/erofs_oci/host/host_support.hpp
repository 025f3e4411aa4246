// SPDX-License-Identifier: Apache-2.0
/// @file
/// HostSupport: what this kernel and this process offer for mounting an image.
#pragma once

#include <array>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <span>
#include <sstream>
#include <string>
#include <string_view>

#include <fcntl.h>
#include <linux/genetlink.h>
#include <linux/netlink.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <erofs_oci/core/fd.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/host/kernel_version.hpp>
#include <erofs_oci/host/privilege.hpp>
#include <erofs_oci/posix/text_file.hpp>

namespace erofs_oci {

/// Whether the kernel has something that may be a module.
enum class Presence : std::uint8_t {
  absent,
  loadable,  ///< a module that is there and not loaded, and this process may load it
  present,
};

/// What can be known without trying anything. A plain value: choose_mount() decides by it.
struct HostSupport {
  KernelVersion kernel{};
  Presence nbd = Presence::absent;
  bool nbd_netlink = false;  ///< the netlink family can be seen from here; only of a present nbd
  Presence erofs = Presence::absent;
  Presence loop = Presence::absent;
  Presence verity = Presence::absent;  ///< dm-verity
  Presence fuse = Presence::absent;
  bool fuse_device = false;          ///< this process may open /dev/fuse for reading and writing
  int fuse_errno = 0;                ///< why it may not, if that is known
  bool fusermount = false;           ///< fusermount3 is in PATH
  bool may_mount = false;            ///< CAP_SYS_ADMIN, in whatever user namespace
  bool first_user_namespace = true;  ///< the one in which block devices can be mounted
};

/// Whether a program can be run from one of several directories.
/// @param path  the directories with colons between, as in PATH; null: /usr/bin and /bin
[[nodiscard]] inline bool in_path(std::string const& program, char const* path) {
  std::istringstream folders(path != nullptr ? path : "/usr/bin:/bin");
  for (std::string folder; std::getline(folders, folder, ':');) {
    auto const file = (folder.empty() ? "." : folder) + '/' + program;
    if (::access(file.c_str(), X_OK) == 0) return true;
  }
  return false;
}

namespace detail {

/// Whether /proc/filesystems names a type.
[[nodiscard]] inline bool names_file_system(std::string_view text, std::string_view type) {
  return text.find('\t' + std::string(type) + '\n') != text.npos;  // behind "nodev" or nothing
}

/// Whether modules.dep or modules.builtin names a module, packed or not.
[[nodiscard]] inline bool names_module(std::string_view text, std::string_view module) {
  auto const wanted = '/' + std::string(module) + ".ko";
  for (std::size_t at = text.find(wanted); at != text.npos; at = text.find(wanted, at + 1)) {
    // Only a line's own module counts, not its dependencies.
    auto const line = text.rfind('\n', at) == text.npos ? 0 : text.rfind('\n', at) + 1;
    if (text.substr(line, at - line).find(':') != std::string_view::npos) continue;
    auto const next = at + wanted.size() < text.size() ? text[at + wanted.size()] : '\n';
    if (next == ':' || next == '.' || next == '\n') return true;
  }
  return false;
}

/// Whether the kernel has a generic netlink family. Asking makes the kernel load at most what it
/// loads by itself.
[[nodiscard]] inline bool has_netlink_family(std::string_view name) {
  UniqueFd const socket(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_GENERIC));
  if (!socket || name.size() >= GENL_NAMSIZ) return false;
  timeval const deadline{2, 0};
  ::setsockopt(socket.get(), SOL_SOCKET, SO_RCVTIMEO, &deadline, sizeof deadline);

  struct Question {
    nlmsghdr header;
    genlmsghdr command;
    nlattr attribute;
    std::array<char, GENL_NAMSIZ> name;
  } question{};
  std::memcpy(question.name.data(), name.data(), name.size());
  question.header.nlmsg_len = sizeof question;
  question.header.nlmsg_type = GENL_ID_CTRL;
  question.header.nlmsg_flags = NLM_F_REQUEST;
  question.command.cmd = CTRL_CMD_GETFAMILY;
  question.command.version = 1;
  question.attribute.nla_type = CTRL_ATTR_FAMILY_NAME;
  question.attribute.nla_len =
      static_cast<std::uint16_t>(sizeof(nlattr) + name.size() + 1);  // the rest is padding
  if (::send(socket.get(), &question, sizeof question, 0) != sizeof question) return false;
  alignas(nlmsghdr) std::array<std::byte, 8192> answer{};
  auto const n = ::recv(socket.get(), answer.data(), answer.size(), 0);
  if (n < static_cast<ssize_t>(sizeof(nlmsghdr))) return false;
  nlmsghdr header{};
  std::memcpy(&header, answer.data(), sizeof header);
  return header.nlmsg_type == GENL_ID_CTRL;
}

/// Probes one part of the kernel.
class ModuleProbe {
 public:
  ModuleProbe() : may_load_(has_capability(CAP_SYS_MODULE)) {
    utsname names{};
    if (::uname(&names) != 0) return;
    auto const folder = std::string("/lib/modules/") + names.release;
    builtin_ = read_text_file(folder + "/modules.builtin").value_or("");
    loadable_ = read_text_file(folder + "/modules.dep").value_or("");
  }

  [[nodiscard]] Presence of(std::string const& module, bool seen) const {
    if (seen || names_module(builtin_, module)) return Presence::present;
    if (::access(("/sys/module/" + module).c_str(), F_OK) == 0) return Presence::present;
    return may_load_ && names_module(loadable_, module) ? Presence::loadable : Presence::absent;
  }

 private:
  bool may_load_;
  std::string builtin_;
  std::string loadable_;
};

}  // namespace detail

/// Probes the running kernel and this process; changes nothing and loads nothing.
[[nodiscard]] inline HostSupport probe_host() {
  HostSupport host;
  auto const types = read_text_file("/proc/filesystems").value_or("");
  detail::ModuleProbe const modules;
  host.kernel = running_kernel();
  host.nbd = modules.of("nbd", false);
  host.nbd_netlink = host.nbd == Presence::present && detail::has_netlink_family("nbd");
  host.erofs = modules.of("erofs", detail::names_file_system(types, "erofs"));
  host.loop = modules.of("loop", ::access("/dev/loop-control", F_OK) == 0);
  host.verity = modules.of("dm-verity", ::access("/sys/module/dm_verity", F_OK) == 0);
  host.fuse = modules.of("fuse", detail::names_file_system(types, "fuse"));
  // Opening /dev/fuse where it is a module would load it.
  host.fuse_device = ::access("/dev/fuse", R_OK | W_OK) == 0;
  host.fuse_errno = host.fuse_device ? 0 : errno;
  host.fusermount = in_path("fusermount3", std::getenv("PATH"));
  host.may_mount = may_mount();
  host.first_user_namespace = in_first_user_namespace();
  return host;
}

}  // namespace erofs_oci
