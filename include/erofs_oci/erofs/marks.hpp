// SPDX-License-Identifier: Apache-2.0
/// @file
/// The marks of overlayfs as an image holds them, and how they differ from equal files. No I/O.
#pragma once

#include <string_view>
#include <vector>

#include <erofs_oci/erofs/tree.hpp>
#include <erofs_oci/erofs/write_options.hpp>

namespace erofs_oci::erofs {

/// Under `internal_prefix`: this device 0:0 is a device, not a whiteout. Its value is empty.
inline constexpr std::string_view own_device_mark = "erofs_oci.own.device";

/// An xattr with which overlayfs marks a directory. A directory may also have an xattr of that name
/// as its own, from an archive of overlayfs's directories; then it has an entry under
/// `internal_prefix`, too, which the kernel does not show.
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

/// Marks a directory that may have whiteouts. @param marks  not Marks::drop
[[nodiscard]] constexpr DirectoryMark origin_mark(Marks marks) noexcept {
  auto const user = marks == Marks::user;
  return {user ? "user.overlay.origin" : "trusted.overlay.origin", "", "erofs_oci.own.origin",
          "erofs_oci.both.origin"};
}

/// Whether overlayfs treats a device as a whiteout.
[[nodiscard]] bool looks_like_whiteout(Node const& node) noexcept;

namespace detail {

/// Turns the marks of overlayfs in a node, as an image has it, into Kind::whiteout and
/// Directory::opaque.
/// @param hidden  its entries under `internal_prefix`
void take_marks(Node& node, std::vector<Xattr> const& hidden, Marks marks);

}  // namespace detail

}  // namespace erofs_oci::erofs

#ifndef EROFS_OCI_COMPILED
#include <erofs_oci/erofs/detail/marks_body.hpp>
#endif
