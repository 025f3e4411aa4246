// SPDX-License-Identifier: Apache-2.0
/// @file
/// TarMaker: tar archives header by header, right and wrong ones.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <erofs_oci/core/bytes.hpp>

namespace erofs_oci::testing {

/// The fields of a header to be made. Nothing is checked.
struct TarHeader {
  std::string name;
  char typeflag = '0';
  std::uint64_t mode = 0644;
  std::uint64_t uid = 0;
  std::uint64_t gid = 0;
  std::uint64_t mtime = 1700000000;
  std::optional<std::uint64_t> size{};  ///< default: the length of the data
  std::string link{};
  std::string magic = std::string("ustar\0", 6) + "00";  ///< empty: v7
  std::string prefix{};
  std::uint64_t dev_major = 0;
  std::uint64_t dev_minor = 0;
};

/// `key=value` with its length in front, as in an extended header.
[[nodiscard]] inline std::string pax_record(std::string_view key, std::string_view value) {
  auto const body = " " + std::string(key) + "=" + std::string(value) + "\n";
  auto length = body.size();
  while (std::to_string(length).size() + body.size() != length) {
    length = std::to_string(length).size() + body.size();
  }
  return std::to_string(length) + body;
}

/// Writes `text` over `block` from `at` on.
inline void put_text(Bytes& block, std::size_t at, std::string_view text) {
  std::ranges::copy(as_bytes(text), block.begin() + static_cast<std::ptrdiff_t>(at));
}

/// Writes `value` as `digits` octal digits and a NUL, or in base-256 if it needs more.
inline void put_number(Bytes& block, std::size_t at, std::size_t digits, std::uint64_t value) {
  if (digits * 3 >= 64 || value >> (digits * 3) == 0) {
    for (std::size_t i = digits; i-- > 0; value >>= 3) {
      block[at + i] = static_cast<std::byte>('0' + (value & 7));
    }
    return;
  }
  for (std::size_t i = digits + 1; i-- > 0; value >>= 8) block[at + i] = std::byte(value & 0xff);
  block[at] |= std::byte{0x80};
}

/// Puts the right checksum into a header.
inline void seal(Bytes& block) {
  put_text(block, 148, "        ");
  std::uint64_t sum = 0;
  for (auto const byte : std::span(block).first(512)) sum += std::to_integer<unsigned>(byte);
  put_number(block, 148, 6, sum);
  block[154] = std::byte{0};
}

/// The 512 bytes of a header.
[[nodiscard]] inline Bytes header_block(TarHeader const& header, std::uint64_t size) {
  Bytes block(512);
  put_text(block, 0, std::string_view(header.name).substr(0, 100));
  put_number(block, 100, 7, header.mode);
  put_number(block, 108, 7, header.uid);
  put_number(block, 116, 7, header.gid);
  put_number(block, 124, 11, header.size.value_or(size));
  put_number(block, 136, 11, header.mtime);
  block[156] = static_cast<std::byte>(header.typeflag);
  put_text(block, 157, std::string_view(header.link).substr(0, 100));
  put_text(block, 257, header.magic);
  if (!header.magic.empty()) {
    put_number(block, 329, 7, header.dev_major);
    put_number(block, 337, 7, header.dev_minor);
    put_text(block, 345, std::string_view(header.prefix).substr(0, 155));
  }
  seal(block);
  return block;
}

/// Builds an archive front to back. Every member returns the maker, so that calls chain.
class TarMaker {
 public:
  /// A header, then `data` padded with zeros to a block.
  TarMaker& member(TarHeader const& header, std::span<std::byte const> data = {}) {
    raw(header_block(header, data.size()));
    raw(data);
    bytes_.resize((bytes_.size() + 511) / 512 * 512);
    return *this;
  }

  TarMaker& member(TarHeader const& header, std::string_view data) {
    return member(header, as_bytes(data));
  }

  TarMaker& file(std::string path, std::string_view data = {}, std::uint64_t mode = 0644) {
    return member({.name = std::move(path), .mode = mode}, data);
  }

  TarMaker& dir(std::string path, std::uint64_t mode = 0755) {
    return member({.name = std::move(path), .typeflag = '5', .mode = mode});
  }

  TarMaker& symlink(std::string path, std::string target) {
    return member(
        {.name = std::move(path), .typeflag = '2', .mode = 0777, .link = std::move(target)});
  }

  TarMaker& hard_link(std::string path, std::string target) {
    return member({.name = std::move(path), .typeflag = '1', .link = std::move(target)});
  }

  /// A local (`x`) or global (`g`) extended header.
  TarMaker& pax(std::vector<std::pair<std::string, std::string>> const& records,
                char typeflag = 'x') {
    std::string text;
    for (auto const& [key, value] : records) text += pax_record(key, value);
    return member({.name = "PaxHeaders/x", .typeflag = typeflag}, text);
  }

  /// A GNU long name (`L`) or long link (`K`), with its NUL.
  TarMaker& gnu_long(char typeflag, std::string_view text) {
    return member({.name = "././@LongLink", .typeflag = typeflag, .magic = gnu_magic()},
                  std::string(text) + '\0');
  }

  /// Any bytes.
  TarMaker& raw(std::span<std::byte const> bytes) {
    bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
    return *this;
  }

  TarMaker& zero_block() { return raw(Bytes(512)); }

  /// The end marker.
  TarMaker& end() { return zero_block().zero_block(); }

  /// What was built.
  [[nodiscard]] Bytes const& bytes() const noexcept { return bytes_; }

  [[nodiscard]] static std::string gnu_magic() { return std::string("ustar  \0", 8); }

 private:
  Bytes bytes_;
};

}  // namespace erofs_oci::testing
