// SPDX-License-Identifier: Apache-2.0
// Writes the documents of mount-oci into a directory; run by the build.
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>

#include "documents.hpp"

namespace {

namespace fs = std::filesystem;

bool write(fs::path const& file, std::string const& text) {
  std::ofstream stream(file, std::ios::binary | std::ios::trunc);
  stream << text;
  stream.close();
  if (!stream) std::fprintf(stderr, "%s cannot be written\n", file.c_str());
  return !stream.fail();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fprintf(stderr, "usage: %s DIR YYYY-MM-DD VERSION\n", argv[0]);
    return 1;
  }
  fs::path const directory = argv[1];
  std::error_code ignored;
  fs::remove_all(directory / "man", ignored);
  auto good = true;
  for (auto const& page : mount_oci::manual_pages()) {
    auto const section = std::to_string(page.section);
    auto const folder = directory / "man" / ("man" + section);
    fs::create_directories(folder);
    good = good &&
           write(folder / (page.name + "." + section), mount_oci::man_page(page, argv[2], argv[3]));
  }
  good = good && write(directory / "mount-oci.bash", mount_oci::bash_completion());
  good = good && write(directory / "_mount-oci", mount_oci::zsh_completion());
  good = good && write(directory / "mount-oci.fish", mount_oci::fish_completion());
  good = good && write(directory / "mount-oci.conf", mount_oci::config_example());
  return good ? 0 : 1;
}
