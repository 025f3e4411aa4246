// SPDX-License-Identifier: Apache-2.0
/// @file
/// Catch2, version 2 or 3. Goes before rapidcheck/catch.h, which includes version 2's header else.
#pragma once

#if __has_include(<catch2/catch_all.hpp>)
#include <catch2/catch_all.hpp>

#include <string>

namespace Catch {

// As version 2 names them.
using Matchers::EndsWith;
using Matchers::StartsWith;

inline auto Contains(std::string const& part) {
  return Matchers::ContainsSubstring(part);
}

}  // namespace Catch
#else
#include <catch2/catch.hpp>
#endif
