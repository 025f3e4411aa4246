// SPDX-License-Identifier: Apache-2.0
/// @file
/// Runs a fuzz target once on every file of the folders that are named: what a fuzzer found before
/// stays found, without libFuzzer.
///
/// usage: replay-targets TARGET FOLDER...
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <vector>

#include "targets.hpp"

namespace {

/// The regular files of `folder`, in the order of their names.
std::vector<std::filesystem::path> inputs_in(std::filesystem::path const& folder) {
  std::vector<std::filesystem::path> found;
  std::error_code error;
  for (auto const& entry : std::filesystem::directory_iterator(folder, error)) {
    if (entry.is_regular_file()) found.push_back(entry.path());
  }
  std::ranges::sort(found);
  return found;
}

}  // namespace

int main(int count, char** arguments) {
  auto const target = fuzz_targets().find(count > 1 ? arguments[1] : "");
  if (target == fuzz_targets().end()) {
    std::fprintf(stderr, "usage: %s TARGET FOLDER...\n", arguments[0]);
    return 2;
  }
  std::size_t run = 0;
  for (int i = 2; i < count; ++i) {
    for (auto const& path : inputs_in(arguments[i])) {
      std::ifstream file(path, std::ios::binary);
      std::vector<char> const raw((std::istreambuf_iterator<char>(file)), {});
      std::vector<std::uint8_t> const bytes(raw.begin(), raw.end());
      std::printf("%s\n", path.c_str());  // before it runs: the last line names the culprit
      std::fflush(stdout);
      target->second(bytes.data(), bytes.size());
      ++run;
    }
  }
  if (run == 0) std::fprintf(stderr, "no input to replay\n");
  return run == 0 ? 1 : 0;
}
