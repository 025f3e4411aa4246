// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/oci/push.hpp>  // first: proves that the header stands alone

#include <algorithm>
#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <catch.hpp>

#include <erofs_oci/testing/fake_registry.hpp>

namespace erofs_oci {
namespace push_test {

using testing::FakeRegistry;
using testing::FakeReply;
using testing::FakeTransport;
using testing::header_of;
using Pusher = testing::FakePusher;
using Habits = FakeRegistry::Habits;

Pusher pusher(FakeRegistry const& registry, PushOptions push = {.chunk = 1000},
              RegistryOptions options = {}) {
  return testing::fake_pusher(registry, std::move(push), std::move(options));
}

std::string text_of(std::size_t size) {
  std::string out(size, '\0');
  for (std::size_t i = 0; i < size; ++i) out[i] = static_cast<char>('a' + i * 7 % 26);
  return out;
}

std::size_t count(FakeRegistry const& registry, HttpMethod method) {
  auto const requests = registry.transport().requests();
  return static_cast<std::size_t>(std::ranges::count(requests, method, &HttpRequest::method));
}

TEST_CASE("A blob comes whole, in chunks of the size that is wanted", "[oci][push]") {
  for (std::size_t const size : {0U, 1U, 999U, 1000U, 1001U, 2000U, 3500U}) {
    INFO(size);
    FakeRegistry const registry;
    auto const text = text_of(size);
    auto const digest = digest_of(as_bytes(text));

    CHECK(pusher(registry).put_blob(digest, as_bytes(text)) == BlobPush::uploaded);

    CHECK(registry.blob("n/m", digest) == text);
    CHECK(count(registry, HttpMethod::patch) == (size == 0 ? 0 : (size - 1) / 1000));
    CHECK(count(registry, HttpMethod::put) == 1);
  }
}

TEST_CASE("A blob that is there is not sent", "[oci][push]") {
  FakeRegistry const registry;
  auto const at = registry.add_blob("n/m", "text");

  CHECK(pusher(registry).put_blob(at.digest, as_bytes(std::string("text"))) == BlobPush::was_there);
  CHECK(registry.transport().requests().size() == 1);
}

TEST_CASE("A blob of another repository is taken from there", "[oci][push]") {
  auto const mounts = GENERATE(true, false);
  Habits habits;
  habits.mounts = mounts;
  FakeRegistry const registry(habits);
  auto const at = registry.add_blob("base/image", "text");

  auto const done = pusher(registry, {.mount_from = {"other", "base/image"}})
                        .put_blob(at.digest, as_bytes(std::string("text")));

  CHECK(done == (mounts ? BlobPush::mounted : BlobPush::uploaded));
  CHECK(registry.blob("n/m", at.digest) == "text");
}

TEST_CASE("A registry that wants larger chunks gets them", "[oci][push]") {
  Habits habits;
  habits.least_chunk = 1500;
  FakeRegistry const registry(habits);
  auto const text = text_of(5000);
  auto const digest = digest_of(as_bytes(text));

  CHECK(pusher(registry).put_blob(digest, as_bytes(text)).has_value());
  CHECK(registry.blob("n/m", digest) == text);
}

/// What another registry answers.
FakeReply ask(FakeRegistry const& registry, HttpRequest const& request) {
  FakeReply reply;
  auto const head = [&](HttpHead const& response) {
    reply.status = response.status;
    reply.headers = response.headers;
    return true;
  };
  auto const body = [&](std::span<std::byte const> bytes) {
    reply.body.insert(reply.body.end(), bytes.begin(), bytes.end());
    return true;
  };
  auto done = registry.transport().exchange(request, head, body);
  if (!done) reply.error = done.error();
  return reply;
}

TEST_CASE("An upload that breaks at any request goes on", "[oci][push]") {
  auto const text = text_of(4500);
  auto const digest = digest_of(as_bytes(text));
  auto const breaks = GENERATE(range(0U, 7U));
  auto const arrives = GENERATE(false, true);  // the request is lost, or its answer is
  INFO(breaks << ' ' << arrives);
  FakeRegistry const registry;
  bool broke = false;
  Habits habits;
  habits.instead = [&](HttpRequest const& request, std::size_t number) {
    if (number != breaks) return std::optional(ask(registry, request));
    broke = true;
    if (arrives) ask(registry, request);
    FakeReply lost;
    lost.error = Error{Errc::unavailable, "the connection broke"};
    return std::optional(lost);
  };

  CHECK(pusher(FakeRegistry(habits)).put_blob(digest, as_bytes(text)).has_value());

  CHECK(broke);
  CHECK(registry.blob("n/m", digest) == text);
  // What has arrived is not sent again.
  CHECK(count(registry, HttpMethod::patch) <= 5);
}

TEST_CASE("A registry that is away is an error after the last attempt", "[oci][push][error]") {
  Habits habits;
  habits.instead = [](HttpRequest const&, std::size_t) { return FakeReply{503}; };
  FakeRegistry const registry(habits);

  auto const done =
      pusher(registry).put_blob(digest_of(as_bytes(std::string("x"))), as_bytes(std::string("x")));

  REQUIRE_FALSE(done.has_value());
  CHECK(done.error().code == Errc::unavailable);
  CHECK(registry.transport().requests().size() == PushOptions{}.attempts);
}

TEST_CASE("A refusal is told with the registry's words", "[oci][push][error]") {
  Habits habits;
  habits.instead = [](HttpRequest const& request, std::size_t) -> std::optional<FakeReply> {
    if (request.method != HttpMethod::post) return std::nullopt;
    return FakeReply{
        405, {}, to_bytes(std::string(R"({"errors":[{"code":"DENIED","message":"read-only"}]})"))};
  };
  FakeRegistry const registry(habits);

  auto const done =
      pusher(registry).put_blob(digest_of(as_bytes(std::string("x"))), as_bytes(std::string("x")));

  REQUIRE_FALSE(done.has_value());
  CHECK(done.error().message().find("DENIED: read-only") != std::string::npos);
  CHECK(done.error().message().find("r.x/n/m") != std::string::npos);
}

TEST_CASE("Bytes that are not what their digest names are refused", "[oci][push][error]") {
  FakeRegistry const registry;

  auto const done = pusher(registry).put_blob(digest_of(as_bytes(std::string("other"))),
                                              as_bytes(std::string("x")));

  CHECK(done.error().code == Errc::protocol);
}

TEST_CASE("An upload is not led from https to http, and takes no login elsewhere",
          "[oci][push][error]") {
  auto const to = GENERATE("http://r.x/up", "https://other.x/up?key=1");
  Habits habits;
  habits.instead = [to](HttpRequest const& request, std::size_t) -> std::optional<FakeReply> {
    if (request.url.host == "other.x") return FakeReply{201};
    if (header_of(request, "Authorization").empty()) {
      return FakeReply{401, {{"WWW-Authenticate", "Basic realm=\"x\""}}};
    }
    if (request.method == HttpMethod::post) return FakeReply{202, {{"Location", to}}};
    return std::nullopt;
  };
  FakeRegistry const registry(habits);
  RegistryOptions options;
  options.credentials = [](auto const&, auto const&) -> Result<std::optional<Credentials>> {
    return Credentials{"me", "secret", {}, {}};
  };

  auto const done =
      pusher(registry, {}, options)
          .put_blob(digest_of(as_bytes(std::string("x"))), as_bytes(std::string("x")));

  auto const elsewhere = std::string(to).starts_with("https://other");
  CHECK(done.has_value() == elsewhere);
  if (!done) CHECK(done.error().code == Errc::protocol);
  for (auto const& request : registry.transport().requests()) {
    if (request.url.host != "r.x") CHECK(header_of(request, "Authorization").empty());
    CHECK(request.url.is_secure());
  }
}

Manifest artifact_of(FakeRegistry const& registry, std::string const& kind) {
  Manifest artifact;
  artifact.media_type = media_type::oci_manifest;
  artifact.artifact_type = kind;
  artifact.config = registry.add_blob("n/m", "{}");
  artifact.config.media_type = "application/vnd.oci.empty.v1+json";
  artifact.subject = Descriptor{};
  artifact.subject->media_type = media_type::oci_manifest;
  artifact.subject->digest = digest_of(as_bytes(std::string("image")));
  artifact.subject->size = 5;
  return artifact;
}

TEST_CASE("What is attached is found by the API, or under the tag in its place", "[oci][push]") {
  Habits habits;
  habits.has_referrers = GENERATE(true, false);
  FakeRegistry const registry(habits);
  auto const push = pusher(registry);
  auto const subject = digest_of(as_bytes(std::string("image")));

  for (auto const* const kind : {"application/one", "application/two", "application/one"}) {
    REQUIRE(push.attach(artifact_of(registry, kind)).has_value());
  }

  CHECK(push.registry().referrers(subject, "").value().size() == 2);
  auto const found = push.registry().referrers(subject, "application/two");
  REQUIRE(found.value().size() == 1);
  CHECK(push.registry().document(found->front().digest.to_string()).has_value());
  CHECK(registry.manifest("n/m", referrers_tag(subject)).empty() == habits.has_referrers);
}

TEST_CASE("A list that another client writes at the same time keeps both", "[oci][push]") {
  auto const inner = std::make_shared<FakeRegistry>(Habits{.has_referrers = false});
  auto const subject = digest_of(as_bytes(std::string("image")));
  auto const tag = referrers_tag(subject);
  bool raced = false;
  // Before the list is read again, another client overwrites it with its own.
  auto const transport = FakeTransport([&](HttpRequest const& request, std::size_t) {
    auto reply = ask(*inner, request);
    if (!raced && request.method == HttpMethod::put && request.url.target.ends_with(tag)) {
      raced = true;
      Index other;
      other.media_type = media_type::oci_index;
      other.manifests.emplace_back();
      other.manifests[0].media_type = media_type::oci_manifest;
      other.manifests[0].digest = digest_of(as_bytes(std::string("theirs")));
      inner->add_manifest("n/m", tag, encode(other));
    }
    return reply;
  });
  auto const push = *Pusher::make(*Reference::parse("r.x/n/m"), {},
                                  [&](auto const&) -> Result<FakeTransport> { return transport; });

  REQUIRE(push.attach(artifact_of(*inner, "application/one")).has_value());

  CHECK(raced);
  CHECK(push.registry().referrers(subject, "").value().size() == 2);
}

TEST_CASE("A login to push asks for the right to push, and to pull from where blobs are taken",
          "[oci][push]") {
  Habits habits;
  habits.instead = [](HttpRequest const& request, std::size_t) -> std::optional<FakeReply> {
    if (request.url.host == "auth.x") {
      return FakeReply{200, {}, to_bytes(std::string(R"({"token":"t"})"))};
    }
    if (header_of(request, "Authorization").empty()) {
      return FakeReply{
          401,
          {{"WWW-Authenticate",
            R"(Bearer realm="https://auth.x/t",service="s",scope="repository:n/m:pull")"}}};
    }
    return std::nullopt;
  };
  FakeRegistry const registry(habits);

  CHECK(pusher(registry, {.mount_from = {"base"}})
            .put_blob(digest_of(as_bytes(std::string("x"))), as_bytes(std::string("x")))
            .has_value());

  std::vector<std::string> asked;
  for (auto const& request : registry.transport().requests()) {
    if (request.url.host == "auth.x") asked.push_back(request.url.target);
  }
  REQUIRE(asked.size() == 1);
  CHECK(asked[0].find("scope=repository%3An%2Fm%3Apull%2Cpush") != std::string::npos);
  CHECK(asked[0].find("scope=repository%3Abase%3Apull") != std::string::npos);
}

TEST_CASE("What a registry says of an upload's range is read", "[oci][push]") {
  CHECK(detail::upload_range("0-0") == 1);
  CHECK(detail::upload_range("0-999") == 1000);
  CHECK(detail::upload_range("bytes=0-9") == 10);
  for (auto const* const bad : {"", "1-5", "0", "0-", "-5", "0-x", "0-18446744073709551615"}) {
    CHECK_FALSE(detail::upload_range(bad).has_value());
  }
}

}  // namespace push_test
}  // namespace erofs_oci
