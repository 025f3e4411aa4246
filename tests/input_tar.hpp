// SPDX-License-Identifier: Apache-2.0
/// @file
/// The tars that the tests of indexes are about.
#pragma once

#include <cstddef>
#include <string>

#include <catch.hpp>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/source.hpp>
#include <erofs_oci/source/local.hpp>

#include "data_path.hpp"

namespace erofs_oci {

/// @param name  of a file of tests/data/tarindex/in, without ".tar"
inline Bytes input_tar(std::string const& name) {
  auto const file = Local::open(test_data("/tarindex/in/") + name + ".tar");
  REQUIRE(file.has_value());
  Bytes bytes(static_cast<std::size_t>(file->size()));
  REQUIRE(read_exact(*file, 0, bytes).has_value());
  return bytes;
}

}  // namespace erofs_oci
