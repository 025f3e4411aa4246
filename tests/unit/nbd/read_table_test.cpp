// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/nbd/read_table.hpp>  // first: proves that the header stands alone

#include <vector>

#include <catch.hpp>

namespace erofs_oci::nbd {
namespace read_table_test {

PendingRead read_of(std::size_t socket, EngineId engine = 0) {
  return {.socket = socket, .length = 512, .engine = engine};
}

std::vector<ReadTable::Id> line_of(ReadTable const& table) {
  return {table.line().begin(), table.line().end()};
}

TEST_CASE("A READ waits in the line until an engine has it", "[nbd][table]") {
  ReadTable table;
  auto const first = table.add(read_of(0));
  auto const probe = table.add(read_of(PendingRead::no_socket, 5));
  auto const second = table.add(read_of(0));
  CHECK(line_of(table) == std::vector{first, second});
  table.assign(1, 7);
  CHECK(line_of(table) == std::vector{second});
  CHECK(table.at(first).engine == 7);
  CHECK(table.count_of(7) == 1);
  CHECK(table.count_of(5) == 1);
  CHECK(table.find(99) == nullptr);
  CHECK(table.find(probe)->engine == 5);
  CHECK(table.take(second).length == 512);
  CHECK(line_of(table).empty());
  CHECK(table.size() == 2);
}

TEST_CASE("What an ended engine had goes to the end of the line", "[nbd][table]") {
  ReadTable table;
  auto const had = table.add(read_of(0));
  auto const gone = table.add(read_of(1));
  table.assign(2, 7);
  auto const waits = table.add(read_of(0));
  auto const other = table.add(read_of(0, 8));
  table.forget_socket(1, [](PendingRead const&) { FAIL("an engine may still write to it"); });
  std::size_t ended = 0;
  auto const count = table.take_back(7, EngineEnd::crashed, [&](PendingRead const&) { ++ended; });
  CHECK(count == 1);
  CHECK(ended == 1);
  CHECK(table.find(gone) == nullptr);
  CHECK(line_of(table) == std::vector{waits, had});
  CHECK(table.at(had).crashes == 1);
  CHECK(table.at(waits).crashes == 0);
  CHECK(table.at(other).engine == 8);
  CHECK(table.has_crashes());
  table.assign(2, 9);
  table.take_back(9, EngineEnd::killed, [](PendingRead const&) { FAIL("it has a socket"); });
  CHECK(table.at(had).crashes == 1);
}

TEST_CASE("A socket takes what no engine has along", "[nbd][table]") {
  ReadTable table;
  table.add(read_of(0));
  auto const stays = table.add(read_of(1));
  table.add(read_of(0));
  std::size_t ended = 0;
  table.forget_socket(0, [&](PendingRead const&) { ++ended; });
  CHECK(ended == 2);
  CHECK(line_of(table) == std::vector{stays});
}

}  // namespace read_table_test
}  // namespace erofs_oci::nbd
