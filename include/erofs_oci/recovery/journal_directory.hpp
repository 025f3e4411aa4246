// SPDX-License-Identifier: Apache-2.0
/// @file
/// JournalDirectory: a private directory in which files are replaced whole or not at all.
#pragma once

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <erofs_oci/core/fd.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/posix/descriptor.hpp>
#include <erofs_oci/posix/replace_file.hpp>
#include <erofs_oci/posix/text_file.hpp>

namespace erofs_oci {

/// An open directory of mode 0700 that this user owns, and the operations of a journal in it.
/// Refuses every file that has not mode 0600, one link and this user as its owner, and follows no
/// symbolic link. The caller must check that names have no slash.
///
/// @par Thread safety
/// All const members, from any thread, for different names.
class JournalDirectory {
 public:
  /// Opens the directory, or makes it; its parent must exist and be trusted.
  /// @error{std::errc::permission_denied, another user's\, or others may enter it}
  /// @error{an errno, as mkdir(2) and open(2); a symbolic link is ENOTDIR or ELOOP}
  [[nodiscard]] static Result<JournalDirectory> open(std::string path) {
    while (path.size() > 1 && path.back() == '/') path.pop_back();  // or a link would be followed
    if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) return fail_errno(errno, path);
    return open_existing(std::move(path));
  }

  /// Opens the directory if it exists, such as one of another tool.
  /// @error{as open(), as there; ENOENT}
  [[nodiscard]] static Result<JournalDirectory> open_existing(std::string path) {
    while (path.size() > 1 && path.back() == '/') path.pop_back();
    EROFS_OCI_TRY_ASSIGN(auto fd, open_read(path, O_DIRECTORY | O_NOFOLLOW));
    struct stat status{};
    if (::fstat(fd.get(), &status) != 0) return fail_errno(errno, path);
    EROFS_OCI_TRY(check_owner(status, 0700, path));
    return JournalDirectory(std::move(fd), std::move(path));
  }

  /// As given to open(), for messages.
  [[nodiscard]] std::string const& path() const noexcept { return path_; }

  /// The path of a file in it, for messages.
  [[nodiscard]] std::string path_of(std::string_view file) const {
    return path_ + '/' + std::string(file);
  }

  /// The whole content of a file.
  /// @error{std::errc::permission_denied, not a file that this user alone could have written}
  /// @error{std::errc::file_too_large, longer than `most` bytes}
  /// @error{an errno, as open(2) and read(2)}
  [[nodiscard]] Result<std::string> read(std::string const& file, std::size_t most) const {
    EROFS_OCI_TRY_ASSIGN(auto const fd, open_checked(file, O_RDONLY | O_NONBLOCK));
    return read_text(fd, path_of(file), most);
  }

  /// Gives `file` new content through `temporary`, as replace_file_at() does.
  /// @error{an errno, as write(2)\, fsync(2) and rename(2): ENOSPC on a full disk}
  [[nodiscard]] Result<void> replace(std::string const& file, std::string const& temporary,
                                     std::span<std::byte const> content) const {
    auto const fill = [&](int fd) { return write_full(fd, content); };
    EROFS_OCI_TRY(replace_file_at(fd_.get(), file, temporary, 0600, fill), path_);
    return {};
  }

  /// Gives a file another name; replaces a file that has it.
  /// @error{an errno, as rename(2) and fsync(2)}
  [[nodiscard]] Result<void> rename(std::string const& from, std::string const& to) const {
    EROFS_OCI_TRY(rename_at(fd_.get(), from, to), path_);
    return {};
  }

  /// Removes a name; one that is not there is not an error.
  /// @error{an errno, as unlink(2)}
  [[nodiscard]] Result<void> remove(std::string const& file) const {
    EROFS_OCI_TRY(remove_at(fd_.get(), file), path_);
    return {};
  }

  /// Makes renames and removals durable.
  /// @error{an errno, as fsync(2)}
  [[nodiscard]] Result<void> sync() const {
    if (::fsync(fd_.get()) != 0) return fail_errno(errno, "sync " + path_);
    return {};
  }

  /// Takes the exclusive lock on a file, which it makes if it is missing; empty if another process
  /// has the lock. Does not block. The lock lasts as long as any copy of the descriptor, in this
  /// process or its children.
  /// @error{std::errc::permission_denied, not a file that this user alone could have made}
  /// @error{an errno, as open(2) and flock(2)}
  [[nodiscard]] Result<std::optional<UniqueFd>> lock(std::string const& file) const {
    for (;;) {
      auto fd = open_checked(file, O_RDWR | O_CREAT | O_NONBLOCK);
      // Another process has removed the file between open and fstat.
      if (!fd && fd.error().code == std::errc::no_link) continue;
      if (!fd) return fail(std::move(fd).error());
      if (::flock(fd->get(), LOCK_EX | LOCK_NB) != 0) {
        if (errno == EWOULDBLOCK) return std::optional<UniqueFd>();
        if (errno == EINTR) continue;
        return fail_errno(errno, "lock " + path_of(file));
      }
      if (is_still(file, *fd)) return std::optional(*std::move(fd));
    }
  }

  /// Whether a process has the lock on a file. The test itself holds the lock for some
  /// microseconds.
  /// @error{an errno, as open(2) and flock(2)}
  [[nodiscard]] Result<bool> is_locked(std::string const& file) const {
    auto const fd = open_checked(file, O_RDONLY | O_NONBLOCK);
    if (!fd && (fd.error().code == std::errc::no_such_file_or_directory ||
                fd.error().code == std::errc::no_link)) {
      return false;
    }
    if (!fd) return fail(fd.error());
    if (::flock(fd->get(), LOCK_SH | LOCK_NB) == 0) return false;
    if (errno == EWOULDBLOCK) return true;
    return fail_errno(errno, "lock " + path_of(file));
  }

  /// All names in it, sorted.
  /// @error{an errno, as open(2) and readdir(3)}
  [[nodiscard]] Result<std::vector<std::string>> list() const {
    // A description of its own: the position of a directory is shared by copies of a descriptor.
    UniqueFd fd(::openat(fd_.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!fd) return fail_errno(errno, path_);
    std::unique_ptr<DIR, int (*)(DIR*)> const entries(::fdopendir(fd.get()), &::closedir);
    if (!entries) return fail_errno(errno, path_);
    static_cast<void>(fd.release());  // closedir() closes it
    std::vector<std::string> names;
    for (;;) {
      errno = 0;
      auto const* const entry = ::readdir(entries.get());
      if (entry == nullptr) break;
      auto const name = std::string_view(entry->d_name);
      if (name != "." && name != "..") names.emplace_back(name);
    }
    if (errno != 0) return fail_errno(errno, path_);
    std::ranges::sort(names);
    return names;
  }

  /// Another descriptor of the same directory.
  /// @error{an errno, as fcntl(2)}
  [[nodiscard]] Result<JournalDirectory> clone() const {
    EROFS_OCI_TRY_ASSIGN(auto fd, duplicate(fd_.get()), path_);
    return JournalDirectory(std::move(fd), path_);
  }

 private:
  JournalDirectory(UniqueFd fd, std::string path) : fd_(std::move(fd)), path_(std::move(path)) {}

  static Result<void> check_owner(struct stat const& status, mode_t mode, std::string const& path) {
    auto const denied = make_error_code(std::errc::permission_denied);
    if (status.st_uid != ::geteuid()) {
      return fail(denied, path + ": belongs to user " + std::to_string(status.st_uid));
    }
    if ((status.st_mode & 07777) != mode) {
      return fail(denied, path + ": is not for its owner alone");
    }
    return {};
  }

  Result<UniqueFd> open_checked(std::string const& file, int flags) const {
    UniqueFd fd(::openat(fd_.get(), file.c_str(), flags | O_NOFOLLOW | O_CLOEXEC, 0600));
    if (!fd) return fail_errno(errno, path_of(file));
    struct stat status{};
    if (::fstat(fd.get(), &status) != 0) return fail_errno(errno, path_of(file));
    auto const denied = make_error_code(std::errc::permission_denied);
    if (!S_ISREG(status.st_mode)) return fail(denied, path_of(file) + ": not a regular file");
    if (status.st_nlink == 0) {
      return fail(make_error_code(std::errc::no_link), path_of(file) + ": just removed");
    }
    if (status.st_nlink != 1) return fail(denied, path_of(file) + ": has another name");
    EROFS_OCI_TRY(check_owner(status, 0600, path_of(file)));
    return fd;
  }

  // A lock taken on a file that was removed before locks nothing.
  [[nodiscard]] bool is_still(std::string const& file, UniqueFd const& fd) const noexcept {
    struct stat by_name{};
    struct stat by_fd{};
    return ::fstatat(fd_.get(), file.c_str(), &by_name, AT_SYMLINK_NOFOLLOW) == 0 &&
           ::fstat(fd.get(), &by_fd) == 0 && by_name.st_ino == by_fd.st_ino &&
           by_name.st_dev == by_fd.st_dev;
  }

  UniqueFd fd_;
  std::string path_;
};

}  // namespace erofs_oci
