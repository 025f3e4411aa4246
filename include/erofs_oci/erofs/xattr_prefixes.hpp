// SPDX-License-Identifier: Apache-2.0
/// @file
/// XattrPrefixes: the name prefixes that an image defines.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/endian.hpp>
#include <erofs_oci/core/function_ref.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/erofs/xattr.hpp>

namespace erofs_oci::erofs {

/// The texts of all prefix indexes of an image.
///
/// Long prefixes on disk: records of `[0, 2)` length, `[2, 3)` base index, `[3, 2 + length)` infix,
/// each at a multiple of 4.
/// @spec{spec/tarindex.md section 7}
class XattrPrefixes {
 public:
  /// None but the base prefixes.
  XattrPrefixes() = default;

  /// Reads the long prefixes.
  /// @param count    records, at most 255; memory is 256 bytes a record at most
  /// @param start    where the first one is, in bytes, for `read_at`
  /// @param read_at  fills a span from a position
  /// @error{Errc::corrupt, a length of 0 or above 256}
  [[nodiscard]] static Result<XattrPrefixes> read(
      unsigned count, std::uint64_t start,
      FunctionRef<Result<void>(std::uint64_t, std::span<std::byte>)> read_at) {
    XattrPrefixes prefixes;
    auto position = start;
    for (unsigned i = 0; i < count; ++i) {
      std::array<std::byte, 3> head{};
      EROFS_OCI_TRY(read_at(position, head));
      auto const length = load_le<std::uint16_t>(std::span<std::byte const>(head).first<2>());
      if (length == 0 || length > max_xattr_name + 1) {
        return fail(Errc::corrupt, "record at offset " + std::to_string(position) + " of " +
                                       std::to_string(length) + " bytes");
      }
      Bytes infix(length - 1u);
      EROFS_OCI_TRY(read_at(position + head.size(), infix));
      auto const base = base_prefix(std::to_integer<std::uint8_t>(head[2]));
      prefixes.long_.push_back(
          base ? std::optional(std::string(*base) + std::string(as_text(infix))) : std::nullopt);
      position += (2u + length + 3u) & ~3u;
    }
    return prefixes;
  }

  /// The text of an index; empty for one that has none.
  [[nodiscard]] std::optional<std::string> text(std::uint8_t index) const {
    if ((index & long_prefix_bit) != 0) {
      auto const i = static_cast<std::size_t>(index & ~long_prefix_bit);
      return i < long_.size() ? long_[i] : std::nullopt;
    }
    return std::optional<std::string>(base_prefix(index));
  }

 private:
  std::vector<std::optional<std::string>> long_;
};

}  // namespace erofs_oci::erofs
