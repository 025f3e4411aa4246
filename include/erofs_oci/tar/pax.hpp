// SPDX-License-Identifier: Apache-2.0
/// @file
/// Pax: the records of an extended header, local or global. No I/O.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/tar/entry.hpp>
#include <erofs_oci/tar/sparse.hpp>

namespace erofs_oci::tar {

/// Most bytes of one extended header, long name or long link. Go's archive/tar, which makes and
/// reads nearly all OCI layers, has the same limit.
inline constexpr std::uint64_t max_extension_size = 1024 * 1024;

/// A value that a record set, or cancelled by an empty value.
template <class T>
struct PaxField {
  bool present = false;    ///< there was a record
  std::optional<T> value;  ///< empty after `key=`

  friend bool operator==(PaxField const&, PaxField const&) = default;
};

/// The records of one extended header that we use. Unknown keys are ignored, as POSIX wants.
struct Pax {
  PaxField<std::string> path;
  PaxField<std::string> linkpath;
  PaxField<std::uint64_t> size;
  PaxField<std::uint64_t> uid;
  PaxField<std::uint64_t> gid;
  PaxField<Time> mtime;
  std::vector<Xattr> xattrs;            ///< from SCHILY.xattr and LIBARCHIVE.xattr, unique names
  std::optional<SparseRecords> sparse;  ///< from GNU.sparse

  friend bool operator==(Pax const&, Pax const&) = default;
};

/// A PAX time: sign, seconds, fraction of any length. Rounds down to nanoseconds: -1.25 is second
/// -2 and 750000000 ns.
[[nodiscard]] std::optional<Time> pax_time(std::string_view text) noexcept;

namespace detail {

/// Base64 with or without its `=`.
[[nodiscard]] std::optional<Bytes> base64_decoded(std::string_view text);

}  // namespace detail

/// Parses the data of an `x` or `g` member: records `LENGTH KEY=VALUE\n`, LENGTH counting itself.
/// @error{Errc::corrupt, a record is malformed\, a number is none\, or a name holds a NUL}
[[nodiscard]] Result<Pax> parse_pax(std::string_view text);

/// Lays the records of a further global header over those of the earlier ones.
void merge_global(Pax& all, Pax later);

}  // namespace erofs_oci::tar

#ifndef EROFS_OCI_COMPILED
#include <erofs_oci/tar/detail/pax_body.hpp>
#endif
