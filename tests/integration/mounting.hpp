// SPDX-License-Identifier: Apache-2.0
/// @file
/// What the tests that mount with the running kernel share. All mounts are in a mount namespace of
/// the test's own and vanish with it.
#pragma once

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include <fcntl.h>
#include <linux/loop.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <unistd.h>

#include <scratch.hpp>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/fd.hpp>

namespace erofs_oci::mounting {

/// Lets go of what other tests have mounted, which a new namespace has a copy of: it would keep
/// their file systems alive, and be counted as this test's.
inline void leave_mounts_of_others() {
  std::ifstream table("/proc/self/mounts");
  std::vector<std::string> targets;
  for (std::string line; std::getline(table, line);) {
    std::istringstream words(line);
    std::string source, target, type;
    words >> source >> target >> type;
    if (type == "erofs" || type == "fuse.erofs_oci") targets.push_back(target);
  }
  for (auto const& target : targets) ::umount2(target.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW);
}

/// From here on mounts are this process's own. Yields why not; empty if so.
inline std::string own_mounts() {
  if (::unshare(CLONE_NEWNS) != 0) return "skipped: no mount namespace of our own";
  if (::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) {
    return "skipped: cannot make mounts private";
  }
  leave_mounts_of_others();
  return {};
}

/// Why there is nothing to test here; empty if there is.
inline std::string why_no_mounts() {
  if (::geteuid() != 0) return "skipped: not root";
  std::ifstream file("/proc/filesystems");
  std::stringstream text;
  text << file.rdbuf();
  if (text.str().find("\terofs\n") == std::string::npos) return "skipped: no EROFS in this kernel";
  return own_mounts();
}

/// A folder for one test, removed with it. On the disk: the kernel mounts no file of a tmpfs.
class Folder {
 public:
  Folder() { std::filesystem::create_directory(mount_point()); }
  ~Folder() { unmount(); }
  Folder(Folder const&) = delete;
  Folder& operator=(Folder const&) = delete;

  [[nodiscard]] std::string mount_point() const { return scratch_ / "mnt"; }

  std::string write(std::string const& name, std::vector<Bytes const*> const& parts) const {
    auto const path = scratch_ / name;
    std::ofstream file(path, std::ios::binary);
    for (auto const* const part : parts) {
      auto const text = as_text(*part);
      file.write(text.data(), static_cast<std::streamsize>(text.size()));
    }
    return path;
  }

  void unmount() const { ::umount2(mount_point().c_str(), MNT_DETACH); }

 private:
  test::Scratch scratch_{"/var/tmp"};
};

inline int mount_erofs(std::string const& source, std::string const& target,
                       std::string const& options) {
  return ::mount(source.c_str(), target.c_str(), "erofs", MS_RDONLY, options.c_str()) == 0 ? 0
                                                                                           : errno;
}

/// A loop device over a file; the kernel frees it when it is neither open nor mounted.
inline UniqueFd loop_over(std::string const& file, std::string& path) {
  UniqueFd const control(::open("/dev/loop-control", O_RDWR | O_CLOEXEC));
  UniqueFd const backing(::open(file.c_str(), O_RDONLY | O_CLOEXEC));
  for (int attempt = 0; control && backing && attempt < 20; ++attempt) {
    auto const number = ::ioctl(control.get(), LOOP_CTL_GET_FREE);
    if (number < 0) break;
    path = "/dev/loop" + std::to_string(number);
    UniqueFd device(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    loop_config config{};
    config.fd = static_cast<__u32>(backing.get());
    config.info.lo_flags = LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR;
    if (device && ::ioctl(device.get(), LOOP_CONFIGURE, &config) == 0) return device;
  }
  return UniqueFd();
}

}  // namespace erofs_oci::mounting
