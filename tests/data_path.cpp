// SPDX-License-Identifier: Apache-2.0
#include "data_path.hpp"

#include <cstdlib>

namespace erofs_oci {

std::string test_data(std::string_view path) {
  return std::string(EROFS_OCI_TEST_DATA).append(path);
}

std::string fixtures(std::string_view path) {
  auto const* const named = std::getenv("EROFS_OCI_FIXTURES");
  return std::string(named != nullptr ? named : EROFS_OCI_FIXTURES).append(path);
}

}  // namespace erofs_oci
