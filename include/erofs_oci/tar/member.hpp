// SPDX-License-Identifier: Apache-2.0
/// @file
/// Makes an Entry from a header and the extended headers before it. No I/O.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include <erofs_oci/core/result.hpp>
#include <erofs_oci/tar/entry.hpp>
#include <erofs_oci/tar/header.hpp>
#include <erofs_oci/tar/pax.hpp>
#include <erofs_oci/tar/sparse.hpp>

namespace erofs_oci::tar {

/// The extended headers before a member's own header.
struct Extensions {
  Pax local;                             ///< `x`
  Pax global;                            ///< all `g` so far
  std::optional<std::string> long_name;  ///< `L`
  std::optional<std::string> long_link;  ///< `K`
};

/// A member whose header is complete.
struct Member {
  Entry entry;                       ///< extents are still missing
  std::uint64_t packed = 0;          ///< bytes of data in the archive, without padding
  std::string left_out;              ///< why it is to be passed over; empty: it is not
  bool old_map = false;              ///< `S`: a sparse map in header blocks
  std::optional<SparseRecords> map;  ///< PAX sparse

  /// For messages.
  [[nodiscard]] std::string describe() const {
    return "member " + printable(entry.path) + " at offset " + std::to_string(entry.header_offset);
  }
};

/// Applies the extended headers to a header. PAX local overrides PAX global, that overrides GNU
/// long names, and these the header; an empty PAX value cancels the global one and leaves the
/// header's.
///
/// Links, directories, devices and FIFOs have no data, whatever their size field says: some
/// archivers leave the size of a directory or of a link's target there.
///
/// A member that no file system could hold is left out; its data can be passed over all the same.
/// @error{Errc::corrupt, its data would end past 2^63 - 1}
/// @error{Errc::unsupported, an old sparse map in a header that is not GNU's}
[[nodiscard]] Result<Member> assemble(Header const& header, Extensions const& before,
                                      std::uint64_t offset);

}  // namespace erofs_oci::tar

#ifndef EROFS_OCI_COMPILED
#include <erofs_oci/tar/detail/member_body.hpp>
#endif
