// SPDX-License-Identifier: Apache-2.0
// A directory for one test, removed after it with all that is in it.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <system_error>

#include <erofs_oci/posix/temporary_directory.hpp>

namespace erofs_oci::test {

/// A new directory, for its owner only (0700). The destructor removes it with all that is in it.
class Scratch {
 public:
  /// @param parent  absolute; the directory that it is made in
  explicit Scratch(std::filesystem::path const& parent = std::filesystem::temp_directory_path())
      : directory_(TemporaryDirectory::make(parent / "erofs_oci-").value()) {}
  Scratch(Scratch const&) = delete;
  Scratch& operator=(Scratch const&) = delete;
  ~Scratch() {
    std::error_code ignored;
    std::filesystem::remove_all(path(), ignored);
  }

  [[nodiscard]] std::string const& path() const noexcept { return directory_.path(); }
  [[nodiscard]] std::string operator/(std::string_view name) const {
    return path() + "/" + std::string(name);
  }

 private:
  TemporaryDirectory directory_;
};

}  // namespace erofs_oci::test
