// SPDX-License-Identifier: Apache-2.0
// The journal and the supervision together, against a model: over kills at any step, torn writes
// and full disks there is one daemon at most, and the record is always one that was written whole.
#include <csignal>
#include <fstream>
#include <optional>
#include <string>
#include <vector>

#include <sys/resource.h>
#include <sys/stat.h>

#include <catch.hpp>
#include <rapidcheck/catch.h>
#include <scratch.hpp>

#include <erofs_oci/core/clock.hpp>
#include <erofs_oci/recovery/journal.hpp>
#include <erofs_oci/recovery/supervision.hpp>

#include "support.hpp"

namespace erofs_oci {
namespace model_test {

using namespace std::chrono_literals;

enum class Step {
  kill,              // the daemon, between two writes
  kill_in_write,     // the daemon, with a part of the next record in its temporary file
  kill_after_write,  // the daemon, just after a record took its place
  write,             // the daemon writes its record again
  write_full_disk,   // the same, but the disk holds only a part
  hang,              // no sign of life until the deadline
  gc,                // gc() runs while the device is connected
  intrude,           // another process wants the name
  let_pass,
  stop,
  disconnect,  // the kernel ends the device
};

/// One device, its daemon and its supervisor, without processes: a daemon is its lock.
class World {
 public:
  World()
      : journal_(Journal::open(directory_ / "journal").value()),
        written_(testing::some_record()),
        machine_({.most_failures = 1000, .give_up_after = 100'000'000ms}, clock_) {
    auto entry = journal_.acquire("nbd0");
    RC_ASSERT(entry.has_value());
    RC_ASSERT(entry->write(*written_).has_value());
    RC_ASSERT(machine_.begin() == Decision::start);
    daemon_ = std::nullopt;
    entry_released(*std::move(entry));
    start();
  }

  void take(Step step) {
    switch (step) {
      case Step::kill: die(); break;
      case Step::kill_in_write:
        if (daemon_) tear();
        die();
        break;
      case Step::kill_after_write:
        write();
        die();
        break;
      case Step::write: write(); break;
      case Step::write_full_disk: write_full_disk(); break;
      case Step::hang: hang(); break;
      case Step::gc: gc(); break;
      case Step::intrude:
        RC_ASSERT(journal_.acquire("nbd0", 0ms, clock_).has_value() != lives());
        break;
      case Step::let_pass: let_pass(); break;
      case Step::stop: carry_out(machine_.stop_asked()); break;
      case Step::disconnect: disconnect(); break;
    }
    check();
  }

 private:
  [[nodiscard]] bool lives() const { return daemon_.has_value(); }

  static void entry_released(JournalEntry) {}

  void check() const {
    auto const record = journal_.read("nbd0");
    if (!written_) {
      RC_ASSERT(record.error().code == Errc::not_found);
    } else {
      RC_ASSERT(record.has_value());
      RC_ASSERT(*record == *written_);
      RC_ASSERT(record->image == testing::some_record().image);
    }
    RC_ASSERT(journal_.is_held("nbd0").value() == lives());
    RC_ASSERT(machine_.has_daemon() == lives());
  }

  void carry_out(Decision decision) {
    if (decision == Decision::start) start();
    if (decision == Decision::kill || decision == Decision::terminate) die();
  }

  // A new daemon finds the record, alone, and puts itself into it.
  void start() {
    RC_ASSERT(!lives());
    auto entry = journal_.acquire("nbd0", 0ms, clock_);
    RC_ASSERT(entry.has_value());
    RC_ASSERT(journal_.read("nbd0").value() == *written_);
    daemon_.emplace(*std::move(entry));
    ++number_;
    carry_out(machine_.started());
    if (!lives()) return;
    RC_ASSERT(machine_.answered() == Decision::verify);
    RC_ASSERT(machine_.verified(Verdict::same) == Decision::nothing);
  }

  void die() {
    if (!lives()) return;
    daemon_.reset();
    carry_out(machine_.died({{}, SIGKILL}));
  }

  [[nodiscard]] Record next() {
    auto record = *written_;
    record.daemon.pid = ++number_;
    return record;
  }

  void write() {
    if (!lives()) return;
    auto const record = next();
    RC_ASSERT(daemon_->write(record).has_value());
    written_ = record;
  }

  void write_full_disk() {
    if (!lives()) return;
    auto const record = next();
    auto const size = encode_record(record).value().size();
    rlimit old{};
    ::getrlimit(RLIMIT_FSIZE, &old);
    rlimit const most{*rc::gen::inRange<rlim_t>(0, size), old.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &most);
    auto const written = daemon_->write(record);
    ::setrlimit(RLIMIT_FSIZE, &old);
    RC_ASSERT_FALSE(written.has_value());
  }

  void tear() {
    auto const bytes = encode_record(next()).value();
    auto const part = *rc::gen::inRange<std::size_t>(0, bytes.size() + 1);
    testing::write_file(directory_ / "journal/nbd0.new", bytes.substr(0, part));
  }

  void hang() {
    if (!lives()) return;
    clock_.sleep(5s);
    auto const decision = machine_.expired();
    RC_ASSERT(decision == Decision::kill);
    carry_out(decision);
  }

  void gc() {
    auto const removed =
        journal_.gc([](std::string const&, Record const* record) { return record != nullptr; });
    RC_ASSERT(removed.value().empty());
  }

  void let_pass() {
    clock_.sleep(2s);
    static_cast<void>(machine_.heartbeat());
    carry_out(machine_.expired());
  }

  void disconnect() {
    if (!lives()) return;
    RC_ASSERT(machine_.finished() == Decision::nothing);
    RC_ASSERT(std::move(*daemon_).remove().has_value());
    written_.reset();
    daemon_.reset();
    RC_ASSERT(machine_.died({0, {}}) == Decision::done);
  }

  test::Scratch directory_;
  ManualClock clock_;
  Journal journal_;
  std::optional<Record> written_;  // the oracle: what was written whole, last
  Supervision<ManualClock> machine_;
  std::optional<JournalEntry> daemon_;
  std::uint32_t number_ = 0;
};

TEST_CASE("Kills, torn writes and full disks lose no record and make no second daemon",
          "[recovery][model]") {
  ::signal(SIGXFSZ, SIG_IGN);
  rc::prop("for all schedules", [] {
    auto const steps = *rc::gen::container<std::vector<Step>>(
        rc::gen::weightedElement<Step>({{4, Step::kill},
                                        {4, Step::kill_in_write},
                                        {3, Step::kill_after_write},
                                        {4, Step::write},
                                        {4, Step::write_full_disk},
                                        {2, Step::hang},
                                        {2, Step::gc},
                                        {2, Step::intrude},
                                        {4, Step::let_pass},
                                        {1, Step::stop},
                                        {1, Step::disconnect}}));
    World world;
    for (auto const step : steps) world.take(step);
  });
}

}  // namespace model_test
}  // namespace erofs_oci
