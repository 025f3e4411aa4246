// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/core/function_ref.hpp>  // first: proves that the header stands alone

#include <concepts>
#include <memory>

#include <catch.hpp>

namespace erofs_oci {
namespace function_ref_test {

static_assert(!std::constructible_from<FunctionRef<int(int)>, void (*)(char*)>);
static_assert(!std::constructible_from<FunctionRef<int(int)>, int (&)(int)>);
static_assert(!std::constructible_from<FunctionRef<bool()>, decltype([] {})>);

int call(FunctionRef<int(int)> f, int x) {
  return f(x);
}
int twice(int x) {
  return 2 * x;
}

TEST_CASE("FunctionRef calls what it borrows", "[core][function_ref]") {
  auto sum = 0;
  auto counter = [sum](int x) mutable { return sum += x; };

  CHECK(call([](int x) { return x + 1; }, 4) == 5);
  CHECK(call(&twice, 4) == 8);
  CHECK(call(counter, 4) == 4);
  CHECK(call(counter, 4) == 8);
  CHECK(sum == 0);
}

TEST_CASE("a copy of a FunctionRef borrows the same callable", "[core][function_ref]") {
  auto calls = 0;
  auto const count = [&](int) { return ++calls; };
  FunctionRef<int(int)> const first(count);
  auto const second = first;

  first(0);
  second(0);

  CHECK(calls == 2);
}

TEST_CASE("FunctionRef passes arguments that only move", "[core][function_ref]") {
  auto const take = [](std::unique_ptr<int> p) { return *p; };
  FunctionRef<int(std::unique_ptr<int>)> const f(take);

  CHECK(f(std::make_unique<int>(7)) == 7);
}

}  // namespace function_ref_test
}  // namespace erofs_oci
