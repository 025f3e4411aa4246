// SPDX-License-Identifier: Apache-2.0
/// @file
/// A hostile HTTP server, by a script: reads end after few requests, bytes or an error, with no
/// more bytes than were asked for; no secret leaves its host, no request goes from https to http. A
/// server that is cut off and redirects, but does not lie, gives right bytes.
#include <algorithm>
#include <array>
#include <cstdint>
#include <string>
#include <utility>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/source/http.hpp>
#include <erofs_oci/testing/fake_transport.hpp>

#include "input.hpp"

using namespace erofs_oci;

namespace {

constexpr std::size_t object_size = 3000;

Bytes object() {
  Bytes content(object_size);
  for (std::size_t i = 0; i < content.size(); ++i) content[i] = static_cast<std::byte>(i * 7 / 3);
  return content;
}

/// A reply by the next bytes of the input; sets `lied` if it may hold wrong bytes.
testing::FakeReply next_reply(fuzz::Input& input, HttpRequest const& request, bool& lied) {
  constexpr std::array names{"Content-Range",
                             "Content-Length",
                             "Content-Encoding",
                             "ETag",
                             "Location",
                             "Retry-After",
                             "x"};
  static auto const content = object();
  auto const kind = input.byte();
  if (kind % 8 == 1) return {.error = Error{Errc::unavailable, "no connection"}};
  if (kind % 8 < 4) {
    auto reply = testing::serve(request, content);
    if (kind % 8 == 2) reply.reset_after = input.number<std::uint16_t>();
    return reply;
  }
  if (kind % 8 == 4) return {302 + kind / 8 % 8, {{"Location", input.text()}}};
  testing::FakeReply reply{.status = input.number<std::uint16_t>() % 600};
  if (kind % 8 == 5) reply = testing::serve(request, content);
  lied = lied || reply.status == 200 || reply.status == 206;
  for (auto n = kind / 8 % 4; n > 0; --n) {
    auto const* const name = names.at(input.byte() % names.size());
    std::erase_if(reply.headers, [&](auto const& header) { return header.name == name; });
    reply.headers.push_back({name, input.text()});
  }
  if (kind % 8 == 5) return reply;
  reply.body = Bytes(input.number<std::uint16_t>(), std::byte{0xee});
  reply.piece = std::size_t{input.byte()} + 1;
  return reply;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  constexpr auto origin = "https://reg.example/blob";
  constexpr std::size_t most_requests = 11 * 2 * 10;  // redirects, expired targets, short bodies
  fuzz::Input input(data, size);
  bool lied = false;
  testing::FakeTransport const transport([&](HttpRequest const& request, std::size_t) {
    fuzz::require(request.url.is_secure());
    auto const own = request.url.same_origin(*Url::parse(origin));
    fuzz::require(own || (testing::header_of(request, "Authorization").empty() &&
                          testing::header_of(request, "Cookie").empty()));
    return next_reply(input, request, lied);
  });
  HttpOptions options;
  options.headers = {{"Authorization", "Bearer secret"}, {"Cookie", "secret"}, {"x", "y"}};
  auto const source = BasicHttp<testing::FakeTransport>::open(origin, options, transport);
  if (!source) return 0;
  fuzz::require(lied || source->size() == object_size);

  auto const content = object();
  for (int i = 0; i < 4 && !input.empty(); ++i) {
    auto const at = std::uint64_t{input.number<std::uint16_t>()} % 4096;
    Bytes out(std::size_t{input.number<std::uint16_t>()} % 4096 + 1, std::byte{0xdd});
    auto const before = transport.requests().size();
    auto const n = source->read_at(at, out);
    fuzz::require(transport.requests().size() - before <= most_requests);
    if (!n) continue;
    fuzz::require(*n == readable(source->size(), at, out.size()));
    for (auto k = *n; k < out.size(); ++k) fuzz::require(out[k] == std::byte{0xdd});
    if (lied) continue;
    fuzz::require(std::equal(out.begin(), out.begin() + static_cast<std::ptrdiff_t>(*n),
                             content.begin() + static_cast<std::ptrdiff_t>(
                                                   std::min<std::uint64_t>(at, content.size()))));
  }
  return 0;
}
