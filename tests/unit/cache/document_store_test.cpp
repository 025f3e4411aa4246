// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/cache/document_store.hpp>  // first: proves that the header stands alone

#include <chrono>
#include <filesystem>
#include <fstream>
#include <string>
#include <utility>

#include <unistd.h>

#include <catch.hpp>
#include <scratch.hpp>

#include "faulty_files.hpp"

namespace erofs_oci {
namespace document_store_test {

using test::Scratch;

TEST_CASE("A document comes back as it was kept, or not at all", "[cache][document_store]") {
  Scratch const scratch;
  auto const store = *DocumentStore::open(scratch / "cache");
  auto const body = to_bytes("{\"a\":\n1}");
  auto const digest = digest_of(body);
  CHECK_FALSE(store->find(digest).has_value());
  REQUIRE(store->put(digest, "application/json", body).has_value());
  auto const found = (*DocumentStore::open(scratch / "cache"))->find(digest);
  REQUIRE(found.has_value());
  CHECK(found->media_type == "application/json");
  CHECK(found->body == body);
  CHECK(store->put(digest_of(as_bytes("x")), "", body).error().code == Errc::digest_mismatch);

  auto const path = scratch / "cache/documents-1/sha256-" + digest.hex();
  for (auto const* const damaged : {"", "application/json", "application/json\n{}", "\n"}) {
    std::ofstream(path, std::ios::trunc) << damaged;
    CHECK_FALSE(store->find(digest).has_value());
  }
  REQUIRE(store->put(digest, "two\nlines", body).has_value());
  CHECK(store->find(digest)->media_type.empty());
}

TEST_CASE("A tag leads to what it led to last", "[cache][document_store]") {
  Scratch const scratch;
  auto const store = *DocumentStore::open(scratch / "cache");
  auto const one = digest_of(as_bytes("1"));
  auto const two = digest_of(as_bytes("2"));
  CHECK_FALSE(store->find_tag("host/app:v1").has_value());
  REQUIRE(store->put_tag("host/app:v1", one).has_value());
  REQUIRE(store->put_tag("host/app:v1", two).has_value());
  CHECK(store->find_tag("host/app:v1") == two);
  CHECK_FALSE(store->find_tag("host/app:v2").has_value());
  CHECK_FALSE(store->put_tag("host/app:v1\n" + one.to_string(), one).has_value());
  auto const path = scratch / "cache/tags-1/" + digest_of(as_bytes("host/app:v1")).hex();
  for (auto const* const damaged :
       {"", "host/app:v1", "host/app:v1\n", "host/app:v1\nx\n", "\n\n"}) {
    std::ofstream(path, std::ios::trunc) << damaged;
    CHECK_FALSE(store->find_tag("host/app:v1").has_value());
  }
}

TEST_CASE("What a registry did not have is known for an hour", "[cache][document_store]") {
  Scratch const scratch;
  auto const store = *DocumentStore::open(scratch / "cache");
  std::string const what = "host/app@sha256:00 application/x";
  CHECK_FALSE(store->is_absent(what));
  REQUIRE(store->put_absent(what).has_value());
  CHECK(store->is_absent(what));
  CHECK((*DocumentStore::open(scratch / "cache"))->is_absent(what));
  CHECK_FALSE(store->is_absent("host/app@sha256:00"));
  CHECK_FALSE(store->put_absent("two\nlines").has_value());

  auto const path = scratch / "cache/absent-1/" + digest_of(as_bytes(what)).hex();
  auto const written = std::filesystem::last_write_time(path);
  for (auto const& [moved, counts] : {std::pair(-3500, true), {-3601, false}, {600, false}}) {
    INFO(moved);
    std::filesystem::last_write_time(path, written + std::chrono::seconds(moved));
    CHECK(store->is_absent(what) == counts);
  }
  std::filesystem::last_write_time(path, written);
  for (auto const* const damaged : {"", "host/app", "\n"}) {
    std::ofstream(path, std::ios::trunc) << damaged;
    CHECK_FALSE(store->is_absent(what));
  }

  REQUIRE(store->put_absent(what).has_value());
  store->forget_absent(what);
  CHECK_FALSE(store->is_absent(what));
  REQUIRE(store->put_absent(what).has_value());
  store->clear();
  CHECK_FALSE(store->is_absent(what));
}

TEST_CASE("A link in a document's place is not followed", "[cache][document_store][error]") {
  Scratch const scratch;
  auto const store = *DocumentStore::open(scratch / "cache");
  auto const body = to_bytes("{}");
  auto const digest = digest_of(body);
  auto const path = scratch / "cache/documents-1/sha256-" + digest.hex();
  auto const victim = scratch / "cache/victim";
  std::ofstream(victim) << "\n{}";
  REQUIRE(::symlink(victim.c_str(), path.c_str()) == 0);
  CHECK_FALSE(store->find(digest).has_value());
  REQUIRE(store->put(digest, "x", body).has_value());
  CHECK(store->find(digest).has_value());
  CHECK(std::filesystem::file_size(victim) == 3);
  CHECK_FALSE(std::filesystem::is_symlink(path));
}

}  // namespace document_store_test
}  // namespace erofs_oci
