// SPDX-License-Identifier: Apache-2.0
/// @file
/// All fuzz targets of one program, by name.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string_view>

/// What libFuzzer calls with an input; 0 unless it aborts.
using FuzzTarget = int (*)(std::uint8_t const* data, std::size_t size);

/// Defined in the file that fuzz/CMakeLists.txt writes.
[[nodiscard]] std::map<std::string_view, FuzzTarget> const& fuzz_targets();
