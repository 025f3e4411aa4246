// SPDX-License-Identifier: Apache-2.0
/// @file
/// Where the tests' input files are. The paths are compiled into data_path.cpp alone, so that the
/// objects of the tests are the same in every checkout and a compiler cache serves them all.
#pragma once

#include <string>
#include <string_view>

namespace erofs_oci {

/// @param path  begins with a slash; below tests/data
[[nodiscard]] std::string test_data(std::string_view path);

/// @param path  begins with a slash; below the folder of large inputs, which may be missing
[[nodiscard]] std::string fixtures(std::string_view path);

}  // namespace erofs_oci
