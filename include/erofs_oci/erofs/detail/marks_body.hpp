// SPDX-License-Identifier: Apache-2.0
/// @file
/// What erofs/marks.hpp only declares.
#pragma once

#include <algorithm>
#include <map>
#include <span>
#include <string_view>
#include <vector>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/config.hpp>
#include <erofs_oci/erofs/marks.hpp>
#include <erofs_oci/erofs/tree.hpp>
#include <erofs_oci/erofs/write_options.hpp>
#include <erofs_oci/erofs/xattr.hpp>

namespace erofs_oci::erofs {

EROFS_OCI_BODY bool looks_like_whiteout(Node const& node) noexcept {
  auto const* const device = node.device();
  return node.kind == Kind::char_device && device != nullptr && *device == DeviceNumber{};
}

namespace detail {

/// Sets or omits a directory's mark among its xattrs; adds the internal entries that it needs to
/// `hidden`.
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

EROFS_OCI_BODY void take_marks(Node& node, std::vector<Xattr> const& hidden, Marks marks) {
  if (marks == Marks::drop) return;
  if (looks_like_whiteout(node) &&
      std::ranges::find(hidden, own_device_mark, &Xattr::name) == hidden.end()) {
    node.kind = Kind::whiteout;
    node.content = {};
  }
  auto* const directory = node.directory();
  if (directory == nullptr) return;
  directory->opaque = take_mark(opaque_mark(marks), node.xattrs, hidden);
  // The whiteouts say the same.
  static_cast<void>(take_mark(origin_mark(marks), node.xattrs, hidden));
}

}  // namespace detail
}  // namespace erofs_oci::erofs
