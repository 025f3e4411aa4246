// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/recovery/journal.hpp>  // first: proves that the header stands alone

#include <chrono>
#include <csignal>
#include <filesystem>
#include <optional>
#include <set>
#include <string>

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch.hpp>
#include <rapidcheck/catch.h>
#include <scratch.hpp>

#include <erofs_oci/recovery/process.hpp>

#include "support.hpp"

namespace erofs_oci {
namespace journal_test {

namespace fs = std::filesystem;
using test::Scratch;
using testing::some_record;
using testing::write_file;
using namespace std::chrono_literals;

Journal open(Scratch const& directory) {
  auto journal = Journal::open(directory / "journal");
  if (!journal) FAIL(journal.error().message());
  return *std::move(journal);
}

JournalEntry acquire(Journal const& journal, std::string const& name) {
  auto entry = journal.acquire(name);
  if (!entry) FAIL(entry.error().message());
  return *std::move(entry);
}

Record record_number(std::uint32_t number) {
  auto record = some_record();
  record.daemon.pid = number;
  return record;
}

mode_t mode_of(std::string const& path) {
  struct stat status{};
  REQUIRE(::lstat(path.c_str(), &status) == 0);
  return status.st_mode & 07777;
}

/// The names in the journal's directory.
std::set<std::string> files(Scratch const& directory) {
  std::set<std::string> names;
  for (auto const& entry : fs::directory_iterator(directory / "journal")) {
    names.insert(entry.path().filename().string());
  }
  return names;
}

/// Ends as if killed: runs `work` in a child and waits for it. True if it returned true.
template <class F>
bool in_child(F work) {
  auto const pid = ::fork();
  if (pid == 0) ::_exit(work() ? 0 : 1);
  int status = 0;
  REQUIRE(::waitpid(pid, &status, 0) == pid);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

TEST_CASE("The directory is private and the files are, whatever the umask", "[recovery][journal]") {
  Scratch const directory;
  auto const old = ::umask(GENERATE(0U, 022U, 077U));
  auto const journal = open(directory);
  auto entry = acquire(journal, "nbd0");
  auto const written = entry.write(some_record());
  ::umask(old);

  REQUIRE(written.has_value());
  CHECK(mode_of(directory / "journal") == 0700);
  CHECK(mode_of(directory / "journal/nbd0.record") == 0600);
  CHECK(mode_of(directory / "journal/nbd0.lock") == 0600);
  CHECK(files(directory) == std::set<std::string>{"nbd0.record", "nbd0.lock"});
}

TEST_CASE("A record outlives its entry and is read back", "[recovery][journal]") {
  Scratch const directory;
  auto const journal = open(directory);
  REQUIRE(acquire(journal, "nbd0").write(record_number(1)).has_value());

  CHECK(open(directory).read("nbd0").value() == record_number(1));
  CHECK(journal.list().value() == std::vector<std::string>{"nbd0"});
  CHECK(journal.read("nbd1").error().code == Errc::not_found);
}

TEST_CASE("A directory that others could write to is refused", "[recovery][journal][error]") {
  Scratch const directory;
  auto const path = directory / "journal";

  SECTION("by its mode") {
    REQUIRE(::mkdir(path.c_str(), 0700) == 0);
    REQUIRE(::chmod(path.c_str(), GENERATE(0755U, 0770U, 0701U, 01777U)) == 0);
    CHECK(Journal::open(path).error().code == std::errc::permission_denied);
  }
  SECTION("a symbolic link") {
    REQUIRE(::mkdir((directory / "real").c_str(), 0700) == 0);
    fs::create_symlink(directory / "real", path);
    CHECK_FALSE(Journal::open(path).has_value());
    CHECK_FALSE(Journal::open(path + "/").has_value());
  }
  SECTION("a file") {
    write_file(path, "");
    CHECK_FALSE(Journal::open(path).has_value());
  }
  SECTION("another user's") {
    if (::geteuid() != 0) {
      WARN("skipped: not root");
      return;
    }
    REQUIRE(::mkdir(path.c_str(), 0700) == 0);
    REQUIRE(::chown(path.c_str(), 12345, 12345) == 0);
    CHECK(Journal::open(path).error().code == std::errc::permission_denied);
  }
}

TEST_CASE("A directory that another tool keeps is not made", "[recovery][journal]") {
  Scratch const directory;
  auto const path = directory / "theirs";

  auto const none = JournalDirectory::open_existing(path);
  CHECK(none.error().code == std::errc::no_such_file_or_directory);
  CHECK_FALSE(fs::exists(path));

  REQUIRE(::mkdir(path.c_str(), 0700) == 0);
  CHECK(JournalDirectory::open_existing(path + "/").has_value());
  REQUIRE(::chmod(path.c_str(), 0755) == 0);
  CHECK(JournalDirectory::open_existing(path).error().code == std::errc::permission_denied);
}

TEST_CASE("A record that others could have written is not read", "[recovery][journal][error]") {
  Scratch const directory;
  auto const journal = open(directory);
  REQUIRE(acquire(journal, "nbd0").write(some_record()).has_value());
  auto const path = directory / "journal/nbd0.record";

  SECTION("by its mode") {
    REQUIRE(::chmod(path.c_str(), GENERATE(0644U, 0660U, 0602U, 04600U)) == 0);
  }
  SECTION("another user's") {
    if (::geteuid() != 0) {
      WARN("skipped: not root");
      return;
    }
    REQUIRE(::chown(path.c_str(), 12345, 12345) == 0);
  }
  SECTION("a symbolic link") {
    fs::rename(path, directory / "journal/elsewhere");
    fs::create_symlink(directory / "journal/elsewhere", path);
  }
  SECTION("a file with another name") {
    fs::create_hard_link(path, directory / "journal/second");
  }
  SECTION("a FIFO, which is not waited for") {
    fs::remove(path);
    REQUIRE(::mkfifo(path.c_str(), 0600) == 0);
  }
  SECTION("a directory") {
    fs::remove(path);
    fs::create_directory(path);
  }

  auto const record = journal.read("nbd0");

  REQUIRE_FALSE(record.has_value());
  CHECK(record.error().code != Errc::not_found);
}

TEST_CASE("An empty or torn record under its own name is an error, not a source",
          "[recovery][journal][error]") {
  Scratch const directory;
  auto const journal = open(directory);
  REQUIRE(acquire(journal, "nbd0").write(some_record()).has_value());
  auto const path = directory / "journal/nbd0.record";
  auto const size = fs::file_size(path);

  fs::resize_file(path, GENERATE_COPY(std::uintmax_t{0}, std::uintmax_t{1}, size / 2, size - 1,
                                      size + 1, std::uintmax_t{100} << 20));

  CHECK_FALSE(journal.read("nbd0").has_value());
}

TEST_CASE("Names that lead out of the directory are refused", "[recovery][journal][error]") {
  Scratch const directory;
  auto const journal = open(directory);
  REQUIRE(acquire(journal, "nbd0").write(some_record()).has_value());
  auto const name = GENERATE(as<std::string>(), "", ".", "..", "../journal/nbd0", "/etc/passwd",
                             "a/b", "nbd0.record", "nbd0\n", "/run/erofsmount/nbd/mountnbd_x");

  CHECK(journal.acquire(name).error().code == Errc::invalid_argument);
  CHECK(journal.read(name).error().code == Errc::invalid_argument);
  CHECK(journal.is_held(name).error().code == Errc::invalid_argument);
  CHECK(acquire(journal, "nbd0").rename(name).error().code == Errc::invalid_argument);
}

TEST_CASE("A name is had once, in this process as in others", "[recovery][journal]") {
  Scratch const directory;
  auto const journal = open(directory);
  {
    auto entry = acquire(journal, "nbd0");
    REQUIRE(entry.write(record_number(4711)).has_value());

    auto const second = journal.acquire("nbd0");
    REQUIRE_FALSE(second.has_value());
    CHECK(second.error().code == std::errc::device_or_resource_busy);
    CHECK_THAT(second.error().message(), Catch::Contains("4711"));
    CHECK(journal.is_held("nbd0").value());
    CHECK_FALSE(in_child([&] { return journal.acquire("nbd0").has_value(); }));
    CHECK(journal.acquire("nbd1").has_value());
  }
  CHECK_FALSE(journal.is_held("nbd0").value());
  CHECK(journal.acquire("nbd0").has_value());
}

TEST_CASE("A child keeps the lock that its parent lets go, and its death frees it",
          "[recovery][journal]") {
  Scratch const directory;
  auto const journal = open(directory);
  auto entry = std::optional(acquire(journal, "nbd0"));
  auto const pid = ::fork();
  if (pid == 0) {
    ::pause();
    ::_exit(0);
  }
  REQUIRE(pid > 0);

  entry.reset();

  CHECK(journal.is_held("nbd0").value());
  CHECK_FALSE(journal.acquire("nbd0").has_value());
  ::kill(pid, SIGKILL);
  CHECK(journal.acquire("nbd0", 10s).has_value());  // waits for the end, no longer than told
  ::waitpid(pid, nullptr, 0);
}

TEST_CASE("Waiting for a daemon that lives on is bounded", "[recovery][journal]") {
  Scratch const directory;
  auto const journal = open(directory);
  auto const entry = acquire(journal, "nbd0");
  ManualClock const clock;
  auto const begin = clock.now();

  auto const second = journal.acquire("nbd0", 3s, clock);

  CHECK(second.error().code == std::errc::device_or_resource_busy);
  CHECK(clock.now() - begin >= 3s);
  CHECK(clock.now() - begin < 3100ms);
}

TEST_CASE("Removing gives the name up and leaves nothing", "[recovery][journal]") {
  Scratch const directory;
  auto const journal = open(directory);
  auto entry = acquire(journal, "nbd0");
  REQUIRE(entry.write(some_record()).has_value());

  REQUIRE(std::move(entry).remove().has_value());

  CHECK(files(directory).empty());
  CHECK(journal.acquire("nbd0").has_value());
}

TEST_CASE("Of many that race for a lock, with removals between, one has it at a time",
          "[recovery][journal]") {
  Scratch const directory;
  auto const journal = JournalDirectory::open(directory / "journal").value();
  auto const witness = directory / "witness";
  auto const end = std::chrono::steady_clock::now() + 1s;
  std::vector<pid_t> children;
  for (int i = 0; i < 6; ++i) {
    auto const pid = ::fork();
    if (pid != 0) {
      children.push_back(pid);
      continue;
    }
    while (std::chrono::steady_clock::now() < end) {
      auto const lock = journal.lock("nbd0.lock");
      if (!lock) ::_exit(1);
      if (!*lock) continue;
      // Exclusive, or somebody else has the lock too.
      UniqueFd const fd(::open(witness.c_str(), O_CREAT | O_EXCL | O_CLOEXEC, 0600));
      if (!fd) ::_exit(2);
      ::sched_yield();
      ::unlink(witness.c_str());
      if (!journal.remove("nbd0.lock")) ::_exit(3);
    }
    ::_exit(0);
  }

  for (auto const pid : children) {
    int status = 0;
    REQUIRE(::waitpid(pid, &status, 0) == pid);
    CHECK(status == 0);
  }
}

TEST_CASE("A device's number can be learnt later", "[recovery][journal]") {
  Scratch const directory;
  auto const journal = open(directory);
  REQUIRE(acquire(journal, "nbd3").write(record_number(1)).has_value());  // of one that is gone
  auto entry = acquire(journal, "erofs_oci-77");
  auto record = record_number(2);
  record.attach.index.reset();
  record.attach.backend = "erofs_oci-77";
  REQUIRE(entry.write(record).has_value());

  REQUIRE(entry.rename("nbd3").has_value());

  CHECK(entry.name() == "nbd3");
  CHECK(journal.read("nbd3").value() == record);
  CHECK(files(directory) == std::set<std::string>{"nbd3.record", "nbd3.lock"});
  CHECK(journal.is_held("nbd3").value());
  CHECK_FALSE(journal.is_held("erofs_oci-77").value());
}

TEST_CASE("A name that lives is not taken by renaming", "[recovery][journal][error]") {
  Scratch const directory;
  auto const journal = open(directory);
  auto living = acquire(journal, "nbd3");
  REQUIRE(living.write(record_number(1)).has_value());
  auto entry = acquire(journal, "erofs_oci-77");
  REQUIRE(entry.write(record_number(2)).has_value());

  CHECK(entry.rename("nbd3").error().code == std::errc::device_or_resource_busy);

  CHECK(entry.name() == "erofs_oci-77");
  CHECK(journal.read("nbd3").value() == record_number(1));
  CHECK(entry.write(record_number(3)).has_value());
}

TEST_CASE("A record that check() refuses is not written", "[recovery][journal][error]") {
  Scratch const directory;
  auto const journal = open(directory);
  auto entry = acquire(journal, "nbd0");
  REQUIRE(entry.write(record_number(1)).has_value());
  auto bad = record_number(2);
  bad.image.repository = "a\nb";

  CHECK(entry.write(bad).error().code == Errc::invalid_argument);

  CHECK(journal.read("nbd0").value() == record_number(1));
}

TEST_CASE("What a crash leaves half written is never read, and goes", "[recovery][journal]") {
  Scratch const directory;
  auto const journal = open(directory);
  REQUIRE(acquire(journal, "nbd0").write(record_number(1)).has_value());
  auto const torn = directory / "journal/nbd0.new";
  auto const next = encode_record(record_number(2)).value();
  for (auto const size : {std::size_t{0}, std::size_t{1}, next.size() / 2, next.size()}) {
    write_file(torn, next.substr(0, size));
    CHECK(journal.read("nbd0").value() == record_number(1));
    CHECK(journal.list().value() == std::vector<std::string>{"nbd0"});

    auto entry = acquire(journal, "nbd0");

    CHECK_FALSE(fs::exists(torn));
    CHECK(journal.read("nbd0").value() == record_number(1));
    write_file(torn, next.substr(0, size));  // now under a writer that goes on
    CHECK(entry.write(record_number(1)).has_value());
    CHECK_FALSE(fs::exists(torn));
  }
}

TEST_CASE("A planted file in the writer's way is not written through", "[recovery][journal]") {
  Scratch const directory;
  auto const journal = open(directory);
  auto entry = acquire(journal, "nbd0");
  write_file(directory / "victim", "precious");
  fs::create_symlink(directory / "victim", directory / "journal/nbd0.new");

  REQUIRE(entry.write(some_record()).has_value());

  CHECK(testing::read_file(directory / "victim") == "precious");
  CHECK(journal.read("nbd0").has_value());
}

TEST_CASE("A writer killed at any instant leaves a whole record", "[recovery][journal][model]") {
  Scratch const directory;
  auto const journal = open(directory);
  REQUIRE(acquire(journal, "nbd0").write(record_number(1)).has_value());
  for (int round = 0; round < 60; ++round) {
    auto const pid = ::fork();
    if (pid == 0) {
      auto entry = journal.acquire("nbd0", 10s);
      if (!entry) ::_exit(1);
      for (std::uint32_t i = 0;; ++i) {
        if (!entry->write(record_number(i))) ::_exit(1);
      }
    }
    REQUIRE(pid > 0);
    ::usleep(static_cast<useconds_t>(3000 + 397 * (round % 17)));
    ::kill(pid, SIGKILL);
    int status = 0;
    REQUIRE(::waitpid(pid, &status, 0) == pid);
    REQUIRE(WIFSIGNALED(status));

    auto const record = journal.read("nbd0");

    REQUIRE(record.has_value());
    CHECK(*record == record_number(record->daemon.pid));
    CHECK(journal.acquire("nbd0").has_value());
    CHECK(files(directory) == std::set<std::string>{"nbd0.record", "nbd0.lock"});
  }
}

TEST_CASE("A write that is cut off at any byte leaves the old record", "[recovery][journal]") {
  Scratch const directory;
  auto const journal = open(directory);
  REQUIRE(acquire(journal, "nbd0").write(record_number(1)).has_value());
  auto const size = encode_record(record_number(2)).value().size();
  for (auto const limit : {std::size_t{0}, std::size_t{1}, size / 2, size - 1}) {
    auto const failed = in_child([&] {
      ::signal(SIGXFSZ, SIG_IGN);
      rlimit const most{limit, limit};
      ::setrlimit(RLIMIT_FSIZE, &most);
      auto entry = journal.acquire("nbd0");
      return entry && !entry->write(record_number(2));
    });

    CHECK(failed);
    CHECK(journal.read("nbd0").value() == record_number(1));
    CHECK(files(directory) == std::set<std::string>{"nbd0.record", "nbd0.lock"});
  }
}

TEST_CASE("A full disk leaves the old record, and the next write works again",
          "[recovery][journal]") {
  Scratch const directory;
  auto const mounted = directory / "full";
  fs::create_directory(mounted);
  if (::mount("tmpfs", mounted.c_str(), "tmpfs", 0, "size=64k,mode=0700") != 0) {
    WARN("skipped: no tmpfs can be mounted");
    return;
  }
  {
    auto const journal = Journal::open(mounted + "/journal").value();
    auto entry = journal.acquire("nbd0").value();
    REQUIRE(entry.write(record_number(1)).has_value());
    auto const filler = mounted + "/filler";
    {
      UniqueFd const fd(::open(filler.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
      Bytes const page(4096, std::byte{1});
      while (write_full(fd.get(), page)) {}
    }

    auto const written = entry.write(record_number(2));

    REQUIRE_FALSE(written.has_value());
    CHECK(written.error().code == std::errc::no_space_on_device);
    CHECK(journal.read("nbd0").value() == record_number(1));
    CHECK_FALSE(fs::exists(mounted + "/journal/nbd0.new"));
    fs::remove(filler);
    CHECK(entry.write(record_number(2)).has_value());
    CHECK(journal.read("nbd0").value() == record_number(2));
  }
  CHECK(::umount2(mounted.c_str(), MNT_DETACH) == 0);
}

TEST_CASE("gc removes what belongs to no device, and nothing that lives", "[recovery][journal]") {
  Scratch const directory;
  auto const journal = open(directory);
  for (auto const* name : {"nbd0", "nbd1", "nbd2", "nbd3"}) {
    REQUIRE(acquire(journal, name).write(some_record()).has_value());
  }
  auto const living = acquire(journal, "nbd2");
  write_file(directory / "journal/nbd3.record", "torn");
  fs::permissions(directory / "journal/nbd3.record", fs::perms(0600));
  write_file(directory / "journal/nbd4.new", "leftover");
  { auto const unused = acquire(journal, "nbd5"); }
  write_file(directory / "journal/README", "not ours");
  std::set<std::string> asked;
  std::set<std::string> unreadable;

  auto const removed = journal.gc([&](std::string const& name, Record const* record) {
    asked.insert(name);
    if (record == nullptr) unreadable.insert(name);
    return name == "nbd1";
  });

  CHECK(removed.value() == std::vector<std::string>{"nbd0", "nbd3"});
  CHECK(asked == std::set<std::string>{"nbd0", "nbd1", "nbd3"});
  CHECK(unreadable == std::set<std::string>{"nbd3"});
  CHECK(files(directory) ==
        std::set<std::string>{"README", "nbd1.lock", "nbd1.record", "nbd2.lock", "nbd2.record"});
  CHECK(journal.read("nbd1").has_value());
}

}  // namespace journal_test
}  // namespace erofs_oci
