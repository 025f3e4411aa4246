// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/image/index_store.hpp>  // first: proves that the header stands alone

#include <chrono>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <signal.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch.hpp>
#include <scratch.hpp>

#include <erofs_oci/digest/sha256.hpp>
#include <erofs_oci/source/memory.hpp>

#include "input_tar.hpp"

namespace erofs_oci {
namespace index_store_test {

namespace fs = std::filesystem;

tarindex::BuiltLayer build(Bytes const& tar) {
  auto built = tarindex::build_layer(Memory(tar));
  REQUIRE(built.has_value());
  return *std::move(built);
}

std::size_t entries(std::string const& path) {
  return static_cast<std::size_t>(
      std::distance(fs::directory_iterator(path), fs::directory_iterator()));
}

/// An empty store, the index of a layer to put into it, and the digests of two images.
struct OneLayer {
  test::Scratch const dir;
  IndexStore const store = IndexStore::open(dir / "store").value();
  tarindex::BuiltLayer const built = build(input_tar("basic"));
  Digest const blob = built.index.blob;
  Digest const image = digest_of(as_bytes("an image"));
  Digest const other = digest_of(as_bytes("another image"));
};

TEST_CASE("What is put is found, and nothing else", "[image][index_store]") {
  test::Scratch const dir;
  auto const store = IndexStore::open(dir / "a/b/store");
  REQUIRE(store.has_value());
  auto const built = build(input_tar("basic"));
  CHECK_FALSE(store->find_layer(built.index.blob)->has_value());

  REQUIRE(store->put_layer(built.index.blob, built).has_value());
  REQUIRE(
      store->put_layer(built.index.blob, built).has_value());  // the second time changes nothing

  auto const found = store->find_layer(built.index.blob);
  REQUIRE(found.has_value());
  REQUIRE(found->has_value());
  CHECK((**found).index.index.diff_id == built.index.diff_id);
  CHECK((**found).tarindex.size() == built.tarindex.size());
  CHECK((**found).dangling.empty());
  CHECK_FALSE(store->find_layer(digest_of(as_bytes("other")))->has_value());
  CHECK(entries(dir / "a/b/store/tmp") == 0);
  CHECK((fs::status(dir / "a/b/store/read").permissions() & fs::perms(077)) == fs::perms::none);
}

TEST_CASE_METHOD(OneLayer, "An index of another version counts as not there, and goes",
                 "[image][index_store]") {
  REQUIRE(store.put_layer(blob, built).has_value());
  auto const entry = dir / "store/read/sha256-" + blob.hex();
  {
    std::fstream file(entry + "/index", std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(8);
    file.put(1);
  }

  auto const found = store.find_layer(blob);

  REQUIRE(found.has_value());
  CHECK_FALSE(found->has_value());
  CHECK_FALSE(fs::exists(entry));
  REQUIRE(store.put_layer(blob, built).has_value());
  CHECK(store.find_layer(blob)->has_value());
}

TEST_CASE_METHOD(OneLayer, "A claim is found for the image that made it alone",
                 "[image][index_store]") {
  REQUIRE(store.put_layer(blob, built, image).has_value());

  CHECK(store.find_layer(blob, image)->has_value());
  CHECK(store.holds_layer(blob, image));
  CHECK_FALSE(store.find_layer(blob)->has_value());
  CHECK_FALSE(store.find_layer(blob, other)->has_value());
  CHECK_FALSE(store.holds_layer(blob, other));
  CHECK_FALSE(store.find_layer(image, blob)->has_value());

  auto read = build(input_tar("basic"));
  read.index.span_size += 1;  // to tell them apart
  REQUIRE(store.put_layer(blob, read).has_value());
  auto const span_size = [&](std::optional<Digest> const& who) {
    return (*store.find_layer(blob, who))->index.index.span_size;
  };
  CHECK(span_size(image) == built.index.span_size);  // the claim goes first
  CHECK(span_size(other) == read.index.span_size);
  CHECK(span_size(std::nullopt) == read.index.span_size);
  CHECK(store.holds_layer(blob, other));
}

TEST_CASE_METHOD(OneLayer, "What an image finds of a layer is removed, its claim first",
                 "[image][index_store]") {
  for (auto const& who : {std::optional(image), std::optional(other), std::optional<Digest>()}) {
    REQUIRE(store.put_layer(blob, built, who).has_value());
  }
  auto const held = [&] {
    return std::array{store.holds_layer(blob, image), store.holds_layer(blob, other),
                      store.holds_layer(blob)};
  };

  auto const open = store.find_layer(blob, image);
  REQUIRE(store.remove_layer(blob, image).has_value());
  CHECK(entries(dir / "store/claimed") == 1);
  CHECK(held() == std::array{true, true, true});
  Bytes bytes((**open).tarindex.size());
  CHECK(read_exact((**open).tarindex, 0, bytes).has_value());

  REQUIRE(store.remove_layer(blob, image).has_value());  // it has no claim any more
  CHECK(held() == std::array{false, true, false});
  REQUIRE(store.remove_layer(blob, image).has_value());  // nothing is there
  CHECK(entries(dir / "store/tmp") == 0);
}

/// Makes an entry's last use lie that many hours back.
void age(std::string const& path, int hours) {
  fs::last_write_time(path, fs::file_time_type::clock::now() - std::chrono::hours(hours));
}

std::vector<std::string> names_of(Result<std::vector<PrunedEntry>> const& pruned) {
  std::vector<std::string> names;
  for (auto const& entry : pruned.value()) names.push_back(entry.name);
  return names;
}

TEST_CASE("A store loses what was unused longest", "[image][index_store]") {
  test::Scratch const dir;
  auto const store = IndexStore::open(dir / "store").value();
  Bytes const bytes(1000, std::byte{7});
  for (auto const* const key : {"c", "a", "b"}) REQUIRE(store.put_image(key, bytes).has_value());
  age(dir / "store/images/a", 3);
  age(dir / "store/images/b", 2);
  age(dir / "store/images/c", 1);

  SECTION("by size") {
    auto const pruned = store.prune({.bytes = 2500});
    CHECK(names_of(pruned) == std::vector<std::string>{"images/a"});
    CHECK(pruned->front().bytes == 1000 + 71);  // and its digest
    CHECK_FALSE(store.find_image("a")->has_value());
    CHECK(store.find_image("b")->has_value());
    CHECK(entries(dir / "store/tmp") == 0);
  }
  SECTION("by age") {
    CHECK(names_of(store.prune({.used = std::chrono::minutes(90)})) ==
          std::vector<std::string>{"images/a", "images/b"});
  }
  SECTION("a look at an entry is a use of it") {
    REQUIRE(store.find_image("a")->has_value());
    CHECK(names_of(store.prune({.bytes = 2500})) == std::vector<std::string>{"images/b"});
  }
  SECTION("what is open stays, for as long as it is") {
    {
      auto const used = store.find_image("a").value();
      age(dir / "store/images/a", 3);
      CHECK(names_of(store.prune({.bytes = 0})) ==
            std::vector<std::string>{"images/b", "images/c"});
    }
    CHECK(names_of(store.prune({.bytes = 0})) == std::vector<std::string>{"images/a"});
  }
  SECTION("nothing that is to be kept") {
    CHECK(names_of(store.prune({})).empty());
    CHECK(names_of(store.prune({.bytes = 10'000, .used = std::chrono::hours(4)})).empty());
  }
}

TEST_CASE_METHOD(OneLayer, "Layers are pruned, too, and not while they are open",
                 "[image][index_store]") {
  REQUIRE(store.put_layer(blob, built).has_value());
  REQUIRE(store.put_layer(blob, built, image).has_value());
  {
    auto const used = store.find_layer(blob).value();
    REQUIRE(used.has_value());
    auto const names = names_of(store.prune({.bytes = 0}));
    REQUIRE(names.size() == 1);
    CHECK(names[0].starts_with("claimed/"));
  }
  CHECK(names_of(store.prune({.bytes = 0})).size() == 1);
}

TEST_CASE_METHOD(OneLayer, "A claim is unproved until somebody says that it is proved",
                 "[image][index_store]") {
  REQUIRE(store.put_layer(blob, built, image).has_value());
  auto const found = store.find_layer(blob, image).value();
  REQUIRE(found.has_value());
  CHECK(found->unproved == digest_of(index_files(built)->index));

  REQUIRE(store.put_proof(found->entry, digest_of(as_bytes("another"))).has_value());
  CHECK((*store.find_layer(blob, image))->unproved == found->unproved);

  REQUIRE(store.put_proof(found->entry, *found->unproved).has_value());

  CHECK_FALSE((*store.find_layer(blob, image))->unproved);
  CHECK_FALSE(store.find_layer(blob)->has_value());  // it stays a claim
  REQUIRE(store.put_layer(blob, built).has_value());
  CHECK_FALSE((*store.find_layer(blob))->unproved);
  CHECK_FALSE(store.put_proof("claimed/sha256-x", blob).has_value());
}

TEST_CASE_METHOD(OneLayer, "An index that lies is remembered, and found by who began with it alone",
                 "[image][index_store]") {
  auto better = build(input_tar("basic"));
  better.index.span_size += 1;  // to tell them apart
  auto const index = digest_of(index_files(built)->index);
  REQUIRE(store.put_layer(blob, built, image).has_value());
  REQUIRE(store.put_layer(blob, built, other).has_value());
  CHECK_FALSE(store.find_refutation(blob, index));

  REQUIRE(store.put_refutation(blob, index, std::string(3000, 'x')).has_value());

  CHECK(store.find_refutation(blob, index) == std::string(1000, 'x'));
  CHECK_FALSE(store.find_refutation(index, blob));
  CHECK_FALSE(store.find_layer(blob, image)->has_value());
  CHECK_FALSE(store.find_layer(blob, other)->has_value());  // whoever brings it
  CHECK(store.find_layer(blob, image, Refuted::taken)->has_value());

  SECTION("what was made by reading counts in its place") {
    REQUIRE(store.put_layer(blob, better).has_value());
    CHECK((*store.find_layer(blob, image))->index.index.span_size == better.index.span_size);
  }
  SECTION("another claim takes its place") {
    REQUIRE(store.put_layer(blob, better, image).has_value());
    auto const found = store.find_layer(blob, image).value();
    REQUIRE(found.has_value());
    CHECK(found->index.index.span_size == better.index.span_size);
    CHECK(found->unproved == digest_of(index_files(better)->index));
  }
  SECTION("the same one does not count again") {
    REQUIRE(store.put_layer(blob, built, image).has_value());
    CHECK_FALSE(store.find_layer(blob, image)->has_value());
  }
  SECTION("room for others does not make it forgotten, but time does") {
    CHECK(names_of(store.prune({.bytes = 0})).size() == 2);
    CHECK(store.find_refutation(blob, index));
    age(fs::directory_iterator(dir / "store/refuted")->path(), 3);
    CHECK(names_of(store.prune({.used = std::chrono::hours(2)})).size() == 1);
    CHECK_FALSE(store.find_refutation(blob, index));
  }
}

TEST_CASE("A store has a limit", "[image][index_store]") {
  test::Scratch const dir;
  Bytes const bytes(1000, std::byte{7});
  SECTION("the oldest entries make room") {
    auto const store = IndexStore::open(dir / "store", {.bytes = 2500}).value();
    REQUIRE(store.put_image("a", bytes).has_value());
    age(dir / "store/images/a", 3);
    REQUIRE(store.put_image("b", bytes).has_value());
    age(dir / "store/images/b", 2);
    REQUIRE(store.put_image("c", bytes).has_value());
    CHECK_FALSE(fs::exists(dir / "store/images/a"));
    CHECK(fs::exists(dir / "store/images/b"));
    CHECK(fs::exists(dir / "store/images/c"));
  }
  SECTION("or a new one is refused") {
    auto const store =
        IndexStore::open(dir / "store", {.bytes = 2500, .full = StoreLimit::Full::refuse}).value();
    REQUIRE(store.put_image("a", bytes).has_value());
    REQUIRE(store.put_image("b", bytes).has_value());
    auto const refused = store.put_image("c", bytes);
    REQUIRE_FALSE(refused.has_value());
    CHECK(refused.error().code == std::errc::no_space_on_device);
    CHECK_THAT(refused.error().message(), Catch::Contains("oci.store"));
    CHECK(entries(dir / "store/images") == 2);
    CHECK(entries(dir / "store/tmp") == 0);
  }
}

TEST_CASE("A directory that others can write to is no store", "[image][index_store][error]") {
  test::Scratch const dir;
  for (auto const* part : {"", "/read", "/claimed", "/refuted", "/images", "/starts", "/tmp"}) {
    for (auto const mode : {fs::perms::group_write, fs::perms::others_write}) {
      INFO(part);
      auto const root = dir / "store";
      REQUIRE(IndexStore::open(root).has_value());
      fs::permissions(root + part, mode, fs::perm_options::add);
      auto const store = IndexStore::open(root);
      REQUIRE_FALSE(store.has_value());
      CHECK(store.error().code == std::errc::operation_not_permitted);
      CHECK_THAT(store.error().message(), Catch::Contains(root + part));
      fs::remove_all(root);
    }
  }
  if (::geteuid() == 0) {
    auto const root = dir / "foreign";
    REQUIRE(IndexStore::open(root).has_value());
    REQUIRE(::chown(root.c_str(), 65534, 65534) == 0);
    CHECK_FALSE(IndexStore::open(root).has_value());
  }
}

TEST_CASE("The store's own directory is private whatever the umask", "[image][index_store]") {
  test::Scratch const dir;
  auto const before = ::umask(0);
  auto const store = IndexStore::open(dir / "store");
  ::umask(before);
  REQUIRE(store.has_value());
  for (auto const* part : {"", "/read", "/claimed", "/refuted", "/images", "/starts", "/tmp"}) {
    CHECK((fs::status(store->root() + part).permissions() & fs::perms(0777)) == fs::perms(0700));
  }
}

TEST_CASE("Entries of which nobody knows where they are from go", "[image][index_store]") {
  test::Scratch const dir;
  fs::create_directories(dir / "store/layers/sha256-x");
  fs::permissions(dir / "store", fs::perms(0700));

  auto const store = IndexStore::open(dir / "store");

  REQUIRE(store.has_value());
  CHECK_FALSE(fs::exists(dir / "store/layers"));
  CHECK(entries(dir / "store/tmp") == 0);
}

TEST_CASE("Links to other layers are kept with their layer", "[image][index_store]") {
  test::Scratch const dir;
  auto const store = IndexStore::open(dir / "store");
  auto built = build(input_tar("badhl"));
  REQUIRE(built.layer.dangling.size() == 1);

  REQUIRE(store->put_layer(built.index.blob, built).has_value());

  auto const found = store->find_layer(built.index.blob);
  REQUIRE((found.has_value() && found->has_value()));
  CHECK((**found).dangling == built.layer.dangling);
}

TEST_CASE("A merged image is found by its key", "[image][index_store]") {
  test::Scratch const dir;
  auto const store = IndexStore::open(dir / "store");
  auto const image = to_bytes("an image");
  CHECK_FALSE(store->find_image("k1")->has_value());

  REQUIRE(store->put_image("k1", image).has_value());

  auto const found = store->find_image("k1");
  REQUIRE((found.has_value() && found->has_value()));
  CHECK((**found).size() == image.size());
  CHECK_FALSE(store->find_image("k2")->has_value());
}

TEST_CASE("An entry with a changed byte or a missing file is not found",
          "[image][index_store][error]") {
  auto const name = GENERATE("index", "tarindex", "links");
  auto const damage = GENERATE(0, 1, 2);
  test::Scratch const dir;
  auto const store = IndexStore::open(dir / "store");
  auto const built = build(input_tar("badhl"));
  REQUIRE(store->put_layer(built.index.blob, built).has_value());
  auto const path = dir / ("store/read/sha256-" + built.index.blob.hex() + "/" + name);
  REQUIRE(fs::exists(path));

  if (damage == 0) fs::resize_file(path, fs::file_size(path) - 1);
  if (damage == 1) fs::remove(path);
  if (damage == 2) {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(static_cast<std::streamoff>(fs::file_size(path) / 2));
    file.put('\x5a');
  }

  auto const found = store->find_layer(built.index.blob);
  REQUIRE(found.has_value());
  CHECK_FALSE(found->has_value());
  REQUIRE(store->put_layer(built.index.blob, built).has_value());
  CHECK(store->find_layer(built.index.blob)->has_value());
}

TEST_CASE_METHOD(OneLayer, "Many writers of one entry leave one whole entry",
                 "[image][index_store][threads]") {
  std::atomic<int> good{0};
  {
    std::vector<std::jthread> writers;
    for (int i = 0; i < 8; ++i) {
      writers.emplace_back([&] {
        for (int n = 0; n < 5; ++n) {
          auto const found = store.put_layer(blob, built) ? store.find_layer(blob)
                                                          : Result<std::optional<StoredLayer>>{};
          good += found && *found ? 1 : 0;
        }
      });
    }
  }
  CHECK(good == 40);
  CHECK(entries(dir / "store/read") == 1);
  CHECK(entries(dir / "store/tmp") == 0);
}

TEST_CASE("Leftovers of a killed writer go after a day, and not before", "[image][index_store]") {
  test::Scratch const dir;
  REQUIRE(IndexStore::open(dir / "store").has_value());
  fs::create_directories(dir / "store/tmp/old");
  std::ofstream(dir / "store/tmp/old/index") << "half";
  fs::create_directories(dir / "store/tmp/new");
  fs::last_write_time(dir / "store/tmp/old",
                      fs::file_time_type::clock::now() - std::chrono::hours(25));

  REQUIRE(IndexStore::open(dir / "store").has_value());

  CHECK_FALSE(fs::exists(dir / "store/tmp/old"));
  CHECK(fs::exists(dir / "store/tmp/new"));
}

// Runs `work` in a child that is killed when it enters or leaves a system call for the `stops`th
// time. Whether it ended by itself before; nothing if this machine lets nobody trace.
template <class Work>
std::optional<bool> ends_before_kill(int stops, Work const& work) {
  auto const child = ::fork();
  if (child == 0) {
    if (::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) != 0) ::_exit(2);
    ::raise(SIGSTOP);
    work();
    ::_exit(0);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  if (WIFEXITED(status)) return std::nullopt;
  for (int i = 0; i < stops; ++i) {
    ::ptrace(PTRACE_SYSCALL, child, nullptr, nullptr);
    ::waitpid(child, &status, 0);
    if (!WIFSTOPPED(status)) return true;
  }
  ::kill(child, SIGKILL);
  ::waitpid(child, &status, 0);
  return false;
}

TEST_CASE("A writer killed at any system call leaves a whole entry or none",
          "[image][index_store]") {
  auto const built = build(input_tar("fwdhl"));
  std::size_t whole = 0;
  std::size_t none = 0;
  for (int stops = 1;; ++stops) {
    INFO("killed at stop " << stops);
    test::Scratch const dir;
    auto const ended = ends_before_kill(stops, [&] {
      auto const store = IndexStore::open(dir / "store");
      if (store) static_cast<void>(store->put_layer(built.index.blob, built).has_value());
    });
    if (!ended) {
      WARN("skipped: no process can be traced");
      return;
    }

    auto const store = IndexStore::open(dir / "store");
    REQUIRE(store.has_value());
    auto const found = store->find_layer(built.index.blob);
    REQUIRE(found.has_value());
    ++(*found ? whole : none);
    CHECK(entries(dir / "store/read") == (*found ? 1U : 0U));
    if (*found) CHECK((**found).tarindex.size() == built.tarindex.size());

    REQUIRE(store->put_layer(built.index.blob, built).has_value());
    CHECK(store->find_layer(built.index.blob)->has_value());
    if (*ended) break;
  }
  CHECK(none > 20);
  CHECK(whole > 1);
}

TEST_CASE("A full disk is an error, and nothing half-made stays", "[image][index_store][error]") {
  test::Scratch const dir;
  fs::create_directories(dir / "disk");
  auto const disk = dir / "disk";
  if (::mount("none", disk.c_str(), "tmpfs", 0, "size=64k") != 0) {
    WARN("skipped: no small file system can be mounted");
    return;
  }
  {
    auto const store = IndexStore::open(disk + "/store");
    REQUIRE(store.has_value());
    Bytes const image(1 << 20);

    auto const put = store->put_image("big", image);

    REQUIRE_FALSE(put.has_value());
    CHECK(put.error().code == std::errc::no_space_on_device);
    CHECK_FALSE(store->find_image("big")->has_value());
    CHECK(entries(disk + "/store/tmp") == 0);
    CHECK(store->put_image("small", Bytes(100)).has_value());
  }
  ::umount(disk.c_str());
}

TEST_CASE("A store that cannot be is an error with its path", "[image][index_store][error]") {
  test::Scratch const dir;
  std::ofstream(dir / "file") << "x";
  auto const store = IndexStore::open(dir / "file/store");
  REQUIRE_FALSE(store.has_value());
  CHECK_THAT(store.error().message(), Catch::Contains(dir / "file/store"));
}

TEST_CASE("A start list is found by its layers, and replaced as a whole", "[image][index_store]") {
  test::Scratch const dir;
  auto const store = IndexStore::open(dir / "store").value();
  std::vector<Digest> const layers{digest_of(as_bytes("a")), digest_of(as_bytes("b"))};
  std::vector<Digest> const others{layers[1], layers[0]};
  CHECK_FALSE(store.find_start_list(layers).value().has_value());
  StartList list;
  list.add({layers[0], 10, 20});

  REQUIRE(store.put_start_list(layers, list).has_value());
  CHECK(store.find_start_list(layers).value() == list);
  CHECK_FALSE(store.find_start_list(others).value().has_value());
  list.add({layers[1], 0, 5});
  REQUIRE(store.put_start_list(layers, list).has_value());
  CHECK(store.find_start_list(layers).value() == list);
  CHECK(entries(dir / "store/tmp") == 0);
  CHECK(entries(dir / "store/starts") == 1);
}

/// A store with one start list.
struct OneStartList {
  test::Scratch dir;
  IndexStore store = IndexStore::open(dir / "store").value();
  std::vector<Digest> layers{digest_of(as_bytes("a"))};
  StartList list{};

  OneStartList() {
    list.add({layers[0], 10, 20});
    REQUIRE(store.put_start_list(layers, list).has_value());
  }
};

TEST_CASE_METHOD(OneLayer,
                 "Checkpoints are kept with their layer, and are none if they are damaged",
                 "[image][index_store]") {
  ExtraCheckpoints extra;
  REQUIRE(extra.add({{50, 2000, 3}, to_bytes("window")}));
  CHECK_FALSE(store.put_checkpoints(IndexStore::entry_of(blob), extra).has_value());
  CHECK(entries(dir / "store/tmp") == 0);
  REQUIRE(store.put_layer(blob, built).has_value());
  auto const found = [&] { return store.find_layer(blob).value().value(); };
  CHECK(found().extra.empty());
  CHECK(found().entry == IndexStore::entry_of(blob));

  REQUIRE(store.put_checkpoints(found().entry, extra).has_value());
  REQUIRE(found().extra.points().size() == 1);
  CHECK(found().extra.points()[0].start == Checkpoint{50, 2000, 3});
  REQUIRE(extra.add({{500, 9000, 0}, {}}));
  REQUIRE(store.put_checkpoints(found().entry, extra).has_value());
  CHECK(found().extra.points().size() == 2);

  auto const file = dir / "store/" + IndexStore::entry_of(blob) + "/checkpoints";
  fs::resize_file(file, fs::file_size(file) - 1);
  CHECK(found().extra.empty());
  REQUIRE(store.put_checkpoints(found().entry, extra).has_value());
  REQUIRE(store.remove_layer(blob).has_value());
  CHECK_FALSE(fs::exists(file));
}

TEST_CASE("A store keeps the Merkle tree of a merged image beside it", "[image][index_store]") {
  test::Scratch const dir;
  auto const store = IndexStore::open(dir / "store").value();
  auto const key = std::string(64, 'a');
  auto const write = [](std::string text) {
    return [text](int fd) { return write_full(fd, as_bytes(text)); };
  };
  CHECK_FALSE(store.find_verity(key).value().has_value());
  CHECK_FALSE(store.put_verity(key, 4, write("tree")).has_value());  // of no image
  REQUIRE(store.put_image(key, as_bytes("image")).has_value());
  CHECK_FALSE(store.find_verity(key).value().has_value());

  REQUIRE(store.put_verity(key, 4, write("tree")).has_value());
  CHECK(store.find_verity(key).value()->size() == 4);
  auto const torn = store.put_verity(key, 8, [&](int fd) -> Result<void> {
    static_cast<void>(write("half")(fd));
    return fail_errno(ENOSPC, "x");
  });
  CHECK(torn.error().code == std::errc::no_space_on_device);
  CHECK(store.find_verity(key).value()->size() == 4);
  CHECK(entries(dir / "store/tmp") == 0);
  REQUIRE(store.put_verity(key, 8, write("new tree")).has_value());
  CHECK(store.find_verity(key).value()->size() == 8);
  CHECK(store.find_image(key).value().has_value());

  auto const small = IndexStore::open(dir / "store", {100, StoreLimit::Full::refuse}).value();
  CHECK(small.put_verity(key, 1000, write("x")).error().code == std::errc::no_space_on_device);
}

TEST_CASE("A torn start list is an error, and the next one takes its place",
          "[image][index_store][error]") {
  OneStartList const kept;
  auto const& [dir, store, layers, list] = kept;
  auto const file = fs::directory_iterator(dir / "store/starts")->path() / "list";

  fs::resize_file(file, fs::file_size(file) / 2);
  auto const torn = store.find_start_list(layers);
  REQUIRE_FALSE(torn.has_value());
  CHECK(torn.error().code == Errc::corrupt);
  fs::resize_file(file, 1 << 20);
  CHECK_FALSE(store.find_start_list(layers).has_value());

  REQUIRE(store.put_start_list(layers, list).has_value());
  CHECK(store.find_start_list(layers).value() == list);
}

TEST_CASE("Start lists are pruned with the rest", "[image][index_store]") {
  OneStartList const kept;
  auto const& [dir, store, layers, list] = kept;
  CHECK(names_of(store.prune({.used = std::chrono::hours(1)})).empty());

  auto const names = names_of(store.prune({.bytes = 0}));

  REQUIRE(names.size() == 1);
  CHECK(names[0].starts_with("starts/"));
  CHECK_FALSE(store.find_start_list(layers).value().has_value());
}

}  // namespace index_store_test
}  // namespace erofs_oci
