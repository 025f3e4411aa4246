// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/core/memory_budget.hpp>  // first: proves that the header stands alone

#include <cstdint>
#include <string>

#include <catch.hpp>

namespace erofs_oci {
namespace memory_budget_test {

constexpr MemoryBudget budget{64 << 20};

TEST_CASE("The parts of a budget that take memory at the same time are not more than all of it",
          "[core][memory_budget]") {
  for (auto const bytes :
       {std::uint64_t{64} << 20, std::uint64_t{512} << 20, std::uint64_t{1} << 41}) {
    MemoryBudget const some{bytes};
    CHECK(some.trees() + some.windows() <= bytes);
    CHECK(some.small_trees() < some.trees());
    CHECK(some.cache() + some.windows() <= bytes);
  }
}

TEST_CASE("Files of short layers may take little, those of long ones half of the budget",
          "[core][memory_budget][error]") {
  ImageMemory memory(budget);
  CHECK(memory.take_tree(budget.small_trees()));
  auto const made_up = memory.take_tree(ImageMemory::tree_bytes_per_byte);
  REQUIRE_FALSE(made_up);
  CHECK(made_up.error().code == Errc::unsupported);
  CHECK(made_up.error().context.find("oci.memory") != std::string::npos);

  memory.came(1000);
  CHECK(memory.take_tree(900 * ImageMemory::tree_bytes_per_byte));
  CHECK_FALSE(memory.take_tree(200 * ImageMemory::tree_bytes_per_byte));

  ImageMemory long_layers(budget, std::uint64_t{1} << 40);
  CHECK(long_layers.take_tree(budget.trees() - 1));
  CHECK(long_layers.take_tree(1));
  auto const too_many = long_layers.take_tree(1);
  REQUIRE_FALSE(too_many);
  CHECK(too_many.error().context.find("more than 32 MiB") != std::string::npos);
}

TEST_CASE("Indexes may take a quarter of the budget", "[core][memory_budget][error]") {
  ImageMemory memory(budget);
  CHECK(memory.take_windows(budget.windows()));
  CHECK(memory.take_windows(1).error().code == Errc::unsupported);
}

}  // namespace memory_budget_test
}  // namespace erofs_oci
