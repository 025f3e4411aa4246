// SPDX-License-Identifier: Apache-2.0
/// @file
/// What several fuzz targets share: an input that is read field by field.
#pragma once

#include <algorithm>
#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <span>
#include <string>
#include <system_error>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/endian.hpp>
#include <erofs_oci/digest/sealed_file.hpp>
#include <erofs_oci/erofs/format.hpp>
#include <erofs_oci/erofs/frame.hpp>
#include <erofs_oci/posix/temporary_directory.hpp>

namespace fuzz {

/// Ends the run with a finding, in every kind of build.
inline void require(bool condition) {
  if (!condition) std::abort();
}

/// An input whose last 32 bytes are the SHA-256 of those before, which no fuzzer can guess; a
/// shorter one as it is.
inline erofs_oci::Bytes sealed(std::uint8_t const* data, std::size_t size) {
  auto input = erofs_oci::to_bytes(std::as_bytes(std::span(data, size)));
  if (input.size() < erofs_oci::sha256_size) return input;
  input.resize(input.size() - erofs_oci::sha256_size);
  erofs_oci::SealedForm::seal(input);
  return input;
}

/// The bytes of an input, front to back. Behind their end there are zeros and empty texts.
class Input {
 public:
  Input(std::uint8_t const* data, std::size_t size) : rest_(std::as_bytes(std::span(data, size))) {}

  [[nodiscard]] bool empty() const noexcept { return rest_.empty(); }

  /// A little-endian number.
  template <std::unsigned_integral T>
  T number() {
    std::array<std::byte, sizeof(T)> raw{};
    std::ranges::copy(bytes(sizeof(T)), raw.begin());
    return erofs_oci::load_le<T>(raw);
  }

  std::uint8_t byte() { return number<std::uint8_t>(); }

  /// The next bytes, or as many as there are.
  std::span<std::byte const> bytes(std::size_t most) {
    auto const taken = rest_.first(std::min(most, rest_.size()));
    rest_ = rest_.subspan(taken.size());
    return taken;
  }

  /// A byte with the length, then the text.
  std::string text() {
    auto const length = byte();
    return std::string(erofs_oci::as_text(bytes(length)));
  }

  /// All that is left.
  std::span<std::byte const> rest() { return bytes(rest_.size()); }

  std::string rest_as_text() { return std::string(erofs_oci::as_text(rest())); }

 private:
  std::span<std::byte const> rest_;
};

/// A directory that goes, with all that is in it, at the program's end.
class Scratch {
 public:
  Scratch() : directory_(erofs_oci::TemporaryDirectory::make("/tmp/erofs_oci-fuzz-")) {
    require(directory_.has_value());
  }
  Scratch(Scratch const&) = delete;
  Scratch& operator=(Scratch const&) = delete;
  ~Scratch() {
    std::error_code ignored;
    std::filesystem::remove_all(path(), ignored);
  }

  [[nodiscard]] std::string const& path() const { return directory_->path(); }

 private:
  erofs_oci::Result<erofs_oci::TemporaryDirectory> directory_;
};

/// Makes the checksum of an EROFS image right where it is asked for: a fuzzer cannot guess it.
inline void mend(erofs_oci::Bytes& image) {
  namespace erofs = erofs_oci::erofs;
  if (image.size() < erofs::superblock_offset + erofs::Superblock::on_disk_size) return;
  auto const whole = std::span(image).subspan(erofs::superblock_offset);
  auto superblock = erofs::Superblock::decode(whole.first<erofs::Superblock::on_disk_size>());
  if (superblock.block_bits < 9 || superblock.block_bits > 16) return;
  auto const length = superblock.checksum_length();
  if (length > whole.size()) return;
  erofs_oci::store_le(std::uint32_t{0}, whole.subspan<4, 4>());
  erofs_oci::store_le(erofs::crc32c(whole.first(static_cast<std::size_t>(length))),
                      whole.subspan<4, 4>());
}

}  // namespace fuzz
