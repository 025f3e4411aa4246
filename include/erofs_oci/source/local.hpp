// SPDX-License-Identifier: Apache-2.0
/// @file
/// Local: a source over a local file or block device.
#pragma once

#include <cerrno>
#include <cstdint>
#include <span>
#include <string>
#include <utility>

#include <sys/stat.h>
#include <unistd.h>

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
  [[nodiscard]] static Result<Local> open(std::string path) {
    // O_NONBLOCK: a FIFO must be refused below, not waited for. It does nothing to a file.
    auto fd = open_read(path, O_NONBLOCK);
    if (!fd) return fail(std::move(fd).error());
    return of_fd(*std::move(fd), std::move(path));
  }

  /// Owns a descriptor that is open for reading.
  /// @param path  for messages
  /// @error{Errc::unsupported, it is neither a regular file nor a block device}
  /// @error{an errno, as fstat(2)}
  [[nodiscard]] static Result<Local> of_fd(UniqueFd fd, std::string path) {
    struct stat status{};
    if (::fstat(fd.get(), &status) != 0) return fail_errno(errno, path);
    if (S_ISREG(status.st_mode)) {
      return Local(std::move(fd), std::move(path), static_cast<std::uint64_t>(status.st_size));
    }
    if (!S_ISBLK(status.st_mode)) {
      return fail(Errc::unsupported, path + ": neither a regular file nor a block device");
    }
    auto const end = ::lseek(fd.get(), 0, SEEK_END);
    if (end < 0) return fail_errno(errno, path);
    return Local(std::move(fd), std::move(path), static_cast<std::uint64_t>(end));
  }

  /// @name RandomAccessSource
  /// @{

  /// @error{Errc::truncated, the file became shorter than it was at open()}
  /// @error{an errno, as pread(2)}
  [[nodiscard]] std::uint64_t size() const noexcept { return size_; }

  [[nodiscard]] Result<std::size_t> read_at(std::uint64_t offset, std::span<std::byte> out) const {
    auto const wanted = readable(size_, offset, out.size());
    if (wanted == 0) return std::size_t{0};
    auto n = pread_full(fd_.get(), offset, out.first(wanted));
    if (!n) return fail(std::move(n).error(), path_);
    if (*n < wanted) {
      return fail(Errc::truncated, path_ + ": the file ends at offset " +
                                       std::to_string(offset + *n) + ", it had " +
                                       std::to_string(size_) + " bytes when opened");
    }
    return wanted;
  }
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
