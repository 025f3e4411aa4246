// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/nbd/reply.hpp>  // first: proves that the header stands alone

#include <string>

#include <catch.hpp>
#include <rapidcheck/catch.h>

namespace erofs_oci::nbd {
namespace reply_test {

constexpr std::uint64_t far = std::uint64_t(-1);

Request make(Command command, std::uint64_t offset, std::uint32_t length, std::uint16_t flags = 0) {
  return {flags, static_cast<std::uint16_t>(command), 7, offset, length};
}

Bytes wire(Reply const& reply) {
  auto bytes = to_bytes(std::span(reply.head).first(reply.head_size));
  auto const body = reply.body.first(reply.body_size);
  bytes.insert(bytes.end(), body.begin(), body.end());
  return bytes;
}

TEST_CASE("READ is judged by its range", "[nbd][reply]") {
  Export const served{.size = 1000};
  auto const judged = [&](std::uint64_t offset, std::uint32_t length) {
    return judge(make(Command::read, offset, length), served, {});
  };

  CHECK(judged(0, 1000) == Errno::none);
  CHECK(judged(999, 1) == Errno::none);
  CHECK(judged(999, 0) == Errno::none);
  CHECK(judged(0, 1001) == Errno::inval);
  CHECK(judged(999, 2) == Errno::inval);
  CHECK(judged(1000, 0) == Errno::inval);
  CHECK(judged(1000, 1) == Errno::inval);
  CHECK(judged(far, 1) == Errno::inval);
  CHECK(judged(far - 1, 4) == Errno::inval);
  CHECK(judged(std::uint64_t{1} << 63, 512) == Errno::inval);
  CHECK(judge(make(Command::read, 0, 1), Export{.size = 0}, {}) == Errno::inval);
}

TEST_CASE("READ of more than 32 MiB is refused", "[nbd][reply]") {
  Export const served{.size = far};

  CHECK(judge(make(Command::read, 0, max_payload), served, {}) == Errno::none);
  CHECK(judge(make(Command::read, 0, max_payload + 1), served, {}) == Errno::inval);
  CHECK(charge(make(Command::read, 0, max_payload)) == max_payload);
  CHECK(charge(make(Command::read, 0, max_payload + 1)) == 0);
}

TEST_CASE("Flags that were not negotiated are refused", "[nbd][reply]") {
  Export const served{.size = 1000};
  Negotiated const structured{.structured = true, .base_allocation = true};
  auto const judged = [&](Command command, int flag, Negotiated const& how) {
    return judge(make(command, 0, 1, static_cast<std::uint16_t>(flag)), served, how);
  };

  CHECK(judged(Command::read, 4, {}) == Errno::inval);
  CHECK(judged(Command::read, 4, structured) == Errno::none);
  for (auto const flag : {1, 2, 8, 16, 32, 64, 0x8000}) {
    CHECK(judged(Command::read, flag, structured) == Errno::inval);
    CHECK(judged(Command::flush, flag, structured) == Errno::inval);
    CHECK(judged(Command::cache, flag, structured) == Errno::inval);
    CHECK(judged(Command::block_status, flag, structured) ==
          (flag == 8 ? Errno::none : Errno::inval));
    CHECK(judged(Command::write, flag, structured) == (flag == 1 ? Errno::perm : Errno::inval));
    CHECK(judged(Command::trim, flag, structured) == (flag == 1 ? Errno::perm : Errno::inval));
    CHECK(judged(Command::write_zeroes, flag, structured) ==
          (flag == 1 || flag == 2 || flag == 16 ? Errno::perm : Errno::inval));
  }
}

TEST_CASE("Unknown commands are refused", "[nbd][reply]") {
  Export const served{.size = 1000};
  for (auto const type : {8, 9, 255, 256, 0xffff}) {
    Request const request{0, static_cast<std::uint16_t>(type), 7, 0, 1};
    CHECK(judge(request, served, {}) == Errno::inval);
  }
}

TEST_CASE("BLOCK_STATUS needs a selected context and a length", "[nbd][reply]") {
  Export const served{.size = 1000};
  auto const request = make(Command::block_status, 0, 1000);

  CHECK(judge(request, served, {.structured = true}) == Errno::inval);
  CHECK(judge(request, served, {.structured = true, .base_allocation = true}) == Errno::none);
  CHECK(judge(make(Command::block_status, 0, 0), served,
              {.structured = true, .base_allocation = true}) == Errno::inval);
}

TEST_CASE("BLOCK_STATUS tells data from the fill with zeros", "[nbd][reply][property]") {
  rc::prop("for all ranges, byte for byte as a dull oracle says", [] {
    std::uint64_t const size = 200;
    auto const zeros_from = *rc::gen::element<std::uint64_t>(0, 1, 99, 100, 199, 200, 201, far);
    auto const offset = *rc::gen::inRange<std::uint64_t>(0, size);
    auto const length =
        *rc::gen::inRange<std::uint32_t>(1, static_cast<std::uint32_t>(size - offset) + 1);
    auto const one = *rc::gen::arbitrary<bool>();
    auto const request =
        make(Command::block_status, offset, length, one ? command_flag::req_one : std::uint16_t{0});

    auto const bytes = wire(block_status_reply(request, {.size = size, .zeros_from = zeros_from}));

    auto const raw = std::span(bytes);
    auto const chunk = decode_chunk(raw.first<Chunk::wire_size>());
    RC_ASSERT(chunk.has_value());
    RC_ASSERT(chunk->type == ChunkType::block_status);
    RC_ASSERT(chunk->flags == Chunk::done);
    RC_ASSERT(chunk->length == bytes.size() - Chunk::wire_size);
    RC_ASSERT(load_be<std::uint32_t>(raw.subspan<20, 4>()) == base_allocation_id);
    std::vector<std::uint32_t> got;
    for (std::size_t at = 24; at < bytes.size(); at += 8) {
      auto const n = load_be<std::uint32_t>(raw.subspan(at).first<4>());
      RC_ASSERT(n > 0);
      got.insert(got.end(), n, load_be<std::uint32_t>(raw.subspan(at + 4).first<4>()));
    }
    std::vector<std::uint32_t> wanted;
    for (std::uint64_t i = offset; i < offset + length; ++i) {
      wanted.push_back(i >= zeros_from ? 3 : 0);
    }
    RC_ASSERT((one ? bytes.size() == 32 : got.size() == wanted.size()));
    RC_ASSERT(got.size() <= wanted.size() && !got.empty());
    wanted.resize(got.size());
    RC_ASSERT(got == wanted);
  });
}

TEST_CASE("An error chunk holds number, text and offset", "[nbd][reply]") {
  BufferPool buffers;
  auto const request = make(Command::read, 100, 50);
  Negotiated const structured{.structured = true};

  auto const with =
      wire(error_reply(request, structured, Errno::io, "layer 3: corrupt", 120, buffers));
  auto const without = wire(error_reply(request, structured, Errno::perm, "", {}, buffers));

  CHECK(hex(std::span(with).first(26)) ==
        "668e33ef"
        "0001"
        "8002"
        "0000000000000007"
        "0000001e"
        "00000005"
        "0010");
  CHECK(as_text(std::span(with).subspan(26, 16)) == "layer 3: corrupt");
  CHECK(hex(std::span(with).subspan(42)) == "0000000000000078");
  CHECK(hex(without) ==
        "668e33ef"
        "0001"
        "8001"
        "0000000000000007"
        "00000006"
        "00000001"
        "0000");
}

TEST_CASE("An error's text is cut to what the protocol allows", "[nbd][reply]") {
  BufferPool buffers;
  auto const request = make(Command::read, 0, 1);

  auto const bytes = wire(
      error_reply(request, {.structured = true}, Errno::io, std::string(10'000, 'x'), {}, buffers));

  CHECK(bytes.size() == Chunk::wire_size + 6 + 4096);
}

TEST_CASE("Without structured replies an error is sixteen bytes", "[nbd][reply]") {
  BufferPool buffers;

  auto const bytes =
      wire(error_reply(make(Command::trim, 0, 4096), {}, Errno::perm, "why", 0, buffers));

  CHECK(hex(bytes) ==
        "67446698"
        "00000001"
        "0000000000000007");
}

}  // namespace reply_test
}  // namespace erofs_oci::nbd
