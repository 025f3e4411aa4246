// SPDX-License-Identifier: Apache-2.0
/// @file
/// for_each_entry: the members of an archive in a source, without reading their data.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/core/source.hpp>
#include <erofs_oci/tar/decoder.hpp>

namespace erofs_oci::tar {

/// Calls `visit` with each member of the archive `source`, in order. Reads 64 KiB at a time and
/// skips data. Yields the reports.
///
/// For an archive that can only be read front to back, use Decoder.
/// @error{Errc::truncated, the archive ends inside a member or a header}
/// @error{Errc::corrupt, see Decoder}
/// @error{Errc::unsupported, see Decoder}
[[nodiscard]] Result<Reports> for_each_entry(RandomAccessSource auto const& source,
                                             Decoder::Visit visit) {
  constexpr std::uint64_t piece = 64 * 1024;
  Decoder decoder;
  Bytes buffer(static_cast<std::size_t>(std::min(piece, source.size())));
  while (decoder.position() < source.size() && !decoder.ended()) {
    auto const left = source.size() - decoder.position();
    if (auto const pass = std::min(decoder.skippable(), left); pass > 0) {
      decoder.skip(pass);
      continue;
    }
    auto const part =
        std::span(buffer).first(static_cast<std::size_t>(std::min<std::uint64_t>(left, piece)));
    EROFS_OCI_TRY(read_exact(source, decoder.position(), part));
    EROFS_OCI_TRY(decoder.push(part, visit));
  }
  EROFS_OCI_TRY(decoder.finish(visit));
  return decoder.reports();
}

}  // namespace erofs_oci::tar
