// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/oci/reference.hpp>  // first: proves that the header stands alone

#include <string>
#include <utility>
#include <vector>

#include <catch.hpp>
#include <rapidcheck/catch.h>

namespace erofs_oci {
namespace reference_test {

std::string const hub = std::string(Reference::docker_hub);
std::string const hex64 = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
std::string const digest = "sha256:" + hex64;

TEST_CASE("Reference::parse fills in what the user left out", "[oci][reference]") {
  struct Case {
    std::string text, registry, repository, tag;
  };
  auto const cases = std::vector<Case>{
      {"nginx", hub, "library/nginx", "latest"},
      {"nginx:1.21", hub, "library/nginx", "1.21"},
      {"user/app:v2", hub, "user/app", "v2"},
      {"org/team/app:v1", hub, "org/team/app", "v1"},
      {"docker.io/ubuntu", hub, "library/ubuntu", "latest"},
      {"index.docker.io/ubuntu", hub, "library/ubuntu", "latest"},
      {"docker.io/user/app", hub, "user/app", "latest"},
      {"registry.example.com/app", "registry.example.com", "app", "latest"},
      {"Registry.Example.COM:443/app", "registry.example.com:443", "app", "latest"},
      {"localhost:5000/app:latest", "localhost:5000", "app", "latest"},
      {"myapp:sha256-abc123", hub, "library/myapp", "sha256-abc123"},
      {"localhost/app", "localhost", "app", "latest"},
      {"ubuntu@" + digest, hub, "library/ubuntu", ""},
      {"ubuntu:22.04@" + digest, hub, "library/ubuntu", ""},
      {"[::1]:5000/app", "[::1]:5000", "app", "latest"},
      {"[2001:db8::1]/a/b:c", "[2001:db8::1]", "a/b", "c"},
      {"127.0.0.1:1/a__b.c-d---e/f:_", "127.0.0.1:1", "a__b.c-d---e/f", "_"},
      {"localhost:5000", hub, "library/localhost", "5000"},
  };
  for (auto const& [text, registry, repository, tag] : cases) {
    auto const reference = Reference::parse(text);

    INFO(text);
    REQUIRE(reference.has_value());
    CHECK(reference->registry == registry);
    CHECK(reference->repository == repository);
    CHECK(reference->tag == tag);
    CHECK(reference->digest.has_value() == tag.empty());
    CHECK(reference->target() == (tag.empty() ? digest : tag));
  }
}

TEST_CASE("Reference::parse refuses everything else", "[oci][reference][error]") {
  auto const bad = std::vector<std::string>{
      "",
      "/",
      ":",
      "@",
      "Nginx",
      "nginx:",
      "a_a.latest/a",  // the dot makes it a registry, and no host has an underscore
      "nginx:-x",
      "nginx:" + std::string(129, 'a'),
      "nginx:a:b",
      "nginx@",
      "nginx@sha256:" + std::string(63, 'a'),
      "nginx@sha256:" + std::string(64, 'A'),
      "nginx@sha256:" + std::string(65, 'a'),
      "nginx@" + digest + "@" + digest,
      "nginx@md5:d41d8cd98f00b204e9800998ecf8427e",
      "a//b",
      "/a",
      "a/",
      "a/../b",
      "a/./b",
      "a..b/c",
      "_a",
      "a_",
      "a___b",
      "a.-b",
      "a b",
      "a\nb",
      "a%2fb",
      "a?b",
      "a#b",
      std::string("a\0b", 3),
      "\xc3\xa4",
      "-host.example/app",
      "host-.example/app",
      "ho_st.example/app",
      "host..example/app",
      ".example/app",
      "host.example:/app",
      "host.example:0/app",
      "host.example:65536/app",
      "host.example:80x/app",
      "user@host.example/app",
      "user:pass@host.example/app",
      "https://host.example/app",
      "[::1/app",
      "[::g]/app",
      "[::1]5000/app",
      "[fe80::1%eth0]/app",
      "[]/app",
      "host.example/" + std::string(243, 'a'),
      std::string(64, 'a') + ".example/app",
  };
  for (auto const& text : bad) {
    auto const reference = Reference::parse(text);

    INFO(text);
    CHECK_FALSE(reference.has_value());
  }
}

TEST_CASE("Reference::parse allows 255 bytes of name and no more", "[oci][reference]") {
  CHECK(Reference::parse("host.example/" + std::string(242, 'a')).has_value());
  CHECK_FALSE(Reference::parse("host.example/" + std::string(243, 'a')).has_value());
}

TEST_CASE("A reference tells its repository with the registry", "[oci][reference]") {
  using Row = std::pair<std::string, std::string>;
  for (auto const& [text, name] :
       {Row{"debian", "docker.io/library/debian"}, Row{"docker.io/a/b:1", "docker.io/a/b"},
        Row{"Host:5000/a/b@" + digest, "host:5000/a/b"}}) {
    INFO(text);
    CHECK(Reference::parse(text)->repository_name() == name);
  }
}

template <class T>
T pick(std::vector<T> const& from) {
  return *rc::gen::elementOf(from);
}

TEST_CASE("References survive printing", "[oci][reference][property]") {
  rc::prop("for all references made from good parts, parse(to_string(r)) == r", [] {
    auto const registry = pick<std::string>({"", "docker.io/", "localhost/", "localhost:1/",
                                             "a.b-c.example:65535/", "10.0.0.1/", "[::]:80/"});
    // Without a registry, a dot before the first slash would make one of the repository's own
    // words.
    std::vector<std::string> separators{"/", "_", "__", "-", "---"};
    if (!registry.empty()) separators.push_back(".");
    auto repository = pick<std::string>({"a", "library/x", "0"});
    for (auto i = *rc::gen::inRange(0, 5); i > 0; --i) {
      repository += pick(separators) + pick<std::string>({"a", "9z", "sha256", "latest"});
    }
    auto const end = pick<std::string>(
        {"", ":t", ":_.-", "@" + digest, ":x@" + digest, "@sha512:" + hex64 + hex64});

    auto const reference = Reference::parse(registry + repository + end);

    RC_ASSERT(reference.has_value());
    auto const again = Reference::parse(reference->to_string());
    RC_ASSERT(again.has_value());
    RC_ASSERT(*again == *reference);
  });
}

TEST_CASE("Reference::parse is total", "[oci][reference][property]") {
  rc::prop("any text is refused or survives printing", [] {
    auto const alphabet = std::string("aZ0._-:/@[]%? \n") + hex64.substr(0, 4);
    auto const text = *rc::gen::container<std::string>(rc::gen::elementOf(alphabet));

    auto const reference = Reference::parse(text);

    if (reference) RC_ASSERT(*Reference::parse(reference->to_string()) == *reference);
  });
}

}  // namespace reference_test
}  // namespace erofs_oci
