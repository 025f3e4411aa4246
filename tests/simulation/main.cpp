// SPDX-License-Identifier: Apache-2.0
/// @file
/// Simulates the whole stack, one run a seed; see run.hpp. Fails if a property does not hold, if a
/// seed does not run twice in the same way, or if a kind of fault never occurs or has no effect.
///
/// usage: test-simulation [--seeds FROM COUNT]    default: 0 2000
///        test-simulation --seed N [--verbose]    one run, without a look at what occurred
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>

#include <erofs_oci/core/text.hpp>
#include <erofs_oci/posix/temporary_directory.hpp>

#include "run.hpp"

namespace {

using namespace simulation;

char const* program = "";
std::uint64_t present_seed = 0;

void report(std::string const& why) {
  std::printf("seed %llu: %s\nreplay: %s --seed %llu --verbose\n",
              static_cast<unsigned long long>(present_seed), why.c_str(), program,
              static_cast<unsigned long long>(present_seed));
  std::fflush(stdout);
}

[[noreturn]] void stuck(std::string const& why) {
  report(why);
  std::_Exit(1);
}

void print(std::string const& line) {
  std::printf("%s\n", line.c_str());
}

// Whether each kind occurred and had an effect.
bool show(Totals& totals) {
  bool all = true;
  std::printf("%-24s %10s %10s\n", "fault", "occurred", "effects");
  for (std::size_t i = 1; i < totals.coverage.counts.size(); ++i) {
    auto const& one = totals.coverage.counts[i];
    bool const missing = one.occurred == 0 || one.effects == 0;
    std::printf("%-24s %10llu %10llu%s\n", std::string(fault_names[i]).c_str(),
                static_cast<unsigned long long>(one.occurred),
                static_cast<unsigned long long>(one.effects), missing ? "  MISSING" : "");
    all = all && !missing;
  }
  for (auto const& [code, count] : totals.error_codes) {
    std::printf("error \"%s\": %llu\n", code.c_str(), static_cast<unsigned long long>(count));
  }
  std::printf(
      "%llu reads and %llu errors of %llu workers, %llu reads taken over, %llu switches, "
      "%.0f s of virtual time, longest read %.3f of its deadline\n",
      static_cast<unsigned long long>(totals.reads), static_cast<unsigned long long>(totals.errors),
      static_cast<unsigned long long>(totals.workers),
      static_cast<unsigned long long>(totals.taken_over),
      static_cast<unsigned long long>(totals.switches), totals.seconds, totals.longest_read);
  return all;
}

struct Arguments {
  std::uint64_t from = 0;
  std::uint64_t count = 2000;
  bool one = false;
  bool verbose = false;
};

bool parse(int argc, char** argv, Arguments& arguments) {
  for (int i = 1; i < argc; ++i) {
    auto const number = [&](std::uint64_t& to) {
      auto const value =
          i + 1 < argc ? erofs_oci::whole_number<std::uint64_t>(argv[++i]) : std::nullopt;
      if (value) to = *value;
      return value.has_value();
    };
    auto const is = [&](char const* name) { return std::strcmp(argv[i], name) == 0; };
    if (is("--verbose")) {
      arguments.verbose = true;
    } else if (is("--seed")) {
      arguments.one = true;
      arguments.count = 1;
      if (!number(arguments.from)) return false;
    } else if (!is("--seeds") || !number(arguments.from) || !number(arguments.count)) {
      return false;
    }
  }
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  program = argv[0];
  Arguments arguments;
  if (!parse(argc, argv, arguments)) {
    std::fprintf(stderr, "usage: %s [--seeds FROM COUNT | --seed N [--verbose]]\n", program);
    return 2;
  }
  // In memory: a real disk's time is none of the simulation's.
  auto const* const place = std::filesystem::is_directory("/dev/shm") ? "/dev/shm/" : "/tmp/";
  auto const directory =
      erofs_oci::TemporaryDirectory::make(std::string(place) + "erofs-oci-simulation-");
  if (!directory) return std::fprintf(stderr, "%s\n", directory.error().message().c_str()), 1;

  constexpr std::uint64_t run_twice_one_in = 50;
  Totals totals;
  int failures = 0;
  for (auto& seed = present_seed = arguments.from; seed - arguments.from < arguments.count;
       ++seed) {
    auto const out = arguments.verbose ? print : nullptr;
    auto const outcome = run_seed(seed, totals, directory->path(), out, stuck);
    if (!outcome.failure.empty()) {
      report(outcome.failure);
      if (++failures == 10) break;
    } else if (arguments.one || seed % run_twice_one_in == 0) {
      Totals ignored;
      auto const again = run_seed(seed, ignored, directory->path(), out, stuck);
      if (again.trace != outcome.trace) {
        report("the same seed has run in another way");
        if (++failures == 10) break;
      }
    }
  }
  bool const covered = show(totals) || arguments.one;
  if (!covered) std::printf("a kind of fault has not occurred, or had no effect\n");
  return failures == 0 && covered ? 0 : 1;
}
