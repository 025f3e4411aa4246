// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/image/index_store.hpp>  // first: proves that the header stands alone

#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <signal.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>

#include <erofs_oci/source/memory.hpp>

namespace erofs_oci {
namespace {

namespace fs = std::filesystem;

class Directory {
 public:
  Directory() {
    std::string name = fs::temp_directory_path() / "index-store-XXXXXX";
    path_ = ::mkdtemp(name.data());
  }
  Directory(Directory const&) = delete;
  Directory& operator=(Directory const&) = delete;
  ~Directory() { fs::remove_all(path_); }
  [[nodiscard]] std::string operator/(std::string const& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

tarindex::BuiltLayer build(Bytes const& tar) {
  auto built = tarindex::build_layer<Sha256>(Memory(tar));
  REQUIRE(built.has_value());
  return *std::move(built);
}

Bytes tar_of(std::string const& name) {
  auto const file = Local::open(EROFS_OCI_TEST_DATA "/tarindex/in/" + name + ".tar");
  REQUIRE(file.has_value());
  Bytes bytes(static_cast<std::size_t>(file->size()));
  REQUIRE(read_exact(*file, 0, bytes).has_value());
  return bytes;
}

std::size_t entries(std::string const& path) {
  return static_cast<std::size_t>(
      std::distance(fs::directory_iterator(path), fs::directory_iterator()));
}

TEST_CASE("What is put is found, and nothing else", "[image][index_store]") {
  Directory const dir;
  auto const store = IndexStore::open(dir / "a/b/store");
  REQUIRE(store.has_value());
  auto const built = build(tar_of("basic"));
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
  CHECK((fs::status(dir / "a/b/store/layers").permissions() & fs::perms(077)) == fs::perms::none);
}

TEST_CASE("Links to other layers are kept with their layer", "[image][index_store]") {
  Directory const dir;
  auto const store = IndexStore::open(dir / "store");
  auto built = build(tar_of("badhl"));
  REQUIRE(built.layer.dangling.size() == 1);

  REQUIRE(store->put_layer(built.index.blob, built).has_value());

  auto const found = store->find_layer(built.index.blob);
  REQUIRE((found.has_value() && found->has_value()));
  CHECK((**found).dangling == built.layer.dangling);
}

TEST_CASE("A merged image is found by its key", "[image][index_store]") {
  Directory const dir;
  auto const store = IndexStore::open(dir / "store");
  auto const image = to_bytes("an image");
  CHECK_FALSE(store->find_image("k1")->has_value());

  REQUIRE(store->put_image("k1", image).has_value());

  auto const found = store->find_image("k1");
  REQUIRE((found.has_value() && found->has_value()));
  CHECK((**found).size() == image.size());
  CHECK_FALSE(store->find_image("k2")->has_value());
}

TEST_CASE("An entry with a changed byte or a missing file is gone", "[image][index_store][error]") {
  auto const name = GENERATE("index", "tarindex", "links");
  auto const damage = GENERATE(0, 1, 2);
  Directory const dir;
  auto const store = IndexStore::open(dir / "store");
  auto const built = build(tar_of("badhl"));
  REQUIRE(store->put_layer(built.index.blob, built).has_value());
  auto const path = dir / ("store/layers/sha256-" + built.index.blob.hex() + "/" + name);
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

TEST_CASE("Many writers of one entry leave one whole entry", "[image][index_store][threads]") {
  Directory const dir;
  auto const store = IndexStore::open(dir / "store");
  auto const built = build(tar_of("basic"));
  std::atomic<int> good{0};
  {
    std::vector<std::jthread> writers;
    for (int i = 0; i < 8; ++i) {
      writers.emplace_back([&] {
        for (int n = 0; n < 5; ++n) {
          auto const found = store->put_layer(built.index.blob, built)
                                 ? store->find_layer(built.index.blob)
                                 : Result<std::optional<StoredLayer>>{};
          good += found && *found ? 1 : 0;
        }
      });
    }
  }
  CHECK(good == 40);
  CHECK(entries(dir / "store/layers") == 1);
  CHECK(entries(dir / "store/tmp") == 0);
}

TEST_CASE("Leftovers of a killed writer go after a day, and not before", "[image][index_store]") {
  Directory const dir;
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
  auto const built = build(tar_of("fwdhl"));
  std::size_t whole = 0;
  std::size_t none = 0;
  for (int stops = 1;; ++stops) {
    INFO("killed at stop " << stops);
    Directory const dir;
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
    CHECK(entries(dir / "store/layers") == (*found ? 1U : 0U));
    if (*found) CHECK((**found).tarindex.size() == built.tarindex.size());

    REQUIRE(store->put_layer(built.index.blob, built).has_value());
    CHECK(store->find_layer(built.index.blob)->has_value());
    if (*ended) break;
  }
  CHECK(none > 20);
  CHECK(whole > 1);
}

TEST_CASE("A full disk is an error, and nothing half-made stays", "[image][index_store][error]") {
  Directory const dir;
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
  Directory const dir;
  std::ofstream(dir / "file") << "x";
  auto const store = IndexStore::open(dir / "file/store");
  REQUIRE_FALSE(store.has_value());
  CHECK_THAT(store.error().message(), Catch::Contains(dir / "file/store"));
}

}  // namespace
}  // namespace erofs_oci
