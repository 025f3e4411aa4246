// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/combinator/chunk_table.hpp>  // first: proves that the header stands alone

#include <thread>

#include <catch.hpp>

namespace erofs_oci {
namespace chunk_table_test {

using namespace std::chrono_literals;

auto soon() {
  return std::chrono::steady_clock::now() + 20ms;
}
auto late() {
  return std::chrono::steady_clock::now() + 20s;
}

TEST_CASE("GrowingChunk gives what is there and waits for the rest", "[combinator][chunk_table]") {
  GrowingChunk chunk(6);
  chunk.append(as_bytes("abc"));

  CHECK(as_text(chunk.wait_for(1, 6, soon()).value()) == "bc");
  CHECK(chunk.wait_for(3, 6, soon()).error().code == Errc::timed_out);
  CHECK(chunk.missing() == 3);

  std::jthread const filler([&] { chunk.append(as_bytes("def")); });
  CHECK(as_text(chunk.wait_for(3, 5, late()).value()) == "de");
}

TEST_CASE("GrowingChunk still gives what came before its error", "[combinator][chunk_table]") {
  GrowingChunk chunk(6);
  chunk.append(as_bytes("abc"));
  chunk.fail_with({make_error_code(Errc::corrupt), "broken", {}});

  CHECK(as_text(chunk.wait_for(0, 6, soon()).value()) == "abc");
  CHECK(chunk.wait_for(3, 6, late()).error().code == Errc::corrupt);
}

TEST_CASE("ChunkTable lets one caller claim a chunk", "[combinator][chunk_table]") {
  ChunkTable<Lru> table(100, {});

  auto const first = table.find(7, 10);
  auto const second = table.find(7, 10);

  CHECK(first.claimed);
  CHECK_FALSE(second.claimed);
  CHECK(first.chunk == second.chunk);
}

TEST_CASE("ChunkTable forgets an abandoned chunk and gives its error to waiting readers",
          "[combinator][chunk_table]") {
  ChunkTable<Lru> table(100, {});
  auto const first = table.find(7, 10);
  table.abandon(7, {make_error_code(Errc::corrupt), "broken", {}});

  CHECK(first.chunk->wait_for(0, 10, late()).error().code == Errc::corrupt);
  CHECK(table.find(7, 10).claimed);
}

TEST_CASE("ChunkTable does not forget a chunk that it keeps", "[combinator][chunk_table]") {
  ChunkTable<Lru> table(100, {});
  static_cast<void>(table.find(7, 10));
  table.keep(7);

  table.abandon(7, {make_error_code(Errc::corrupt), "broken", {}});

  CHECK_FALSE(table.find(7, 10).claimed);
  CHECK(table.stats().bytes == 10);
}

TEST_CASE("ChunkTable claims the next chunk unless someone else has it",
          "[combinator][chunk_table]") {
  ChunkTable<Lru> table(100, {});
  static_cast<void>(table.find(0, 10));
  CHECK(table.missing_run(0, 5) == 6);
  CHECK(table.keep_and_claim_next(0, 10) != nullptr);
  static_cast<void>(table.find(2, 10));
  CHECK(table.missing_run(1, 5) == 1);

  CHECK(table.keep_and_claim_next(1, 10) == nullptr);
}

TEST_CASE("ChunkTable holds no more than its capacity", "[combinator][chunk_table]") {
  ChunkTable<Lru> table(29, {});
  for (std::uint64_t i = 0; i < 3; ++i) {
    static_cast<void>(table.find(i, 10));
    table.keep(i);
  }
  static_cast<void>(table.find(9, 30));
  table.keep(9);

  auto const stats = table.stats();
  CHECK(stats.bytes == 20);
  CHECK(stats.chunks == 2);
  CHECK(stats.evictions == 1);
  CHECK(table.find(0, 10).claimed);
  CHECK(table.find(9, 30).claimed);
  CHECK_FALSE(table.find(1, 10).claimed);
}

TEST_CASE("ChunkTable keeps a chunk as large as its capacity", "[combinator][chunk_table]") {
  ChunkTable<Lru> table(30, {});
  static_cast<void>(table.find(0, 30));
  table.keep(0);

  CHECK(table.stats().bytes == 30);
  CHECK_FALSE(table.find(0, 30).claimed);
}

}  // namespace chunk_table_test
}  // namespace erofs_oci
