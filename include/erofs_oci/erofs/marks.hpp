// SPDX-License-Identifier: Apache-2.0
/// @file
/// The marks of overlayfs as an image holds them, told apart from files that only look so. No I/O.
#pragma once

#include <algorithm>
#include <map>
#include <span>
#include <string_view>
#include <vector>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/erofs/tree.hpp>
#include <erofs_oci/erofs/write_options.hpp>
#include <erofs_oci/erofs/xattr.hpp>

namespace erofs_oci::erofs {

/// Under `internal_prefix`: this device 0:0 is a device, not a whiteout. Its value is empty.
inline constexpr std::string_view own_device_mark = "erofs_oci.own.device";

/// An xattr by which overlayfs knows something of a directory. A file may have one of that name as
/// its own, from an archive of overlayfs's directories: then an entry under `internal_prefix`,
/// which the kernel does not show, says so.
/// @spec{tarindex image format, Overlay marks}
struct DirectoryMark {
  std::string_view name;
  std::string_view value;  ///< with any other it is no mark
  std::string_view own;    ///< internal: name and value are the directory's own, no mark
  std::string_view
      both;  ///< internal: it is a mark, and the directory has an own one of this value
};

/// Hides what lower layers have. @param marks  not Marks::drop
[[nodiscard]] constexpr DirectoryMark opaque_mark(Marks marks) noexcept {
  auto const user = marks == Marks::user;
  return {user ? "user.overlay.opaque" : "trusted.overlay.opaque", "y", "erofs_oci.own.opaque",
          "erofs_oci.both.opaque"};
}

/// Says that there may be whiteouts. @param marks  not Marks::drop
[[nodiscard]] constexpr DirectoryMark origin_mark(Marks marks) noexcept {
  auto const user = marks == Marks::user;
  return {user ? "user.overlay.origin" : "trusted.overlay.origin", "", "erofs_oci.own.origin",
          "erofs_oci.both.origin"};
}

/// Whether overlayfs takes a device for a whiteout.
[[nodiscard]] inline bool looks_like_whiteout(Node const& node) noexcept {
  auto const* const device = node.device();
  return node.kind == Kind::char_device && device != nullptr && *device == DeviceNumber{};
}

namespace detail {

/// Sets a directory's mark, or not, among its xattrs; `hidden` takes what has to be said of it.
inline void put_mark(DirectoryMark const& mark, bool marked,
                     std::map<std::string_view, std::span<std::byte const>>& xattrs,
                     std::vector<XattrView>& hidden) {
  auto const own = xattrs.find(mark.name);
  if (own != xattrs.end() && marked) {
    hidden.push_back({internal_prefix, mark.both, own->second});
  } else if (own != xattrs.end() && as_text(own->second) == mark.value) {
    hidden.push_back({internal_prefix, mark.own, {}});
  }
  if (marked) xattrs[mark.name] = as_bytes(mark.value);
}

/// The inverse: whether there is the mark, which is taken out.
[[nodiscard]] inline bool take_mark(DirectoryMark const& mark, std::vector<Xattr>& xattrs,
                                    std::vector<Xattr> const& hidden) {
  auto const at = std::ranges::find(xattrs, mark.name, &Xattr::name);
  if (at == xattrs.end() || as_text(at->value) != mark.value) return false;
  if (std::ranges::find(hidden, mark.own, &Xattr::name) != hidden.end()) return false;
  auto const own = std::ranges::find(hidden, mark.both, &Xattr::name);
  if (own == hidden.end()) {
    xattrs.erase(at);
  } else {
    at->value = own->value;
  }
  return true;
}

/// Turns the marks of overlayfs in a node, as an image has it, into Kind::whiteout and
/// Directory::opaque.
/// @param hidden  its entries under `internal_prefix`
inline void take_marks(Node& node, std::vector<Xattr> const& hidden, Marks marks) {
  if (marks == Marks::drop) return;
  if (looks_like_whiteout(node) &&
      std::ranges::find(hidden, own_device_mark, &Xattr::name) == hidden.end()) {
    node.kind = Kind::whiteout;
    node.content = {};
  }
  auto* const directory = node.directory();
  if (directory == nullptr) return;
  directory->opaque = take_mark(opaque_mark(marks), node.xattrs, hidden);
  // Says nothing that the whiteouts do not say.
  static_cast<void>(take_mark(origin_mark(marks), node.xattrs, hidden));
}

}  // namespace detail

}  // namespace erofs_oci::erofs
