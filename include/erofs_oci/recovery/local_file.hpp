// SPDX-License-Identifier: Apache-2.0
/// @file
/// LocalFile: identifies a file, so that no other one is served in its place.
#pragma once

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>

#include <fcntl.h>
#include <sys/stat.h>

#include <erofs_oci/core/fd.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/digest/digest.hpp>
#include <erofs_oci/digest/sha256.hpp>
#include <erofs_oci/posix/path.hpp>

namespace erofs_oci {

/// A regular file that an image is made of, as it was when the image was opened.
struct LocalFile {
  std::string path{};              ///< absolute, symbolic links resolved; any bytes but NUL
  std::uint64_t size = 0;          ///< bytes
  std::optional<Digest> digest{};  ///< of the content; empty if it was not read whole
  std::uint64_t device = 0;        ///< st_dev
  std::uint64_t inode = 0;         ///< st_ino
  std::int64_t modified = 0;       ///< st_mtim, in nanoseconds since 1970

  friend bool operator==(LocalFile const&, LocalFile const&) = default;
};

/// How a file is identified.
enum class FileIdentity {
  content,  ///< by its digest, for which all of it is read; an equal copy is the same file
  stamp,    ///< by size, inode and time of change: for files too large to be read whole
};

namespace detail {

inline std::int64_t modified_ns(struct stat const& status) noexcept {
  return std::int64_t{status.st_mtim.tv_sec} * 1'000'000'000 + status.st_mtim.tv_nsec;
}

inline bool same_stamp(struct stat const& status, LocalFile const& file) noexcept {
  return static_cast<std::uint64_t>(status.st_dev) == file.device &&
         static_cast<std::uint64_t>(status.st_ino) == file.inode &&
         modified_ns(status) == file.modified;
}

/// The status of an open file, if it is a regular one.
inline Result<struct stat> regular_status(int fd, std::string const& path) {
  struct stat status{};
  if (::fstat(fd, &status) != 0) return fail_errno(errno, path);
  if (!S_ISREG(status.st_mode)) return fail(Errc::unsupported, path + ": not a regular file");
  return status;
}

/// The digest of the first `size` bytes of an open file.
inline Result<Digest> file_digest(int fd, std::uint64_t size, DigestAlgorithm algorithm,
                                  std::string const& path) {
  Hasher hasher(algorithm);
  constexpr std::size_t step = 256 * 1024;
  auto const buffer = std::make_unique<std::array<std::byte, step>>();
  for (std::uint64_t at = 0; at < size;) {
    auto const want = static_cast<std::size_t>(size - at < step ? size - at : step);
    EROFS_OCI_TRY_ASSIGN(auto const n, pread_full(fd, at, std::span(*buffer).first(want)), path);
    if (n < want) return fail(Errc::truncated, path + ": offset " + std::to_string(at + n));
    hasher.update(std::span(*buffer).first(want));
    at += want;
  }
  return hasher.finish();
}

}  // namespace detail

/// Identifies the file that a path leads to now. Resolves relative paths and symbolic links once,
/// here.
/// @error{an errno, as realpath(3)\, open(2) and read(2)}
/// @error{Errc::unsupported, not a regular file}
/// @error{Errc::mismatch, it was written to at the same time}
[[nodiscard]] inline Result<LocalFile> measure_file(std::string const& path,
                                                    FileIdentity identity = FileIdentity::content) {
  LocalFile file;
  EROFS_OCI_TRY_ASSIGN(file.path, real_path(path));
  EROFS_OCI_TRY_ASSIGN(auto const fd, open_read(file.path, O_NOFOLLOW | O_NONBLOCK));
  EROFS_OCI_TRY_ASSIGN(auto const before, detail::regular_status(fd.get(), file.path));
  file.size = static_cast<std::uint64_t>(before.st_size);
  file.device = static_cast<std::uint64_t>(before.st_dev);
  file.inode = static_cast<std::uint64_t>(before.st_ino);
  file.modified = detail::modified_ns(before);
  if (identity == FileIdentity::stamp) return file;

  EROFS_OCI_TRY_ASSIGN(
      file.digest, detail::file_digest(fd.get(), file.size, DigestAlgorithm::sha256, file.path));
  EROFS_OCI_TRY_ASSIGN(auto const after, detail::regular_status(fd.get(), file.path));
  if (after.st_size != before.st_size || !detail::same_stamp(after, file)) {
    return fail(Errc::mismatch, file.path + ": written to while it was read");
  }
  return file;
}

/// Opens the file that measure_file() has identified, and never another one. Read from the
/// descriptor that this yields (`/proc/self/fd/N` names it): the path may lead elsewhere by the
/// next call.
/// @error{an errno, as open(2) and read(2)}
/// @error{Errc::mismatch, the path leads to a file with another size or stamp}
/// @error{Errc::digest_mismatch, the path leads to a file with other content}
[[nodiscard]] inline Result<UniqueFd> open_unchanged(LocalFile const& file) {
  EROFS_OCI_TRY_ASSIGN(auto fd, open_read(file.path, O_NOFOLLOW | O_NONBLOCK));
  EROFS_OCI_TRY_ASSIGN(auto const status, detail::regular_status(fd.get(), file.path));
  if (static_cast<std::uint64_t>(status.st_size) != file.size) {
    return fail(Errc::mismatch, file.path + ": has " + std::to_string(status.st_size) +
                                    " bytes, had " + std::to_string(file.size));
  }
  if (!file.digest) {
    if (detail::same_stamp(status, file)) return fd;
    return fail(Errc::mismatch, file.path + ": replaced or written to since it was opened");
  }
  EROFS_OCI_TRY_ASSIGN(auto const digest, detail::file_digest(fd.get(), file.size,
                                                              file.digest->algorithm(), file.path));
  if (digest != *file.digest) {
    return fail(Errc::digest_mismatch,
                file.path + ": is " + digest.to_string() + ", was " + file.digest->to_string());
  }
  return fd;
}

}  // namespace erofs_oci
