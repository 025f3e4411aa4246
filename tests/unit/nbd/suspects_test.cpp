// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/nbd/suspects.hpp>  // first: proves that the header stands alone

#include <catch.hpp>

namespace erofs_oci::nbd {
namespace suspects_test {

/// The first of the line has crashed so many engines.
ReadTable table_with_suspect(unsigned crashes, std::size_t others) {
  ReadTable table;
  table.add({.socket = 0, .length = 1});
  for (unsigned i = 0; i < crashes; ++i) {
    table.assign(1, 1);
    table.take_back(1, EngineEnd::crashed, [](PendingRead const&) {});
  }
  for (std::size_t i = 0; i < others; ++i) table.add({.socket = 0, .length = 2});
  return table;
}

TEST_CASE("Without crashes an engine may get the whole line", "[nbd][suspects]") {
  auto table = table_with_suspect(0, 3);
  CHECK(Suspects(2, 3).may_send(table, 1) == 4);
  table = table_with_suspect(1, 3);
  CHECK(Suspects(2, 3).may_send(table, 1) == 4);
}

TEST_CASE("A suspect is given first, alone, and to an engine that has nothing else",
          "[nbd][suspects]") {
  Suspects const suspects(2, 3);
  auto table = table_with_suspect(2, 3);
  table.prefer(2);
  CHECK(suspects.may_send(table, 1) == 1);
  CHECK(suspects.is_one(table.at(table.line().front())));
  table.assign(1, 1);
  CHECK(suspects.may_send(table, 1) == 0);
  CHECK(suspects.may_send(table, 2) == 3);
  auto busy = table_with_suspect(2, 3);
  busy.prefer(1);
  busy.assign(1, 1);
  CHECK(suspects.may_send(busy, 1) == 0);
}

TEST_CASE("After more crashes no engine gets it", "[nbd][suspects]") {
  auto const before = table_with_suspect(4, 1);
  auto const after = table_with_suspect(5, 1);
  CHECK(Suspects(2, 3).crasher(before) == std::nullopt);
  CHECK(Suspects(2, 3).crasher(after) == ReadTable::Id{1});
  CHECK(Suspects(0, 0).crasher(table_with_suspect(1, 1)) == std::nullopt);  // 1 and 1
  CHECK(Suspects(0, 0).crasher(table_with_suspect(2, 1)) == ReadTable::Id{1});
}

}  // namespace suspects_test
}  // namespace erofs_oci::nbd
