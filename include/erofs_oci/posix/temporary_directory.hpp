// SPDX-License-Identifier: Apache-2.0
/// @file
/// TemporaryDirectory: a private directory that is removed with its object.
#pragma once

#include <cerrno>
#include <cstdlib>
#include <string>
#include <utility>

#include <unistd.h>

#include <erofs_oci/core/result.hpp>

namespace erofs_oci {

/// A directory with a unique name, for its owner only (0700). The destructor removes it if it is
/// empty.
class TemporaryDirectory {
 public:
  /// @param prefix  absolute; six characters are put behind it
  /// @error{an errno, as mkdtemp(3)}
  [[nodiscard]] static Result<TemporaryDirectory> make(std::string const& prefix) {
    auto path = prefix + "XXXXXX";
    if (::mkdtemp(path.data()) == nullptr) return fail_errno(errno, path);
    return TemporaryDirectory(std::move(path));
  }

  TemporaryDirectory(TemporaryDirectory&& other) noexcept : path_(std::exchange(other.path_, {})) {}
  ~TemporaryDirectory() { remove(); }

  /// Removes it now, unless something is in it or mounted there.
  void remove() noexcept {
    if (!path_.empty()) ::rmdir(path_.c_str());
    path_.clear();
  }

  /// Gives the directory away: the caller has to remove it.
  [[nodiscard]] std::string release() noexcept { return std::exchange(path_, {}); }

  [[nodiscard]] std::string const& path() const noexcept { return path_; }

 private:
  explicit TemporaryDirectory(std::string path) noexcept : path_(std::move(path)) {}

  std::string path_;
};

}  // namespace erofs_oci
