// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/nbd/buffer_pool.hpp>  // first: proves that the header stands alone

#include <catch.hpp>

namespace erofs_oci::nbd {
namespace buffer_pool_test {

TEST_CASE("BufferPool hands out again what it was given", "[nbd][buffer_pool]") {
  BufferPool pool;
  auto buffer = pool.take(100'000);
  auto* const where = buffer.first(1).data();
  pool.give(std::move(buffer));

  auto const again = pool.take(90'000);

  CHECK(again.first(1).data() == where);
  CHECK(again.capacity() >= 100'000);
}

TEST_CASE("BufferPool never hands out less than was asked for", "[nbd][buffer_pool]") {
  BufferPool pool;
  pool.give(pool.take(10));

  CHECK(pool.take(10'000).capacity() >= 10'000);
}

TEST_CASE("BufferPool keeps no more than its bound", "[nbd][buffer_pool]") {
  BufferPool pool(8192);
  auto one = pool.take(8192);
  auto two = pool.take(8192);
  auto* const kept = one.first(1).data();
  pool.give(std::move(one));
  pool.give(std::move(two));

  CHECK(pool.take(1).first(1).data() == kept);
  CHECK(pool.take(8192).capacity() == 8192);
}

}  // namespace buffer_pool_test
}  // namespace erofs_oci::nbd
