// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/nbd/protocol.hpp>  // first: proves that the header stands alone

#include <catch.hpp>
#include <rapidcheck/catch.h>

namespace erofs_oci::nbd {
namespace protocol_test {

TEST_CASE("A request decodes to what was encoded", "[nbd][protocol][property]") {
  rc::prop("for all requests, of known and unknown types", [] {
    Request const request{
        *rc::gen::arbitrary<std::uint16_t>(), *rc::gen::arbitrary<std::uint16_t>(),
        *rc::gen::arbitrary<std::uint64_t>(), *rc::gen::arbitrary<std::uint64_t>(),
        *rc::gen::arbitrary<std::uint32_t>()};

    auto const decoded = decode_request(encode(request));

    RC_ASSERT(decoded.has_value());
    RC_ASSERT(*decoded == request);
  });
}

TEST_CASE("A simple reply decodes to what was encoded", "[nbd][protocol][property]") {
  rc::prop("for all errors and cookies", [] {
    SimpleReply const reply{Errno{*rc::gen::arbitrary<std::uint32_t>()},
                            *rc::gen::arbitrary<std::uint64_t>()};

    auto const decoded = decode_simple_reply(encode(reply));

    RC_ASSERT(decoded.has_value());
    RC_ASSERT(*decoded == reply);
  });
}

TEST_CASE("A chunk header decodes to what was encoded", "[nbd][protocol][property]") {
  rc::prop("for all chunks", [] {
    Chunk const chunk{*rc::gen::arbitrary<std::uint16_t>(),
                      ChunkType{*rc::gen::arbitrary<std::uint16_t>()},
                      *rc::gen::arbitrary<std::uint64_t>(), *rc::gen::arbitrary<std::uint32_t>()};

    auto const decoded = decode_chunk(encode(chunk));

    RC_ASSERT(decoded.has_value());
    RC_ASSERT(*decoded == chunk);
  });
}

TEST_CASE("A request on the wire is as the protocol draws it", "[nbd][protocol]") {
  Request const request{0x0102, 0x0304, 0x05060708090a0b0c, 0x1112131415161718, 0x21222324};

  CHECK(hex(encode(request)) ==
        "25609513"
        "0102"
        "0304"
        "05060708090a0b0c"
        "1112131415161718"
        "21222324");
  CHECK(hex(encode(SimpleReply{Errno::shutdown, 0x0102030405060708})) ==
        "67446698"
        "0000006c"
        "0102030405060708");
  CHECK(hex(encode(Chunk{1, ChunkType::error_offset, 0x0102030405060708, 9})) ==
        "668e33ef"
        "0001"
        "8002"
        "0102030405060708"
        "00000009");
  CHECK(hex(encode(Extent{0x01020304, 3})) == "0102030400000003");
}

TEST_CASE("Other magic numbers are protocol errors", "[nbd][protocol][error]") {
  auto request = encode(Request{});
  request[0] = std::byte{0x24};
  auto reply = encode(SimpleReply{});
  reply[3] = std::byte{0};
  auto chunk = encode(Chunk{});
  chunk[1] = std::byte{0};

  CHECK(decode_request(request).error().code == Errc::protocol);
  CHECK(decode_request(request).error().message().find("24609513") != std::string::npos);
  CHECK(decode_simple_reply(reply).error().code == Errc::protocol);
  CHECK(decode_chunk(chunk).error().code == Errc::protocol);
}

TEST_CASE("An extended request, never offered, is named in the error", "[nbd][protocol][error]") {
  auto request = encode(Request{});
  store_be(extended_request_magic, std::span(request).first<4>());

  CHECK(decode_request(request).error().message().find("extended") != std::string::npos);
}

TEST_CASE("Each error has one number for the client", "[nbd][protocol]") {
  for (auto const code :
       {Errc::corrupt, Errc::digest_mismatch, Errc::truncated, Errc::unavailable, Errc::timed_out,
        Errc::unauthorized, Errc::not_found, Errc::protocol, Errc::unsupported, Errc::mismatch}) {
    CHECK(to_errno(code) == Errno::io);
  }
  CHECK(to_errno(Errc::stopping) == Errno::shutdown);
  CHECK(to_errno(make_error_code(std::errc::result_out_of_range)) == Errno::inval);
  CHECK(to_errno(make_error_code(std::errc::not_enough_memory)) == Errno::nomem);
  CHECK(to_errno(std::error_code(ENOMEM, std::system_category())) == Errno::nomem);
  CHECK(to_errno(std::error_code(EACCES, std::system_category())) == Errno::io);
  CHECK(to_errno({}) == Errno::none);
}

TEST_CASE("A clipped text never ends inside a character", "[nbd][protocol]") {
  CHECK(clip("abc", 3) == "abc");
  CHECK(clip("abc", 2) == "ab");
  CHECK(clip("a\u20acb", 3) == "a");
  CHECK(clip("a\u20acb", 4) == "a\u20ac");
  CHECK(clip("\u20ac", 0).empty());
}

}  // namespace protocol_test
}  // namespace erofs_oci::nbd
