// SPDX-License-Identifier: Apache-2.0
/// @file
/// One run: an image, its servers, a disk, workers that die, and a client that reads.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <string>

#include "coverage.hpp"

namespace simulation {

/// What all runs did together.
struct Totals {
  Coverage coverage;
  std::uint64_t reads = 0;                           ///< answered with bytes
  std::uint64_t errors = 0;                          ///< answered with an error
  std::uint64_t workers = 0;                         ///< started
  std::uint64_t taken_over = 0;                      ///< reads that a worker left to the next
  std::uint64_t switches = 0;                        ///< from thread to thread
  double seconds = 0;                                ///< of virtual time
  double longest_read = 0;                           ///< of a worker, in parts of its deadline
  std::map<std::string, std::uint64_t> error_codes;  ///< that reads and openings ended in
};

/// What one run came to.
struct Outcome {
  std::string failure;      ///< empty: every property held
  std::uint64_t trace = 0;  ///< a digest of all that happened, in order
};

/// Runs one seed.
/// @param directory  an empty one for the store; empty again afterwards
/// @param print      told of each step; may be empty
/// @param on_stuck   called with the reason if no thread can run; must end the program
[[nodiscard]] Outcome run_seed(std::uint64_t seed, Totals& totals, std::string const& directory,
                               std::function<void(std::string const&)> print,
                               std::function<void(std::string const&)> on_stuck);

}  // namespace simulation
