// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/all.hpp>  // here and in b.cpp: whatever is not inline is defined twice

#include <cstdio>
#include <string>

std::string version_seen_by_b();

int main() {
  auto const from_numbers = std::to_string(EROFS_OCI_VERSION_MAJOR) + "." +
                            std::to_string(EROFS_OCI_VERSION_MINOR) + "." +
                            std::to_string(EROFS_OCI_VERSION_PATCH);
  for (auto const& seen : {from_numbers, std::string(erofs_oci::version), version_seen_by_b()}) {
    if (seen == EROFS_OCI_PROJECT_VERSION) continue;
    std::fprintf(stderr, "version.hpp says %s, CMakeLists.txt says %s\n", seen.c_str(),
                 EROFS_OCI_PROJECT_VERSION);
    return 1;
  }
}
