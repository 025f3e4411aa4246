// SPDX-License-Identifier: Apache-2.0
#include "store.hpp"  // first: proves that the header stands alone

#include <filesystem>
#include <fstream>
#include <optional>

#include <catch.hpp>
#include <rapidcheck/catch.h>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/digest/sha256.hpp>
#include <erofs_oci/posix/temporary_directory.hpp>

#include "refusal.hpp"

namespace oci_snapshotter {
namespace store_test {

using erofs_oci::Errc;

Labels const by_chain{{reference_label, "sha256:c"}};

/// A store in a directory of its own, and a clock that moves with each look.
struct Fixture {
  erofs_oci::TemporaryDirectory directory =
      erofs_oci::TemporaryDirectory::make("/tmp/snapshot-store-").value();
  std::string path = directory.path() + "/" + metadata_name;
  std::int64_t ticks = 0;
  std::unique_ptr<SnapshotStore> store = open().value();

  ~Fixture() {
    store.reset();
    for (auto const& entry : std::filesystem::directory_iterator(directory.path())) {
      std::filesystem::remove(entry.path());
    }
  }

  Result<std::unique_ptr<SnapshotStore>> open() {
    return SnapshotStore::open(path, [this] { return Time(std::chrono::nanoseconds(++ticks)); });
  }
  void reopen() {
    store.reset();
    store = open().value();
  }
  Result<Snapshot> prepare(std::string const& name, std::string const& parent = "",
                           Labels labels = {}) const {
    return store->create(store->next_id(), name, parent, Kind::active, std::move(labels));
  }
  Result<Snapshot> view(std::string const& name, std::string const& parent = "") const {
    return store->create(store->next_id(), name, parent, Kind::view, {});
  }
};

template <class T>
std::optional<Refusal> refusal(Result<T> const& result) {
  if (result) return std::nullopt;
  for (auto const code : {Refusal::not_found, Refusal::already_exists, Refusal::invalid_argument,
                          Refusal::failed_precondition, Refusal::unavailable}) {
    if (result.error().code == code) return code;
  }
  FAIL(result.error().message());
  return std::nullopt;
}

TEST_CASE("A snapshot is prepared, committed and stood upon", "[snapshotter][store]") {
  Fixture fixture;
  auto& store = *fixture.store;

  auto const active = fixture.prepare("a", "", {{"l", "1"}});
  REQUIRE(active.has_value());
  CHECK(active->info.kind == Kind::active);
  CHECK(active->depth == 1);
  CHECK(active->info.created == active->info.updated);
  auto const committed = store.commit("A", "a", {{"m", "2"}});
  REQUIRE(committed.has_value());
  CHECK(committed->id == active->id);
  CHECK(committed->info.labels == Labels{{"m", "2"}});
  CHECK(committed->info.created > active->info.created);
  CHECK(refusal(store.find("a")) == Refusal::not_found);
  auto const above = fixture.view("v", "A");
  REQUIRE(above.has_value());
  CHECK(above->depth == 2);
  auto const lineage = store.lineage("v");
  REQUIRE(lineage.has_value());
  CHECK(*lineage == std::vector{*above, *committed});
}

TEST_CASE("Each refusal has the code that containerd expects", "[snapshotter][store][error]") {
  Fixture fixture;
  auto& store = *fixture.store;
  REQUIRE(fixture.prepare("a"));
  REQUIRE(store.commit("A", "a", {}));
  REQUIRE(fixture.prepare("b", "A"));
  REQUIRE(fixture.view("v", "A"));

  CHECK(refusal(fixture.prepare("b")) == Refusal::already_exists);
  CHECK(refusal(fixture.view("b")) == Refusal::already_exists);
  CHECK(refusal(fixture.view("A")) == Refusal::already_exists);
  CHECK(refusal(fixture.prepare("c", "none")) == Refusal::not_found);
  CHECK(refusal(fixture.prepare("c", "b")) == Refusal::invalid_argument);
  CHECK(refusal(fixture.prepare("", "A")) == Refusal::invalid_argument);
  CHECK(refusal(store.commit("A", "b", {})) == Refusal::already_exists);
  CHECK(refusal(store.commit("V", "v", {})) == Refusal::failed_precondition);
  CHECK(refusal(store.commit("B", "A", {})) == Refusal::failed_precondition);
  CHECK(refusal(store.commit("B", "none", {})) == Refusal::not_found);
  CHECK(refusal(store.remove("none")) == Refusal::not_found);
  auto const parent = store.remove("A");
  CHECK(refusal(parent) == Refusal::failed_precondition);
  CHECK_THAT(parent.error().message(), Catch::Contains("remove"));
  CHECK(refusal(store.find("none")) == Refusal::not_found);
  CHECK(refusal(store.lineage("none")) == Refusal::not_found);
  CHECK(refusal(store.update({.name = "none"}, {})) == Refusal::not_found);

  REQUIRE(store.remove("b"));
  REQUIRE(store.remove("v"));
  CHECK(store.remove("A").has_value());
  CHECK(fixture.prepare("A").has_value());
}

TEST_CASE("Update changes what its mask names", "[snapshotter][store]") {
  Fixture fixture;
  auto& store = *fixture.store;
  auto const before = fixture.prepare("a", "", {{"l1", "a"}, {"l2", "b"}, {"l3", "c"}});
  REQUIRE(before.has_value());
  Info const wanted{
      .name = "a", .parent = "other", .kind = Kind::committed, .labels = {{"l1", "A"}}};
  using Row = std::tuple<std::vector<std::string>, Labels>;
  auto const [paths, labels] =
      GENERATE(Row{{}, {{"l1", "A"}}}, Row{{"labels"}, {{"l1", "A"}}},
               Row{{"labels.l1", "labels.l2"}, {{"l1", "A"}, {"l3", "c"}}},
               Row{{"labels.l9"}, {{"l1", "a"}, {"l2", "b"}, {"l3", "c"}}});

  auto const after = store.update(wanted, paths);

  REQUIRE(after.has_value());
  CHECK(after->labels == labels);
  CHECK(after->parent.empty());
  CHECK(after->kind == Kind::active);
  CHECK(after->created == before->info.created);
  CHECK(after->updated > before->info.updated);
  CHECK(store.find("a")->info == *after);
}

TEST_CASE("Update refuses what cannot change, and then changes nothing",
          "[snapshotter][store][error]") {
  Fixture fixture;
  auto const before = fixture.prepare("a", "", {{"l", "1"}});
  auto const path = GENERATE(as<std::string>(), "parent", "name", "kind", "labels.", "label");
  auto const paths = std::vector<std::string>{"labels.l", path};

  CHECK(refusal(fixture.store->update({.name = "a"}, paths)) == Refusal::invalid_argument);

  CHECK(*fixture.store->find("a") == *before);
}

TEST_CASE("A claim is made once for a chain and a parent", "[snapshotter][store][claim]") {
  Fixture fixture;
  auto& store = *fixture.store;

  auto const first = store.claim("k8s.io/1/extract x", "", by_chain, "sha256:m");
  auto const again = store.claim("other/2/extract y", "", by_chain, "sha256:n");

  REQUIRE(first.has_value());
  REQUIRE(again.has_value());
  CHECK(first->info.name != "k8s.io/1/extract x");
  CHECK(first->info.kind == Kind::committed);
  CHECK(first->info.labels == by_chain);
  CHECK(first->chain == "sha256:c");
  CHECK(again->id == first->id);
  CHECK(again->manifests == std::vector<std::string>{"sha256:m", "sha256:n"});
  CHECK(store.claimed("sha256:c", "") == *again);
  CHECK_FALSE(store.claimed("sha256:c", first->info.name).has_value());
  auto const above = store.claim("z", first->info.name, by_chain, "sha256:m");
  REQUIRE(above.has_value());
  CHECK(above->info.parent == first->info.name);
  CHECK(above->depth == 2);
  CHECK(refusal(store.claim("z", "none", by_chain, "m")) == Refusal::not_found);
  CHECK(refusal(store.claim("z", "", {}, "m")) == Refusal::invalid_argument);
}

TEST_CASE("An empty chain ID is nobody's claim", "[snapshotter][store][claim]") {
  Fixture fixture;
  auto& store = *fixture.store;
  REQUIRE(fixture.prepare("a").has_value());
  REQUIRE(store.commit("c", "a", {}).has_value());
  CHECK_FALSE(store.claimed("", "").has_value());
}

TEST_CASE("A claim's name is unique whatever was called so", "[snapshotter][store][claim]") {
  Fixture fixture;
  REQUIRE(fixture.prepare("k-served"));

  auto const claim = fixture.store->claim("k", "", by_chain, "m");

  REQUIRE(claim.has_value());
  CHECK(claim->info.name != "k-served");
}

TEST_CASE("A layer that was unpacked under the chain ID serves as a claim",
          "[snapshotter][store][claim]") {
  Fixture fixture;
  REQUIRE(fixture.prepare("a"));
  auto const unpacked = fixture.store->commit("A", "a", by_chain);

  auto const claim = fixture.store->claim("k", "", by_chain, "m");

  REQUIRE(claim.has_value());
  CHECK(*claim == *unpacked);
  CHECK_FALSE(claim->is_served());
}

TEST_CASE("What was refuted is claimed by nobody any more", "[snapshotter][store][claim]") {
  Fixture fixture;
  auto& store = *fixture.store;
  auto const low = store.claim("1", "", {{reference_label, "one"}}, "evil");
  REQUIRE(store.claim("1", "", {{reference_label, "one"}}, "honest"));
  auto const middle = store.claim("2", low->info.name, {{reference_label, "two"}}, "evil");
  auto const top = store.claim("3", middle->info.name, {{reference_label, "three"}}, "evil");
  auto const other = store.claim("4", "", {{reference_label, "four"}}, "evil");
  REQUIRE(fixture.prepare("container", other->info.name));

  REQUIRE(store.refute("evil", "other bytes"));

  if (GENERATE(false, true)) fixture.reopen();
  auto& now = *fixture.store;
  CHECK(now.find(low->info.name)->manifests == std::vector<std::string>{"honest"});
  CHECK(refusal(now.find(middle->info.name)) == Refusal::not_found);
  CHECK(refusal(now.find(top->info.name)) == Refusal::not_found);
  CHECK(now.find(other->info.name)->manifests.empty());
  CHECK(now.refuted("evil") == "other bytes");
  CHECK_FALSE(now.refuted("honest").has_value());
}

TEST_CASE("Images and layers are forgotten with the last claim", "[snapshotter][store]") {
  Fixture fixture;
  auto const digest = [](std::string_view text) {
    return erofs_oci::digest_of(erofs_oci::as_bytes(text));
  };
  ImageFacts const image{"m", "host/app", {{digest("blob"), digest("tar")}}};
  REQUIRE(fixture.store->remember(image));
  REQUIRE(fixture.store->note_diff_ids(image.layers));
  auto const claim = fixture.store->claim("k", "", by_chain, "m");
  REQUIRE(fixture.store->forget_unused_images());

  fixture.reopen();
  CHECK(fixture.store->image("m") == image);
  CHECK(fixture.store->diff_id(digest("blob")) == digest("tar"));
  REQUIRE(fixture.store->remove(claim->info.name));
  REQUIRE(fixture.store->forget_unused_images());
  CHECK_FALSE(fixture.store->image("m").has_value());
  fixture.reopen();
  CHECK_FALSE(fixture.store->image("m").has_value());
  CHECK_FALSE(fixture.store->diff_id(digest("blob")).has_value());
}

// ---------------------------------------------------------------- the file

TEST_CASE("A number is never a snapshot's again", "[snapshotter][store]") {
  Fixture fixture;
  auto const first = fixture.prepare("a");
  REQUIRE(fixture.store->remove("a"));

  fixture.reopen();

  CHECK(fixture.store->next_id() > first->id);
}

TEST_CASE("A damaged table is named, with the way to heal it, and left alone",
          "[snapshotter][store][error]") {
  Fixture fixture;
  for (int i = 0; i < 200; ++i) REQUIRE(fixture.prepare("snapshot " + std::to_string(i)));
  fixture.store.reset();
  auto const damage = GENERATE(0, 1, 2, 3);
  {
    std::fstream file(fixture.path, std::ios::in | std::ios::out | std::ios::binary);
    if (damage == 0) file << "something else";
    if (damage == 1) {
      file.seekp(4096);  // of the second page the head
      file << std::string(3000, '\xff');
    }
  }
  if (damage == 2) std::filesystem::resize_file(fixture.path, 0);
  if (damage == 3) std::filesystem::resize_file(fixture.path, 8192);
  std::ifstream before(fixture.path, std::ios::binary);
  std::string const bytes(std::istreambuf_iterator<char>(before), {});

  auto const opened = fixture.open();

  REQUIRE_FALSE(opened.has_value());
  CHECK(opened.error().code == Errc::corrupt);
  CHECK_THAT(opened.error().message(),
             Catch::Contains(fixture.path) && Catch::Contains("to heal it"));
  std::ifstream after(fixture.path, std::ios::binary);
  CHECK(bytes == std::string(std::istreambuf_iterator<char>(after), {}));
}

TEST_CASE("A table of a newer version is refused", "[snapshotter][store][error]") {
  Fixture fixture;
  fixture.store.reset();
  {
    std::fstream file(fixture.path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(60);  // user_version, by SQLite's file format, 1.3
    file.write("\0\0\0\x7f", 4);
  }

  auto const opened = fixture.open();

  REQUIRE_FALSE(opened.has_value());
  CHECK(opened.error().code == Errc::unsupported);
  CHECK_THAT(opened.error().message(), Catch::Contains("newer version"));
}

// ---------------------------------------------------------------- a model

/// What the store should be: the dullest map that obeys the rules.
class Model {
 public:
  std::map<std::string, Info> rows;

  std::optional<Refusal> create(std::string const& name, std::string const& parent, Kind kind,
                                Labels const& labels) {
    if (auto const bad = parent_problem(parent)) return bad;
    if (rows.contains(name)) return Refusal::already_exists;
    rows[name] = {.name = name, .parent = parent, .kind = kind, .labels = labels};
    return std::nullopt;
  }
  std::optional<Refusal> commit(std::string const& name, std::string const& key,
                                Labels const& labels) {
    if (!rows.contains(key)) return Refusal::not_found;
    if (rows.contains(name)) return Refusal::already_exists;
    if (rows[key].kind != Kind::active) return Refusal::failed_precondition;
    auto const parent = rows[key].parent;
    rows.erase(key);
    rows[name] = {.name = name, .parent = parent, .kind = Kind::committed, .labels = labels};
    return std::nullopt;
  }
  std::optional<Refusal> remove(std::string const& name) {
    if (!rows.contains(name)) return Refusal::not_found;
    for (auto const& [other, row] : rows) {
      if (row.parent == name) return Refusal::failed_precondition;
    }
    rows.erase(name);
    return std::nullopt;
  }
  std::optional<Refusal> update(std::string const& name, std::string const& label,
                                std::optional<std::string> const& value) {
    if (!rows.contains(name)) return Refusal::not_found;
    rows[name].labels.erase(label);
    if (value) rows[name].labels[label] = *value;
    return std::nullopt;
  }
  std::optional<Refusal> parent_problem(std::string const& parent) {
    if (parent.empty()) return std::nullopt;
    if (!rows.contains(parent)) return Refusal::not_found;
    if (rows[parent].kind != Kind::committed) return Refusal::invalid_argument;
    return std::nullopt;
  }
};

TEST_CASE("The store is a map with rules, closed and opened between any two steps",
          "[snapshotter][store][model]") {
  rc::prop("for all sequences of calls", [] {
    Fixture fixture;
    Model model;
    auto const name = rc::gen::element<std::string>("a", "b", "c", "d/ e", "f'\"", "g");
    auto const parent = rc::gen::element<std::string>("", "a", "b", "c", "d/ e", "f'\"", "g");
    auto const label = rc::gen::element<std::string>("x", "y.z/w");
    auto const steps = *rc::gen::inRange(1, 25);
    for (int step = 0; step < steps; ++step) {
      auto const one = *name;
      auto const two = *parent;
      Labels const labels{{*label, *parent}};
      switch (*rc::gen::inRange(0, 7)) {
        case 0:
        case 1: {
          auto const kind = *rc::gen::element(Kind::active, Kind::active, Kind::view);
          auto const done = fixture.store->create(fixture.store->next_id(), one, two, kind, labels);
          RC_ASSERT(refusal(done) == model.create(one, two, kind, labels));
          break;
        }
        case 2:
        case 3: {
          auto const key = *name;
          RC_ASSERT(refusal(fixture.store->commit(one, key, labels)) ==
                    model.commit(one, key, labels));
          break;
        }
        case 4: RC_ASSERT(refusal(fixture.store->remove(one)) == model.remove(one)); break;
        case 5: {
          auto const which = *label;
          auto const sets = *rc::gen::arbitrary<bool>();
          Info info{.name = one};
          if (sets) info.labels[which] = two;
          auto const paths = std::vector{"labels." + which};
          RC_ASSERT(refusal(fixture.store->update(info, paths)) ==
                    model.update(one, which, sets ? std::optional(two) : std::nullopt));
          break;
        }
        default: fixture.reopen();
      }
      auto const found = fixture.store->list(Filters::parse({}).value());
      RC_ASSERT(found.size() == model.rows.size());
      for (auto info : found) {
        info.created = info.updated = Time();
        RC_ASSERT(info == model.rows.at(info.name));
      }
    }
  });
}

}  // namespace store_test
}  // namespace oci_snapshotter
