// SPDX-License-Identifier: Apache-2.0
/// @file
/// BlobFiles: what a cache on disk asks of a file system; SystemFiles.
#pragma once

#include <cerrno>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <erofs_oci/core/fd.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/posix/replace_file.hpp>

namespace erofs_oci {

/// What is known of a file without reading it.
struct FileFacts {
  std::uint64_t size = 0;     ///< bytes, holes included
  std::uint64_t on_disk = 0;  ///< bytes that it takes
  std::uint64_t links = 0;    ///< names that it has; 0: it was removed
  std::int64_t changed = 0;   ///< when it was written last: nanoseconds since 1970
  uid_t owner = 0;
  bool is_regular = false;
};

/// The files of one open directory, as a policy, so that tests can let each operation fail. All
/// offsets and lengths are in bytes, and names have no slash.
///
/// @par Thread safety
/// All const members, from any thread.
template <class F>
concept BlobFiles =
    std::copy_constructible<F> &&
    requires(F const& files, int fd, std::string const& name, std::uint64_t n, bool flag,
             std::span<std::byte> out, std::span<std::byte const> bytes, uid_t owner) {
      // never through a symbolic link, and without waiting
      { files.open(fd, name, int{}) } -> std::same_as<Result<UniqueFd>>;
      { files.facts(fd) } -> std::same_as<Result<FileFacts>>;
      { files.facts_at(fd, name) } -> std::same_as<Result<FileFacts>>;
      { files.give(fd, owner) } -> std::same_as<Result<void>>;
      { files.read(fd, n, out) } -> std::same_as<Result<std::size_t>>;
      { files.write(fd, n, bytes) } -> std::same_as<Result<void>>;
      { files.punch(fd, n, n) } -> std::same_as<Result<void>>;
      { files.remove(fd, name) } -> std::same_as<Result<void>>;
      { files.list(fd) } -> std::same_as<Result<std::vector<std::string>>>;
      // whether the lock is held now; an error: the file system has no locks
      { files.try_hold(fd, flag) } -> std::same_as<Result<bool>>;
      { files.try_lock(fd, n, n) } -> std::same_as<Result<bool>>;
      files.unlock(fd, n, n);
    };

/// The machine's files.
struct SystemFiles {
  /// openat(2), mode 0600.
  /// @error{an errno, as openat(2)}
  [[nodiscard]] Result<UniqueFd> open(int directory, std::string const& name, int flags) const {
    for (;;) {
      UniqueFd fd(::openat(directory, name.c_str(),
                           flags | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0600));
      if (fd) return fd;
      if (errno != EINTR) return fail_errno(errno, name);
    }
  }

  /// @error{an errno, as fstat(2)}
  [[nodiscard]] Result<FileFacts> facts(int fd) const {
    struct stat status{};
    if (::fstat(fd, &status) != 0) return fail_errno(errno, "fstat");
    return of(status);
  }

  /// Of a name, which is not followed if it is a symbolic link.
  /// @error{an errno, as fstatat(2)}
  [[nodiscard]] Result<FileFacts> facts_at(int directory, std::string const& name) const {
    struct stat status{};
    if (::fstatat(directory, name.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0) {
      return fail_errno(errno, name);
    }
    return of(status);
  }

  /// @error{an errno, as fchown(2)}
  [[nodiscard]] Result<void> give(int fd, uid_t owner) const {
    if (::fchown(fd, owner, static_cast<gid_t>(-1)) != 0) return fail_errno(errno, "fchown");
    return {};
  }

  /// As many bytes as there are.
  /// @error{an errno, as pread(2)}
  [[nodiscard]] Result<std::size_t> read(int fd, std::uint64_t offset,
                                         std::span<std::byte> out) const {
    return pread_full(fd, offset, out);
  }

  /// All bytes.
  /// @error{an errno, as pwrite(2); some may be written}
  [[nodiscard]] Result<void> write(int fd, std::uint64_t offset,
                                   std::span<std::byte const> bytes) const {
    return pwrite_full(fd, offset, bytes);
  }

  /// Makes a hole: the bytes read as zeros and take no space.
  /// @error{an errno, as fallocate(2)}
  [[nodiscard]] Result<void> punch(int fd, std::uint64_t offset, std::uint64_t length) const {
    if (::fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset),
                    static_cast<off_t>(length)) != 0) {
      return fail_errno(errno, "fallocate");
    }
    return {};
  }

  /// @error{an errno, as unlinkat(2)}
  [[nodiscard]] Result<void> remove(int directory, std::string const& name) const {
    return remove_at(directory, name);
  }

  /// The names in it, in no order.
  /// @error{an errno, as openat(2) and readdir(3)}
  [[nodiscard]] Result<std::vector<std::string>> list(int directory) const {
    EROFS_OCI_TRY_ASSIGN(auto fd, open(directory, ".", O_RDONLY | O_DIRECTORY));
    std::unique_ptr<DIR, int (*)(DIR*)> const stream(::fdopendir(fd.get()), &::closedir);
    if (!stream) return fail_errno(errno, "directory");
    static_cast<void>(fd.release());
    std::vector<std::string> names;
    for (errno = 0; auto const* const entry = ::readdir(stream.get()); errno = 0) {
      std::string_view const name(static_cast<char const*>(entry->d_name));
      if (name != "." && name != "..") names.emplace_back(name);
    }
    if (errno != 0) return fail_errno(errno, "directory");
    return names;
  }

  /// flock(2), which the descriptor's end releases.
  /// @param alone  exclusive, else shared
  /// @error{an errno, as flock(2)\, other than that another process has it}
  [[nodiscard]] Result<bool> try_hold(int fd, bool alone) const {
    if (::flock(fd, (alone ? LOCK_EX : LOCK_SH) | LOCK_NB) == 0) return true;
    if (errno == EWOULDBLOCK) return false;
    return fail_errno(errno, "flock");
  }

  /// A lock of [begin, begin + n) against other descriptors of the file, in the numbers that
  /// fcntl(2) takes for bytes. The descriptor's end releases it.
  /// @error{an errno, as fcntl(2)\, other than that another one has it}
  [[nodiscard]] Result<bool> try_lock(int fd, std::uint64_t begin, std::uint64_t n) const {
    if (set_lock(fd, F_WRLCK, begin, n)) return true;
    if (errno == EAGAIN || errno == EACCES) return false;
    return fail_errno(errno, "fcntl");
  }

  void unlock(int fd, std::uint64_t begin, std::uint64_t n) const noexcept {
    set_lock(fd, F_UNLCK, begin, n);
  }

 private:
  [[nodiscard]] static FileFacts of(struct stat const& status) {
    constexpr std::uint64_t unit = 512;  // of st_blocks, on each file system
    return {static_cast<std::uint64_t>(status.st_size),
            static_cast<std::uint64_t>(status.st_blocks) * unit,
            static_cast<std::uint64_t>(status.st_nlink),
            std::int64_t{status.st_mtim.tv_sec} * 1'000'000'000 + status.st_mtim.tv_nsec,
            status.st_uid,
            S_ISREG(status.st_mode)};
  }

  static bool set_lock(int fd, short kind, std::uint64_t begin, std::uint64_t n) noexcept {
    struct flock range{};
    range.l_type = kind;
    range.l_whence = SEEK_SET;
    range.l_start = static_cast<off_t>(begin);
    range.l_len = static_cast<off_t>(n);
    return ::fcntl(fd, F_OFD_SETLK, &range) == 0;
  }
};

static_assert(BlobFiles<SystemFiles>);

}  // namespace erofs_oci
