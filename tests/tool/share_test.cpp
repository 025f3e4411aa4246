// SPDX-License-Identifier: Apache-2.0
#include "share.hpp"  // first: proves that the header stands alone

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <string>
#include <vector>

#include <catch.hpp>
#include <scratch.hpp>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/oci/json.hpp>

namespace mount_oci {
namespace share_test {

using Words = std::vector<std::string>;

constexpr auto digits = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// The key of `mount-oci WORDS... IMAGE /mnt`.
std::string key_of(Words words, std::string const& image = "image") {
  words.insert(words.begin(), "mount-oci");
  words.insert(words.end(), {image, "/mnt"});
  auto const options = parse_options(words);
  if (!options) FAIL(options.error().text);
  return share_key(*options);
}

std::string key_of_list(std::string const& list) {
  return key_of({"-o", list});
}

/// What each word about an image may be.
std::map<std::string, std::string> const& values() {
  static std::map<std::string, std::string> const all{
      {"oci.blob", digits},      {"oci.layer", "1"},
      {"oci.first_layers", "1"}, {"oci.platform", "linux/arm64"},
      {"oci.tarindex", "/t"},    {"oci.zinfo", "/z"},
      {"oci.insecure", "yes"},   {"oci.mirror", "m"},
      {"oci.hosts", "/h"},       {"oci.allow_private", "yes"},
      {"oci.ca", "/c"},          {"oci.memory", "1G"},
      {"oci.cache", "1M"},       {"oci.idle", "29"},
      {"oci.index_size", "1G"},  {"oci.index_time", "9"},
      {"oci.readahead", "1M"},   {"oci.index", "none"},
      {"oci.index_key", "/k"},   {"oci.verify", "off"},
      {"oci.verity", "off"},     {"oci.native", "yes"},
      {"oci.store", "/s"},       {"oci.cache_dir", "/d"},
      {"oci.cache_size", "1G"},  {"oci.pull", "never"},
      {"oci.retry", "3"},        {"oci.timeout", "29"},
      {"oci.connections", "9"},  {"oci.start_list", "off"},
      {"oci.hedge", "no"},
  };
  return all;
}

TEST_CASE("Each word about an image makes another key", "[tool][share]") {
  // A password goes with a name, and what a mount is to have for itself has no key.
  std::set<std::string> const others{"oci.username", "oci.password", "oci.password_file",
                                     "oci.writable", "oci.share"};
  std::set<std::string> keys{key_of({})};
  std::size_t count = 1;
  for (auto const& word : option_words()) {
    if (!word.starts_with("oci.") || others.contains(word)) continue;
    INFO(word);
    REQUIRE(values().contains(word));
    keys.insert(key_of_list(word + "=" + values().at(word)));
    CHECK(keys.size() == ++count);
  }
  CHECK(count == values().size() + 1);
  CHECK(key_of_list("oci.username=a,oci.password_file=/p") !=
        key_of_list("oci.username=b,oci.password_file=/p"));
  CHECK(key_of_list("oci.username=a,oci.password_file=/p") !=
        key_of_list("oci.username=a,oci.password_file=/q"));
}

TEST_CASE("What is the same in other words has the same key", "[tool][share]") {
  auto const key = key_of({});
  REQUIRE_FALSE(key.empty());
  CHECK(key_of({}, "another-image") == key);  // which is compared by its digest
  CHECK(key_of_list("oci.share=yes") == key);
  CHECK(key_of_list("oci.timeout=30,oci.connections=4") == key);
  CHECK(key_of_list("ro,noexec,noatime,suid,dev,nodiratime,norelatime,loud") == key);
  CHECK(key_of({"-v", "--journal", "/j"}) == key);
  CHECK(key_of_list("oci.store=/a/../b") == key_of_list("oci.store=/b"));
}

TEST_CASE("What the kernel and the keeping of a mount are told makes another key",
          "[tool][share]") {
  auto const key = key_of({});
  for (auto const& words : {Words{"-o", "noacl"}, Words{"-o", "sync"}, Words{"-t", "erofs.fuse"},
                            Words{"--attach", "fuse-tree"}, Words{"--dead-timeout", "3"},
                            Words{"--allow-unconfined"}}) {
    INFO(words.back());
    CHECK_FALSE(key_of(words).empty());
    CHECK(key_of(words) != key);
  }
  REQUIRE(::setenv("https_proxy", "http://proxy:1", 1) == 0);
  CHECK(key_of({}) != key);
  REQUIRE(::unsetenv("https_proxy") == 0);
  CHECK(key_of({}) == key);
}

TEST_CASE("A file of credentials counts once it is there", "[tool][share]") {
  erofs_oci::test::Scratch const scratch;
  auto const* const before = std::getenv("DOCKER_CONFIG");
  auto const saved = std::string(before != nullptr ? before : "");
  auto const path = scratch / "config.json";

  REQUIRE(::setenv("DOCKER_CONFIG", std::filesystem::path(path).parent_path().c_str(), 1) == 0);
  auto const without = key_of({});
  std::ofstream(path) << "{}";
  auto const with = key_of({});
  std::filesystem::remove(path);
  auto const again = key_of({});
  REQUIRE((saved.empty() ? ::unsetenv("DOCKER_CONFIG")
                         : ::setenv("DOCKER_CONFIG", saved.c_str(), 1)) == 0);

  CHECK(with != without);
  CHECK(again == without);
}

TEST_CASE("A mount that is to have its own server has no key", "[tool][share]") {
  for (auto const& words : {Words{"--no-share"}, Words{"-o", "oci.share=no"}, Words{"--foreground"},
                            Words{"--no-supervise"}, Words{"--metrics", "127.0.0.1:1"},
                            Words{"--writable"}, Words{"-o", "oci.writable"}, Words{"-N", "1"},
                            Words{"-f"}, Words{"-o", "oci.username=a,oci.password=b"}}) {
    INFO(words.back());
    CHECK(key_of(words).empty());
  }
}

TEST_CASE("No two lists of texts are one", "[tool][share]") {
  CHECK(key_of_list("oci.mirror=a,oci.mirror=b") != key_of_list("oci.mirror=ab"));
  CHECK(key_of_list("oci.mirror=a,oci.mirror=b") != key_of_list("oci.mirror=b,oci.mirror=a"));
  CHECK(key_of_list("oci.mirror=a") != key_of_list("oci.index_key=a"));
}

TEST_CASE("A server tells its key as JSON", "[tool][share]") {
  auto const value = erofs_oci::json::parse(erofs_oci::as_bytes(share_answer("abc")), "answer");
  REQUIRE(value.has_value());
  CHECK(erofs_oci::json::text(*value, "share") == "abc");
}

}  // namespace share_test
}  // namespace mount_oci
