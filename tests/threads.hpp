// SPDX-License-Identifier: Apache-2.0
/// @file
/// How many threads a test has.
#pragma once

#include <chrono>
#include <cstddef>
#include <filesystem>
#include <iterator>
#include <thread>

#include <erofs_oci/posix/wait.hpp>

namespace erofs_oci::testing {

/// Those of this process now. A sanitizer starts one of its own with the first one.
inline std::ptrdiff_t threads() {
  std::thread([] {}).join();
  namespace fs = std::filesystem;
  return std::distance(fs::directory_iterator("/proc/self/task"), fs::directory_iterator());
}

/// Whether no more than these are left: the kernel shows one that has been joined a moment longer.
inline bool are_left(std::ptrdiff_t count) {
  return wait_for(std::chrono::seconds(10), [&] { return threads() == count; });
}

}  // namespace erofs_oci::testing
