// SPDX-License-Identifier: Apache-2.0
#include "filter.hpp"  // first: proves that the header stands alone

#include <catch.hpp>

#include "refusal.hpp"

namespace oci_snapshotter {
namespace filter_test {

using Texts = std::vector<std::string>;

Info const sample{.name = "k8s.io/4/a b",
                  .parent = "base",
                  .kind = Kind::committed,
                  .labels = {{"a", "1"}, {"x.y/z", "two words"}, {"empty", ""}}};

bool matches(Texts const& texts, Info const& info = sample) {
  auto const filters = Filters::parse(texts);
  if (!filters) FAIL(filters.error().message());
  return filters->match(info);
}

TEST_CASE("Filters find by name, parent, kind and labels", "[snapshotter][filter]") {
  auto const yes = GENERATE(
      Texts{}, Texts{""}, Texts{"name"}, Texts{"parent"}, Texts{"kind==committed"},
      Texts{"name==\"k8s.io/4/a b\""}, Texts{"parent==base"}, Texts{"parent!=\"\""},
      Texts{"labels.a"}, Texts{"labels.a==1"}, Texts{"labels.a!=2"}, Texts{"labels.b!=2"},
      Texts{"labels.\"x.y/z\"==\"two words\""}, Texts{"labels.empty"}, Texts{"name~=^k8s"},
      Texts{"name~=\"a b$\""}, Texts{"name~=/4\\/|a b/"}, Texts{"name~=|/[0-9]/|"},
      Texts{"kind==committed,labels.a==1"}, Texts{"name==other", "labels.a"},
      Texts{"labels.a==\"\\x31\""}, Texts{"labels.a==\"\\u0031\""}, Texts{"labels.a==\"\\061\""});
  CAPTURE(yes);
  CHECK(matches(yes));
}

TEST_CASE("Filters leave out what does not fit", "[snapshotter][filter]") {
  auto const no =
      GENERATE(Texts{"kind==active"}, Texts{"name==base"}, Texts{"labels.b"}, Texts{"labels.a==2"},
               Texts{"labels.a!=1"}, Texts{"name~=^a"}, Texts{"kind==committed,labels.a==2"},
               Texts{"labels.\"x.y\""}, Texts{"created"}, Texts{"name==other", "kind==view"});
  CAPTURE(no);
  CHECK_FALSE(matches(no));
}

TEST_CASE("A snapshot without a parent has none by any filter", "[snapshotter][filter]") {
  Info const lowest{.name = "lowest"};

  CHECK(matches({"parent==\"\""}, lowest));
  CHECK_FALSE(matches({"parent"}, lowest));
  CHECK_FALSE(matches({"parent!=\"\""}, lowest));
  CHECK(matches({R"(labels."containerd.io/snapshot.ref"==sha256:aa,parent=="")"},
                {.name = "x", .labels = {{"containerd.io/snapshot.ref", "sha256:aa"}}}));
}

TEST_CASE("What is no filter is refused", "[snapshotter][filter][error]") {
  auto const bad = GENERATE(as<std::string>(), "==x", "name==", "name,", ",name", "name=x",
                            "name==\"x", "name==\"\\q\"", "name==\"\\x4\"", "name==\"\\ud800\"",
                            "name~=(", "name~=/x", "labels.", "name x", "name==a b", "\"name");
  CAPTURE(bad);
  auto const filters = Filters::parse(std::span(&bad, 1));

  REQUIRE_FALSE(filters.has_value());
  CHECK(filters.error().code == Refusal::invalid_argument);
  CHECK_THAT(filters.error().message(), Catch::Contains("`" + bad + "`"));
}

}  // namespace filter_test
}  // namespace oci_snapshotter
