// SPDX-License-Identifier: Apache-2.0
#include "data_path.hpp"

namespace erofs_oci {

std::string test_data(std::string_view path) {
  return std::string(EROFS_OCI_TEST_DATA).append(path);
}

std::string fixtures(std::string_view path) {
  return std::string(EROFS_OCI_FIXTURES).append(path);
}

}  // namespace erofs_oci
