// SPDX-License-Identifier: Apache-2.0
/// @file
/// run_to_end(): a program, what it is given and what it says.
#pragma once

#include <chrono>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include <erofs_oci/core/result.hpp>

namespace oci_snapshotter {

/// How a program has ended, and what it has written.
struct ProgramOutcome {
  int status = 0;  ///< 128 + the signal's number if a signal ended it
  std::string output{};
  std::string errors{};
};

/// What a program gets beside its arguments.
struct ProgramInput {
  std::string_view text{};               ///< at its standard input
  std::vector<std::string> variables{};  ///< "NAME=VALUE", set beside our environment
  std::chrono::steady_clock::time_point deadline = std::chrono::steady_clock::time_point::max();
};

/// Runs a program that PATH finds, until it ends, and kills it with the deadline or the stop.
/// Processes that it leaves behind may keep its output; they are not waited for.
/// @param words  the program's name and its arguments; not empty
/// @error{Errc::timed_out and Errc::stopping}
/// @error{std::errc::file_too_large, it writes more than 16 MiB}
/// @error{an errno, as posix_spawnp(3) and memfd_create(2)}
[[nodiscard]] erofs_oci::Result<ProgramOutcome> run_to_end(std::vector<std::string> words,
                                                           ProgramInput const& input,
                                                           std::stop_token const& stop);

/// What a program has printed.
/// @param what  was run, for a program that does not say why it has failed
/// @error{std::errc::io_error, its status is not 0; the text is the last line of its errors}
[[nodiscard]] erofs_oci::Result<std::string> output_of(ProgramOutcome outcome,
                                                       std::string const& what);

}  // namespace oci_snapshotter
