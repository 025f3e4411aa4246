// SPDX-License-Identifier: Apache-2.0
/// @file
/// choose_mount(): decides how to mount an image on a host, and gives the reasons.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <erofs_oci/core/result.hpp>
#include <erofs_oci/host/host_support.hpp>
#include <erofs_oci/host/kernel_version.hpp>

namespace erofs_oci {

/// A way to a mounted image, in the order of preference.
enum class MountWay : std::uint8_t {
  netlink,    ///< the kernel's EROFS on an NBD device, which outlives supervisor and worker
  ioctl,      ///< the same, set up by ioctl(2): the device ends with its supervisor
  fuse_file,  ///< the kernel's EROFS on a file that FUSE serves
  fuse_tree,  ///< files by FUSE, EROFS read by ourselves
};

inline constexpr std::array<MountWay, 4> all_mount_ways{MountWay::netlink, MountWay::ioctl,
                                                        MountWay::fuse_file, MountWay::fuse_tree};

/// Whether the way is an NBD device of the kernel; else it is FUSE.
[[nodiscard]] constexpr bool is_nbd(MountWay way) noexcept {
  return way == MountWay::netlink || way == MountWay::ioctl;
}

/// "netlink", "ioctl", "fuse-file", "fuse-tree".
[[nodiscard]] constexpr std::string_view name_of(MountWay way) noexcept {
  constexpr std::array<std::string_view, 4> names{"netlink", "ioctl", "fuse-file", "fuse-tree"};
  return names[static_cast<std::size_t>(way)];
}

/// The inverse; empty for any other text.
[[nodiscard]] constexpr std::optional<MountWay> parse_mount_way(std::string_view name) noexcept {
  auto const way = std::ranges::find(all_mount_ways, name, name_of);
  if (way == all_mount_ways.end()) return std::nullopt;
  return *way;
}

/// What an image needs of the kernel's EROFS.
struct ImageNeeds {
  std::uint32_t block_size = 512;  ///< bytes
  bool flat = true;                ///< devices' data lies behind the image, on one device
};

/// Whether one way is possible.
struct MountVerdict {
  MountWay way{};
  bool possible = false;
  std::string reason;  ///< for or against: "no nbd in this kernel"
};

/// What choose_mount() found.
struct MountChoice {
  std::optional<MountWay> way;  ///< empty: none is possible, or not the one that was asked for
  std::vector<MountVerdict> verdicts;  ///< one for each way, in the order of preference
  bool asked_for = false;              ///< the user named the way

  /// The verdict on one way.
  [[nodiscard]] MountVerdict const& verdict(MountWay which) const noexcept {
    return verdicts[static_cast<std::size_t>(which)];
  }

  /// One line: "fuse-file: EROFS on a file that FUSE serves".
  [[nodiscard]] std::string summary() const {
    if (!way) return "no way to mount";
    return std::string(name_of(*way)) + (asked_for ? ", as asked for: " : ": ") +
           verdict(*way).reason;
  }

  /// One line for each preferred way that is not possible: "not netlink: no nbd in this kernel".
  [[nodiscard]] std::vector<std::string> passed_over() const {
    std::vector<std::string> lines;
    for (auto const& one : verdicts) {
      if (one.way == way) break;
      if (!one.possible && !one.reason.empty())
        lines.push_back("not " + std::string(name_of(one.way)) + ": " + one.reason);
    }
    return lines;
  }

  /// The way, or an error with the reasons.
  /// @error{Errc::unsupported, no way is possible\, or not the one that was asked for; the text has
  /// the reasons}
  [[nodiscard]] Result<MountWay> result() const {
    if (way) return *way;
    std::string text;
    for (auto const& one : verdicts) {
      if (one.possible || one.reason.empty()) continue;
      text += (text.empty() ? "" : "; ") + std::string(name_of(one.way)) + ": " + one.reason;
    }
    return fail(explain(Errc::unsupported, "cannot mount here: " + text));
  }
};

namespace detail {

/// Why the kernel's EROFS cannot mount the image; empty if it can.
[[nodiscard]] inline std::string erofs_problem(HostSupport const& host, ImageNeeds const& image) {
  if (host.erofs == Presence::absent) return "no EROFS in this kernel";
  auto const small = image.block_size < 4096;
  auto const since = small || image.flat ? small_blocks_since : device_table_since;
  if (host.kernel < since) {
    return "EROFS of Linux " + host.kernel.text() + " cannot read " +
           (small ? "blocks of " + std::to_string(image.block_size) + " bytes" : "such an image") +
           ", it needs " + since.text();
  }
  if (!host.may_mount) return "mounting EROFS needs root (CAP_SYS_ADMIN)";
  if (!host.first_user_namespace) return "mounting EROFS needs root outside of this user namespace";
  return {};
}

/// Why /dev/fuse cannot be mounted; empty if it can.
[[nodiscard]] inline std::string fuse_problem(HostSupport const& host) {
  if (host.fuse == Presence::absent) return "no FUSE in this kernel";
  auto const will_load = host.may_mount && host.fuse == Presence::loadable;
  if (!host.fuse_device && !will_load) {
    return "/dev/fuse cannot be opened" +
           (host.fuse_errno == 0 ? "" : ": " + std::system_category().message(host.fuse_errno));
  }
  if (host.may_mount || host.fusermount) return {};
  return "no fusermount3 (Debian has it in package fuse3), and not root";
}

[[nodiscard]] inline MountVerdict judge_nbd(MountWay way, HostSupport const& host,
                                            ImageNeeds const& image) {
  if (host.nbd == Presence::absent) return {way, false, "no nbd in this kernel"};
  if (auto why = erofs_problem(host, image); !why.empty()) return {way, false, std::move(why)};
  std::string const loaded = host.nbd == Presence::present ? "nbd is there" : "nbd can be loaded";
  if (way == MountWay::ioctl) return {way, true, loaded};
  if (host.nbd == Presence::present && !host.nbd_netlink) {
    return {way, false, "nbd's netlink family cannot be seen from this network namespace"};
  }
  return {way, true, loaded + ", with netlink"};
}

[[nodiscard]] inline MountVerdict judge_fuse_file(HostSupport const& host,
                                                  ImageNeeds const& image) {
  constexpr auto way = MountWay::fuse_file;
  if (auto why = erofs_problem(host, image); !why.empty()) return {way, false, std::move(why)};
  if (auto why = fuse_problem(host); !why.empty()) return {way, false, std::move(why)};
  if (file_backed_is_safe(host.kernel)) return {way, true, "EROFS on a file that FUSE serves"};
  if (host.loop == Presence::absent) {
    return {way, false,
            "EROFS of Linux " + host.kernel.text() + " needs a loop device, and there are none"};
  }
  return {way, true, "EROFS on a loop device over a file that FUSE serves"};
}

[[nodiscard]] inline MountVerdict judge_fuse_tree(HostSupport const& host) {
  constexpr auto way = MountWay::fuse_tree;
  if (auto why = fuse_problem(host); !why.empty()) return {way, false, std::move(why)};
  return {way, true, host.may_mount ? "files by FUSE" : "files by FUSE, for this user alone"};
}

}  // namespace detail

/// Decides by which way to mount. Pure: the same host and wishes give the same choice.
/// @param allowed  the ways that the user leaves open; one is one that was asked for
[[nodiscard]] inline MountChoice choose_among(std::span<MountWay const> allowed,
                                              HostSupport const& host,
                                              ImageNeeds const& image = {}) {
  MountChoice choice;
  choice.asked_for = allowed.size() == 1;
  choice.verdicts = {detail::judge_nbd(MountWay::netlink, host, image),
                     detail::judge_nbd(MountWay::ioctl, host, image),
                     detail::judge_fuse_file(host, image), detail::judge_fuse_tree(host)};
  for (auto& verdict : choice.verdicts) {
    auto const open = std::ranges::find(allowed, verdict.way) != allowed.end();
    if (!open) {  // the user did not allow this way, so it needs no reason
      verdict.possible = false;
      verdict.reason.clear();
    }
    if (verdict.possible && !choice.way) choice.way = verdict.way;
  }
  return choice;
}

/// The same for one way or any.
/// @param wanted  the way that the user names; empty: the first that is open
[[nodiscard]] inline MountChoice choose_mount(HostSupport const& host,
                                              std::optional<MountWay> wanted = {},
                                              ImageNeeds const& image = {}) {
  if (wanted) return choose_among(std::span(&*wanted, 1), host, image);
  return choose_among(all_mount_ways, host, image);
}

}  // namespace erofs_oci
