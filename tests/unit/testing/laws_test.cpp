// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/testing/laws.hpp>  // first: proves that the header stands alone

#include <catch.hpp>
#include <rapidcheck/catch.h>

#include <erofs_oci/source/memory.hpp>
#include <erofs_oci/testing/archetype.hpp>
#include <erofs_oci/testing/flaky.hpp>

namespace erofs_oci {
namespace laws_test {

using testing::Archetype;
using testing::Flaky;
using testing::Tear;
using testing::Torn;

/// Whether the property fails, as it must, without failing the test that asks.
template <class Property>
bool is_caught(Property&& property) {
  return rc::detail::checkTestable(std::forward<Property>(property))
      .template is<rc::detail::FailureResult>();
}

TEST_CASE("Memory and the archetype obey the laws", "[testing][laws][property]") {
  rc::prop("for all bytes", [] {
    auto const bytes = *testing::any_bytes();

    testing::obeys_laws(AnySource(Memory(bytes)), bytes);
    testing::obeys_laws(AnySource(Archetype(bytes)), bytes);
  });
  rc::prop("for all bytes, from several threads", [] {
    auto const bytes = *testing::any_bytes();

    testing::obeys_laws_concurrently(AnySource(Archetype(bytes)), bytes, 3);
  });
}

TEST_CASE("the laws catch every torn source", "[testing][laws][property]") {
  auto const tear = GENERATE(Tear::short_read, Tear::short_at_cut, Tear::invented_end,
                             Tear::error_at_end, Tear::wraps_around, Tear::unwritten,
                             Tear::second_differs, Tear::long_differs, Tear::stream_shifts,
                             Tear::stream_repeats, Tear::stream_deaf, Tear::stream_stop_error);
  CAPTURE(static_cast<int>(tear));

  CHECK(is_caught([tear] {
    auto const bytes = *testing::any_bytes();
    testing::obeys_laws(AnySource(Torn(Memory(bytes), tear)), bytes);
  }));
}

TEST_CASE("the laws catch a source that is not its oracle", "[testing][laws][property]") {
  CHECK(is_caught([] {
    auto const bytes = *testing::any_bytes();
    auto longer = bytes;
    longer.push_back(std::byte{});
    testing::obeys_laws(AnySource(Memory(bytes)), longer);
  }));
  CHECK(is_caught([] {
    auto const bytes = *testing::any_bytes();
    testing::obeys_laws(AnySource(Flaky(Memory(bytes), {.first = 7})), bytes);
  }));
  CHECK(is_caught([] {
    auto const bytes = *testing::any_bytes();
    testing::obeys_laws_concurrently(AnySource(Torn(Memory(bytes), Tear::long_differs)), bytes);
  }));
}

}  // namespace laws_test
}  // namespace erofs_oci
