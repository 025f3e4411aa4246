// SPDX-License-Identifier: Apache-2.0
/// @file
/// Local: a source over a local file or block device.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <utility>

#include <erofs_oci/core/fd.hpp>
#include <erofs_oci/core/source.hpp>

namespace erofs_oci {

/// A regular file or block device, read with pread(2). Never mapped: a file that is cut short while
/// it is read gives an error, not a SIGBUS.
class Local {
 public:
  /// Opens `path` for reading; its size is taken now and must not change.
  /// @error{Errc::unsupported, `path` is neither a regular file nor a block device}
  /// @error{an errno, as open(2) and fstat(2)}
  [[nodiscard]] static Result<Local> open(std::string path);

  /// Owns a descriptor that is open for reading.
  /// @param path  for messages
  /// @error{Errc::unsupported, it is neither a regular file nor a block device}
  /// @error{an errno, as fstat(2)}
  [[nodiscard]] static Result<Local> of_fd(UniqueFd fd, std::string path);

  /// @name RandomAccessSource
  /// @{

  /// @error{Errc::truncated, the file became shorter than it was at open()}
  /// @error{an errno, as pread(2)}
  [[nodiscard]] std::uint64_t size() const noexcept { return size_; }

  [[nodiscard]] Result<std::size_t> read_at(std::uint64_t offset, std::span<std::byte> out) const;
  /// @}

  /// The path, as given.
  [[nodiscard]] std::string describe() const { return path_; }

 private:
  Local(UniqueFd fd, std::string path, std::uint64_t size)
      : fd_(std::move(fd)), path_(std::move(path)), size_(size) {}

  UniqueFd fd_;
  std::string path_;
  std::uint64_t size_;
};

static_assert(RandomAccessSource<Local>);

}  // namespace erofs_oci

#ifndef EROFS_OCI_COMPILED
#include <erofs_oci/source/detail/local_body.hpp>
#endif
