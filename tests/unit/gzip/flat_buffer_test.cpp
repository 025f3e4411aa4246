// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/gzip/detail/flat_buffer.hpp>  // first: proves that the header stands alone

#include <limits>
#include <string>
#include <vector>

#include <catch.hpp>
#include <rapidcheck/catch.h>

#include <erofs_oci/testing/flat_writer.hpp>

namespace erofs_oci {
namespace flat_buffer_test {

using testing::FlatWriter;
using V = testing::FlatValue;

/// Reads all that a tree has, field by field, and compares.
void check_table(FlatTable const& table, V const& expected);

void check_list(FlatList const& list, V const& expected) {
  REQUIRE(list.size() == expected.parts.size());
  for (std::size_t i = 0; i < list.size(); ++i) {
    auto const& part = expected.parts[i];
    if (part.kind == V::Kind::table) {
      check_table(list.table(i), part);
    } else {
      REQUIRE(list.text(i) == as_text(part.content));
    }
  }
}

template <class T>
void check_number(FlatTable const& table, unsigned field, std::uint64_t expected) {
  REQUIRE(table.number<T>(field, 99) == static_cast<T>(expected));
}

void check_table(FlatTable const& table, V const& expected) {
  for (unsigned i = 0; i < expected.parts.size(); ++i) {
    auto const& part = expected.parts[i];
    switch (part.kind) {
      case V::Kind::absent:
        REQUIRE(table.number<std::uint32_t>(i, 99) == 99);
        REQUIRE(table.text(i).empty());
        REQUIRE(table.list(i).size() == 0);
        REQUIRE(table.table(i).text(0).empty());
        break;
      case V::Kind::number:
        if (part.width == 1) check_number<std::int8_t>(table, i, part.number);
        if (part.width == 2) check_number<std::uint16_t>(table, i, part.number);
        if (part.width == 4) check_number<std::uint32_t>(table, i, part.number);
        if (part.width == 8) check_number<std::int64_t>(table, i, part.number);
        break;
      case V::Kind::text: REQUIRE(table.text(i) == as_text(part.content)); break;
      case V::Kind::bytes: REQUIRE(to_bytes(table.bytes(i)) == part.content); break;
      case V::Kind::list: check_list(table.list(i), part); break;
      case V::Kind::table: check_table(table.table(i), part); break;
    }
  }
  REQUIRE(table.number<std::uint32_t>(static_cast<unsigned>(expected.parts.size()), 99) == 99);
}

rc::Gen<V> any_table(int depth);

rc::Gen<V> any_field(int depth) {
  return rc::gen::exec([depth] {
    switch (*rc::gen::inRange(0, depth > 0 ? 9 : 7)) {
      case 0: return V{};
      case 1: return V::of(*rc::gen::arbitrary<std::int8_t>());
      case 2: return V::of(*rc::gen::arbitrary<std::uint16_t>());
      case 3: return V::of(*rc::gen::arbitrary<std::uint32_t>());
      case 4: return V::of(*rc::gen::arbitrary<std::int64_t>());
      case 5: return V::text(*rc::gen::arbitrary<std::string>());
      case 6: return V::bytes(as_bytes(*rc::gen::arbitrary<std::string>()));
      case 7: return *any_table(depth - 1);
      default:
        return V::list(*rc::gen::container<std::vector<V>>(*rc::gen::inRange<std::size_t>(0, 4),
                                                           any_table(depth - 1)));
    }
  });
}

rc::Gen<V> any_table(int depth) {
  return rc::gen::map(rc::gen::mapcat(rc::gen::inRange<std::size_t>(0, 6),
                                      [depth](std::size_t n) {
                                        return rc::gen::container<std::vector<V>>(n,
                                                                                  any_field(depth));
                                      }),
                      [](std::vector<V> fields) { return V::table(std::move(fields)); });
}

TEST_CASE("FlatBuffer reads what was written", "[gzip][flat_buffer][property]") {
  rc::prop("for all trees of tables, lists, texts and numbers", [] {
    auto const tree = *any_table(3);
    auto bytes = FlatWriter::write(tree);
    bytes.resize(bytes.size() + *rc::gen::inRange<std::size_t>(0, 20));

    FlatBuffer buffer(bytes);
    check_table(buffer.root(), tree);

    RC_ASSERT(buffer.status().has_value());
  });
}

/// Offsets as in the picture of the format: the root's vtable at 8, its table at 16.
Bytes small() {
  return FlatWriter::write(V::table({V::of(std::uint32_t{7}), V::text("abc")}));
}

TEST_CASE("FlatBuffer refuses what leaves the message", "[gzip][flat_buffer][error]") {
  REQUIRE(small().size() == 40);
  struct Case {
    std::size_t offset;
    std::uint32_t value;
    std::size_t width;
    std::string why;
  };
  auto const cases = std::vector<Case>{
      {0, 37, 4, "table lies outside"},   {0, 0xffffffff, 4, "table lies outside"},
      {16, 17, 4, "vtable lies outside"}, {16, 0x80000000, 4, "vtable lies outside"},
      {8, 3, 2, "vtable's size"},         {8, 33, 2, "vtable's size"},
      {10, 3, 2, "table's size"},         {10, 25, 2, "table's size"},
      {12, 3, 2, "outside of its table"}, {12, 9, 2, "outside of its table"},
      {24 - 4, 21, 4, "vector lies"},     {32, 5, 4, "vector ends"},
      {32, 0xffffffff, 4, "vector ends"},
  };
  for (auto const& [offset, value, width, why] : cases) {
    auto bytes = small();
    if (why.starts_with("vector lies")) {
      for (std::size_t i = 0; i < 4; ++i) bytes[24 + i] = std::byte(i == 0 ? 13 : 0);
    } else {
      for (std::size_t i = 0; i < width; ++i) bytes[offset + i] = std::byte(value >> 8 * i & 0xff);
    }
    INFO(why << " at " << offset);

    FlatBuffer buffer(bytes);
    auto const root = buffer.root();
    auto const number = root.number<std::uint32_t>(0);
    auto const text = root.text(1);

    CHECK((number == 7 || number == 0));
    CHECK((text == "abc" || text.empty()));
    auto const status = buffer.status();
    REQUIRE_FALSE(status.has_value());
    CHECK(status.error().code == Errc::corrupt);
    CHECK_THAT(status.error().context, Catch::Contains(why));
  }
}

TEST_CASE("FlatBuffer ends when parts are shared", "[gzip][flat_buffer][error]") {
  // a list of a thousand references to one text of a thousand bytes
  auto bytes = FlatWriter::write(
      V::table({V::list(std::vector<V>(1000, V::text(""))), V::text(std::string(1000, 'x'))}));
  std::size_t text = 0;
  for (std::size_t i = 0; i + 4 <= bytes.size(); i += 4) {
    if (load_le<std::uint32_t>(std::span(std::as_const(bytes)).subspan(i).first<4>()) == 1000) {
      text = i;  // the last one: the text's length
    }
  }
  FlatBuffer whole(bytes);
  auto const root = whole.root();
  REQUIRE(root.text(1).size() == 1000);
  std::size_t first = 0;
  {
    FlatBuffer probe(bytes);
    REQUIRE(probe.root().list(0).size() == 1000);
    for (std::size_t i = 0; i + 4 <= bytes.size() && first == 0; i += 4) {
      if (load_le<std::uint32_t>(std::span(std::as_const(bytes)).subspan(i).first<4>()) == 1000) {
        first = i + 4;
      }
    }
  }
  for (std::size_t i = 0; i < 1000; ++i) {
    auto const at = first + 4 * i;
    store_le(static_cast<std::uint32_t>(text - at), std::span(bytes).subspan(at).first<4>());
  }

  FlatBuffer buffer(bytes);
  auto const list = buffer.root().list(0);
  std::size_t total = 0;
  for (std::size_t i = 0; i < list.size(); ++i) total += list.text(i).size();

  CHECK(total <= bytes.size());
  REQUIRE_FALSE(buffer.status().has_value());
  CHECK_THAT(buffer.status().error().context, Catch::Contains("shared"));
}

TEST_CASE("FlatBuffer survives every truncation", "[gzip][flat_buffer][error]") {
  auto const whole = small();
  for (std::size_t n = 0; n < whole.size(); ++n) {
    Bytes const cut(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(n));
    FlatBuffer buffer(cut);
    auto const root = buffer.root();
    auto const number = root.number<std::uint32_t>(0);
    auto const text = root.text(1);
    // all but the text's NUL has to be there
    CHECK(buffer.status().has_value() == (number == 7 && text == "abc"));
  }
}

}  // namespace flat_buffer_test
}  // namespace erofs_oci
