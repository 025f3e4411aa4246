// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/nbd/handshake.hpp>  // first: proves that the header stands alone

#include <string>
#include <utility>
#include <vector>

#include <catch.hpp>
#include <rapidcheck/catch.h>

namespace erofs_oci::nbd {
namespace handshake_test {

using Next = Handshake::Next;

struct OneReply {
  Option option;
  OptionReply type;
  Bytes data;
};

/// All replies in `out`; fails the test if there is anything else.
std::vector<OneReply> parse(Bytes const& out) {
  std::vector<OneReply> replies;
  FieldReader fields(out);
  while (!fields.rest().empty()) {
    REQUIRE(fields.number<std::uint64_t>() == 0x0003e889045565a9);
    auto const option = fields.number<std::uint32_t>();
    auto const type = fields.number<std::uint32_t>();
    auto const length = fields.number<std::uint32_t>();
    REQUIRE(length.has_value());
    REQUIRE(fields.rest().size() >= *length);
    replies.push_back(
        {Option{*option}, OptionReply{*type}, to_bytes(fields.rest().first(*length))});
    auto const rest = fields.rest().subspan(*length);
    fields = FieldReader(rest);
  }
  return replies;
}

/// A handshake, and its last answer taken apart.
struct Talk {
  Export served{.name = "disk", .description = "two layers", .size = 123'456'789};
  Handshake handshake{served};

  std::pair<Next, std::vector<OneReply>> say(Option option, Bytes const& data = {}) {
    Bytes out;
    auto const next = handshake.answer(option, data, out);
    return {next, parse(out)};
  }

  OptionReply only(Option option, Bytes const& data = {}) {
    auto const [next, replies] = say(option, data);
    CHECK(next == Next::option);
    REQUIRE(replies.size() == 1);
    CHECK(replies.front().option == option);
    return replies.front().type;
  }
};

Bytes info_data(std::string const& name, std::vector<std::uint16_t> const& wanted = {}) {
  Bytes data;
  append_be(data, static_cast<std::uint32_t>(name.size()));
  append(data, as_bytes(name));
  append_be(data, static_cast<std::uint16_t>(wanted.size()));
  for (auto const info : wanted) append_be(data, info);
  return data;
}

Bytes context_data(std::string const& name, std::vector<std::string> const& queries) {
  Bytes data;
  append_be(data, static_cast<std::uint32_t>(name.size()));
  append(data, as_bytes(name));
  append_be(data, static_cast<std::uint32_t>(queries.size()));
  for (auto const& query : queries) {
    append_be(data, static_cast<std::uint32_t>(query.size()));
    append(data, as_bytes(query));
  }
  return data;
}

TEST_CASE("An option header decodes to what was encoded", "[nbd][handshake][property]") {
  rc::prop("for all options and lengths", [] {
    OptionHeader const header{Option{*rc::gen::arbitrary<std::uint32_t>()},
                              *rc::gen::arbitrary<std::uint32_t>()};

    auto const decoded = decode_option(encode(header));

    RC_ASSERT(decoded.has_value());
    RC_ASSERT(*decoded == header);
  });
}

TEST_CASE("Another magic number is no option", "[nbd][handshake][error]") {
  auto bytes = encode(OptionHeader{Option::go, 4});
  bytes[7] = std::byte{0};

  CHECK(decode_option(bytes).error().code == Errc::protocol);
}

TEST_CASE("The greeting offers fixed newstyle and no zeroes", "[nbd][handshake]") {
  CHECK(hex(Handshake::greeting()) ==
        "4e42444d41474943"
        "49484156454f5054"
        "0003");
}

TEST_CASE("Client flags that were not offered are refused", "[nbd][handshake][error]") {
  Export const served;
  for (std::uint32_t flags = 0; flags < 4; ++flags) {
    CHECK(Handshake(served).client_flags(flags).has_value());
  }
  for (auto const flags : {4U, 7U, 0x10003U, 0x80000000U}) {
    CHECK(Handshake(served).client_flags(flags).error().code == Errc::protocol);
  }
}

TEST_CASE("EXPORT_NAME answers size and flags without a header", "[nbd][handshake]") {
  Talk talk;
  auto const [flags, zeroes] = GENERATE(table<std::uint32_t, std::size_t>({{0, 124}, {3, 0}}));
  REQUIRE(talk.handshake.client_flags(flags).has_value());
  auto const name = GENERATE("disk", "");
  Bytes out;

  auto const next = talk.handshake.answer(Option::export_name, as_bytes(name), out);

  CHECK(next == Next::transmission);
  REQUIRE(out.size() == 10 + zeroes);
  CHECK(hex(std::span(out).first(10)) ==
        "00000000075bcd15"
        "0103");
  CHECK(std::ranges::all_of(std::span(out).subspan(10), [](auto b) { return b == std::byte{0}; }));
  CHECK_FALSE(talk.handshake.negotiated().structured);
}

TEST_CASE("EXPORT_NAME of another export closes without a reply", "[nbd][handshake][error]") {
  Talk talk;
  Bytes out;

  CHECK(talk.handshake.answer(Option::export_name, as_bytes("disc"), out) == Next::close);
  CHECK(out.empty());
}

TEST_CASE("ABORT is acknowledged, then the connection closes", "[nbd][handshake]") {
  Talk talk;

  auto const [next, replies] = talk.say(Option::abort, to_bytes("ignored"));

  CHECK(next == Next::close);
  REQUIRE(replies.size() == 1);
  CHECK(replies[0].type == OptionReply::ack);
}

TEST_CASE("LIST names the one export", "[nbd][handshake]") {
  Talk talk;

  auto const [next, replies] = talk.say(Option::list);

  CHECK(next == Next::option);
  REQUIRE(replies.size() == 2);
  CHECK(replies[0].type == OptionReply::server);
  CHECK(hex(std::span(replies[0].data).first(4)) == "00000004");
  CHECK(as_text(std::span(replies[0].data).subspan(4)) == "disktwo layers");
  CHECK(replies[1].type == OptionReply::ack);
  CHECK(talk.only(Option::list, Bytes(1)) == OptionReply::invalid);
}

TEST_CASE("TLS, extended headers and unknown options are not there", "[nbd][handshake]") {
  Talk talk;
  for (auto const option : {Option::starttls, Option::extended_headers, Option{0}, Option{4},
                            Option{12}, Option{0xffffffff}}) {
    CHECK(talk.only(option) == OptionReply::unsupported);
    CHECK(talk.only(option, Bytes(100)) == OptionReply::unsupported);
  }
}

TEST_CASE("GO sends the export and starts the transmission", "[nbd][handshake]") {
  Talk talk;

  auto const [next, replies] = talk.say(Option::go, info_data("disk"));

  CHECK(next == Next::transmission);
  REQUIRE(replies.size() == 2);
  CHECK(replies[0].type == OptionReply::info);
  CHECK(hex(replies[0].data) ==
        "0000"
        "00000000075bcd15"
        "0103");
  CHECK(replies[1].type == OptionReply::ack);
}

TEST_CASE("INFO sends what was asked for, once, and goes on", "[nbd][handshake]") {
  Talk talk;

  auto const [next, replies] = talk.say(Option::info, info_data("", {3, 1, 2, 1, 0, 9, 0xffff}));

  CHECK(next == Next::option);
  REQUIRE(replies.size() == 5);
  CHECK(hex(replies[0].data) ==
        "0000"
        "00000000075bcd15"
        "0103");
  CHECK(hex(replies[1].data) ==
        "0003"
        "00000001"
        "00001000"
        "02000000");
  CHECK(hex(std::span(replies[2].data).first(2)) == "0001");
  CHECK(as_text(std::span(replies[2].data).subspan(2)) == "disk");
  CHECK(as_text(std::span(replies[3].data).subspan(2)) == "two layers");
  CHECK(replies[4].type == OptionReply::ack);
}

TEST_CASE("INFO and GO refuse other exports and lengths that do not fit",
          "[nbd][handshake][error]") {
  Talk talk;
  auto const option = GENERATE(Option::info, Option::go);
  auto const good = info_data("disk", {1, 2});

  CHECK(talk.only(option, info_data("disc")) == OptionReply::unknown);
  for (std::size_t n = 0; n < good.size(); ++n) {
    CHECK(talk.only(option, Bytes(good.begin(), good.begin() + static_cast<long>(n))) ==
          OptionReply::invalid);
  }
  auto longer = good;
  longer.push_back({});
  CHECK(talk.only(option, longer) == OptionReply::invalid);
  CHECK(talk.only(option, info_data(std::string(4097, 'x'))) == OptionReply::invalid);
  auto huge = good;
  huge[0] = std::byte{0xff};
  CHECK(talk.only(option, huge) == OptionReply::invalid);
}

TEST_CASE("Structured replies add DF to the flags", "[nbd][handshake]") {
  Talk talk;
  CHECK(talk.only(Option::structured_reply, Bytes(1)) == OptionReply::invalid);
  CHECK(talk.only(Option::structured_reply) == OptionReply::ack);

  auto const [next, replies] = talk.say(Option::go, info_data("disk"));

  CHECK(hex(replies.at(0).data) ==
        "0000"
        "00000000075bcd15"
        "0183");
  CHECK(talk.handshake.negotiated().structured);
  CHECK_FALSE(talk.handshake.negotiated().base_allocation);
}

TEST_CASE("SET_META_CONTEXT needs structured replies", "[nbd][handshake][error]") {
  Talk talk;

  CHECK(talk.only(Option::set_meta_context, context_data("disk", {"base:allocation"})) ==
        OptionReply::invalid);
}

TEST_CASE("SET_META_CONTEXT selects base:allocation for its export", "[nbd][handshake]") {
  Talk talk;
  CHECK(talk.only(Option::structured_reply) == OptionReply::ack);

  auto const [next, replies] =
      talk.say(Option::set_meta_context,
               context_data("disk", {"qemu:dirty-bitmap:x", "base:allocation", "base:allocation"}));

  CHECK(next == Next::option);
  REQUIRE(replies.size() == 2);
  CHECK(replies[0].type == OptionReply::meta_context);
  CHECK(hex(std::span(replies[0].data).first(4)) == "00000001");
  CHECK(as_text(std::span(replies[0].data).subspan(4)) == "base:allocation");
  CHECK(replies[1].type == OptionReply::ack);

  auto const [name, selected] = GENERATE(table<std::string, bool>({{"disk", true}, {"", false}}));
  CHECK(talk.say(Option::go, info_data(name)).first == Next::transmission);
  CHECK(talk.handshake.negotiated().base_allocation == selected);
}

TEST_CASE("SET_META_CONTEXT replaces the earlier set, even if it fails", "[nbd][handshake]") {
  Talk talk;
  CHECK(talk.only(Option::structured_reply) == OptionReply::ack);
  auto const select = context_data("disk", {"base:allocation"});
  CHECK(talk.say(Option::set_meta_context, select).second.size() == 2);

  auto const [later, answer] = GENERATE(table<Bytes, OptionReply>({
      {context_data("disk", {}), OptionReply::ack},
      {context_data("disk", {"base:"}), OptionReply::ack},
      {context_data("disk", {"base"}), OptionReply::ack},
      {context_data("disc", {"base:allocation"}), OptionReply::unknown},
      {Bytes(3), OptionReply::invalid},
      {Bytes(9), OptionReply::invalid},
  }));
  CHECK(talk.only(Option::set_meta_context, later) == answer);

  CHECK(talk.say(Option::go, info_data("disk")).first == Next::transmission);
  CHECK_FALSE(talk.handshake.negotiated().base_allocation);
}

TEST_CASE("LIST_META_CONTEXT lists and selects nothing", "[nbd][handshake]") {
  Talk talk;
  CHECK(talk.only(Option::structured_reply) == OptionReply::ack);

  auto const queries = GENERATE(as<std::vector<std::string>>{}, std::vector<std::string>{},
                                std::vector<std::string>{"base:"},
                                std::vector<std::string>{"x:", "base:allocation"});
  auto const [next, replies] = talk.say(Option::list_meta_context, context_data("disk", queries));

  REQUIRE(replies.size() == 2);
  CHECK(hex(std::span(replies[0].data).first(4)) == "00000000");
  CHECK(talk.only(Option::list_meta_context, context_data("disk", {"other:"})) == OptionReply::ack);
  CHECK(talk.say(Option::go, info_data("disk")).first == Next::transmission);
  CHECK_FALSE(talk.handshake.negotiated().base_allocation);
}

TEST_CASE("Any data is answered in whole replies", "[nbd][handshake][property]") {
  rc::prop("for all options and all data", [] {
    Talk talk;
    auto const rounds = *rc::gen::arbitrary<std::vector<std::pair<std::uint8_t, std::string>>>();
    for (auto const& [option, data] : rounds) {
      Bytes out;
      auto const next = talk.handshake.answer(Option{option % 14U}, as_bytes(data), out);
      if (option % 14U == 1) {
        RC_ASSERT(out.empty() == (next == Next::close));
        continue;
      }
      auto const replies = parse(out);
      RC_ASSERT(!replies.empty());
      for (auto const& reply : replies) RC_ASSERT(reply.option == Option{option % 14U});
    }
  });
}

TEST_CASE("Too much data is refused with the option's number", "[nbd][handshake][error]") {
  Talk talk;
  Bytes out;

  CHECK(talk.handshake.answer_too_big(Option::go, out) == Next::option);

  CHECK(parse(out).at(0).type == OptionReply::too_big);
  CHECK(talk.handshake.answer_too_big(Option::export_name, out) == Next::close);
}

}  // namespace handshake_test
}  // namespace erofs_oci::nbd
