// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/all.hpp>

#include <string>

std::string version_seen_by_b();
std::string version_seen_by_b() {
  return erofs_oci::version;
}
