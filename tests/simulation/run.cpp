// SPDX-License-Identifier: Apache-2.0
#include "run.hpp"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include <poll.h>
#include <sys/socket.h>

#include <erofs_oci/combinator/retry.hpp>
#include <erofs_oci/core/any_source.hpp>
#include <erofs_oci/core/fd.hpp>
#include <erofs_oci/digest/sha256.hpp>
#include <erofs_oci/image/found_image.hpp>
#include <erofs_oci/image/index_layers.hpp>
#include <erofs_oci/image/index_store.hpp>
#include <erofs_oci/image/open_layers.hpp>
#include <erofs_oci/nbd/engine.hpp>
#include <erofs_oci/nbd/relay.hpp>
#include <erofs_oci/nbd/wakeup.hpp>
#include <erofs_oci/oci/registry.hpp>
#include <erofs_oci/posix/descriptor.hpp>
#include <erofs_oci/recovery/supervision.hpp>

#include "image.hpp"
#include "registry.hpp"
#include "scheduler.hpp"

namespace simulation {
namespace {

using namespace erofs_oci;
using namespace std::chrono_literals;
using std::chrono::milliseconds;
using std::chrono::steady_clock;
namespace fs = std::filesystem;

using Registry = BasicRegistry<SimulatedTransport>;

/// Runs share few images: to make one takes longer than to read it.
SimulatedImage const& image_of(std::uint64_t seed) {
  constexpr std::uint64_t images = 24;
  static std::array<std::unique_ptr<SimulatedImage>, images> made;
  auto& image = made[seed % images];
  if (!image) image = std::make_unique<SimulatedImage>(make_image(Random(seed % images)));
  return *image;
}

std::size_t entries_of(fs::path const& directory) {
  std::error_code ignored;
  return static_cast<std::size_t>(
      std::distance(fs::directory_iterator(directory, ignored), fs::directory_iterator()));
}

/// Threads and descriptors of this program.
std::pair<std::size_t, std::size_t> held() {
  return {entries_of("/proc/self/task"), entries_of("/proc/self/fd")};
}

/// A process that reads the image.
struct Worker {
  int group = 0;
  NbdRelay::EngineId engine = 0;
  nbd::RelayPort port{};
  std::stop_source stop{};
  std::thread thread{};
  bool serves = false;  // it has opened the image
  bool hangs = false;
  std::optional<Error> ended{};
  bool has_ended = false;
  std::uint64_t signs = 0;
  bool busy = false;
};

class World {
 public:
  World(std::uint64_t seed, Totals& totals, std::string directory)
      : random_(seed * 0x9E3779B97F4A7C15U + 1),
        image_(image_of(seed)),
        totals_(totals),
        net_(image_, totals.coverage, Random(random_.next())),
        directory_(std::move(directory)) {
    limits_.total = random_.one_in(2) ? 2s : 6s;
    limits_.connect = limits_.total / 4;  // as mount-oci derives them
    limits_.idle = limits_.total / 3;
    limits_.rate_time = limits_.total / 2;
    backoff_ = {.attempts = std::numeric_limits<unsigned>::max(),
                .total = limits_.total - limits_.connect - limits_.idle};
    reading_.deadline = limits_.total;
    reading_.cache_bytes = 1u << 20 << random_.below(3);
    reading_.connections = static_cast<unsigned>(random_.between(1, 4));
    parallel_ = static_cast<unsigned>(random_.between(1, 3));
    reads_at_once_ = random_.between(1, 4);
    engine_threads_ = random_.between(1, 3);
    constexpr std::array<std::uint64_t, 4> disk_rates{0, 0, 60, 8};
    disk_one_in_ = disk_rates[random_.below(disk_rates.size())];
  }

  std::string run() {
    if (!open_device()) return failure_;
    carry_out(supervision_.begin());
    trouble();
    calm();
    return failure_;
  }

  // Ends all that runs, so that nothing may be left. A run that gives up leaves reads; from now on
  // nobody gets their bytes, and threads of dead workers, which thaw() lets go on, write into the
  // memory that these had for their answers, as no dead process does.
  std::string finish(Scheduler& scheduler) {
    is_over_ = true;
    look_at_store();
    net_.close();
    relay_->close_engines();
    totals_.taken_over += relay_->counters().taken_over;
    if (relay_->counters().taken_over > 0) net_effect(Fault::kill_reading);
    scheduler.thaw();
    for (auto& worker : workers_) {
      worker->stop.request_stop();
      worker->thread.join();
    }
    workers_.clear();
    relay_.reset();
    std::error_code ignored;
    fs::remove_all(directory_ + "/store", ignored);
    if (!net_.broken_rule().empty()) broke(net_.broken_rule());
    return failure_;
  }

  DiskFault on_disk(DiskStep step) {
    if (is_calm_ || disk_one_in_ == 0 || Scheduler::group() == 0 || !random_.one_in(disk_one_in_)) {
      return DiskFault::none;
    }
    auto fault = static_cast<DiskFault>(random_.between(1, 5));
    if (fault == DiskFault::short_write && step != DiskStep::write) fault = DiskFault::no_space;
    constexpr std::array kinds{Fault::none,        Fault::disk_full,     Fault::disk_broken,
                               Fault::short_write, Fault::crash_on_disk, Fault::crash_on_disk};
    auto const kind = kinds[static_cast<std::size_t>(fault)];
    totals_.coverage.occurred(kind);
    // write_full() goes on after a short write; a crash ends the process.
    if (kind == Fault::short_write || kind == Fault::crash_on_disk) net_effect(kind);
    note("disk: " + std::string(fault_names[static_cast<std::size_t>(kind)]));
    if (kind == Fault::crash_on_disk) bell_->notify();
    return fault;
  }

 private:
  friend class Timed;

  struct Ask {
    std::uint64_t offset = 0;
    std::uint32_t length = 0;
    steady_clock::time_point begin{};
  };

  static void note(std::string const& text) {
    if (auto* const scheduler = Scheduler::now_running()) scheduler->note(text);
  }

  void broke(std::string why) {
    note("BROKEN: " + why);
    if (failure_.empty()) failure_ = std::move(why);
  }

  void net_effect(Fault fault) { totals_.coverage.effect(fault); }

  // Every message that a user may see passes here.
  void check_text(std::string_view text) {
    for (auto const secret : {secret_mark, std::string_view("dXNlcjpQQVNTV09SRC1TRUNSRVQ")}) {
      if (text.find(secret) != text.npos) broke("a secret in a message: " + std::string(text));
    }
  }

  void saw(std::string_view where, Error const& error) {
    check_text(error.message());
    if (error.context.empty() && !is_calm_) broke("an error that does not say where");
    // Paths differ from run to run.
    auto const text = error.message();
    note(std::string(where) + ": " +
         (text.find(directory_) == text.npos ? text : error.code.message()));
    ++totals_.error_codes[error.code.message()];
    if (error.code == std::errc::no_space_on_device) net_effect(Fault::disk_full);
    if (error.code == std::errc::io_error) net_effect(Fault::disk_broken);
    net_.saw(error);
  }

  // --- the worker's process ----------------------------------------------------------------------

  [[nodiscard]] bool is_dead() const {
    return Scheduler::now_running()->is_dead(Scheduler::group());
  }

  Result<AnySource> open_image(bool again) {
    RegistryOptions options;
    if (net_.has_mirror()) {
      EROFS_OCI_TRY_ASSIGN(options.mirrors.emplace_back(), RegistryHost::parse("mirror"));
    }
    options.credentials = [this](std::string const&, std::string const&) {
      return Result<std::optional<Credentials>>(net_.credentials());
    };
    options.limits = limits_;
    Reference reference{"registry", "n/m", "latest", std::nullopt};
    if (again) reference = {"registry", "n/m", {}, image_.manifest_digest};
    EROFS_OCI_TRY_ASSIGN(
        auto const registry,
        Registry::make(std::move(reference), std::move(options), SimulatedTransport(net_)));
    EROFS_OCI_TRY_ASSIGN(auto const found, find_in_registry(registry, Platform::host(), {},
                                                            backoff_, {IndexUse::none}));
    auto const store = IndexStore::open(directory_ + "/store");
    if (!store) saw("store", store.error());
    IndexOptions indexing;
    if (store) indexing.store = &*store;
    indexing.span_size = image_.span_size;
    indexing.parallel = parallel_;
    indexing.warn = [this](std::string const& text) {
      check_text(text);
      if (text.find("No space") != text.npos) net_effect(Fault::disk_full);
      if (text.find("Input/output") != text.npos) net_effect(Fault::disk_broken);
    };
    EROFS_OCI_TRY_ASSIGN(auto const indexes, index_layers(found.image_layers(), indexing));
    EROFS_OCI_TRY_ASSIGN(auto merged,
                         open_layers(found.image_layers(), indexes, reading_, indexing));
    if (merged.device.source.size() != image_.device.size()) broke("the device's size is wrong");
    return std::move(merged.device.source);
  }

  Result<void> work(Worker& worker, bool again);

  void run_worker(Worker& worker, bool again) {
    auto const done = work(worker, again);
    if (is_dead()) return;
    if (!done) worker.ended = done.error();
    worker.has_ended = true;
    bell_->notify();
  }

  // --- the supervisor ----------------------------------------------------------------------------

  bool open_device() {
    auto bell = nbd::Wakeup::open();
    auto sockets = socket_pair();
    if (!bell || !sockets) return false;
    bell_.emplace(*std::move(bell));
    kernel_ = std::move(sockets->second);
    Export served;
    served.size = image_.device.size();
    std::vector<UniqueFd> ours;
    ours.push_back(std::move(sockets->first));
    auto relay = NbdRelay::make(std::move(served), std::move(ours), {.arena = 1u << 20});
    if (!relay) return false;
    relay_.emplace(*std::move(relay));
    return true;
  }

  [[nodiscard]] Worker* worker() const {
    return workers_.empty() ? nullptr : workers_.back().get();
  }

  void carry_out(Decision decision) {
    switch (decision) {
      case Decision::start: return start_worker();
      case Decision::verify: return verify();
      case Decision::kill: return end_worker(EngineEnd::crashed);
      case Decision::examine: {
        auto const hangs = worker()->hangs;
        if (hangs) net_effect(Fault::hang);
        return carry_out(
            supervision_.examined(hangs ? std::optional<std::string>("it sleeps") : std::nullopt));
      }
      case Decision::give_up:
        if (net_.poisoned() < 0) broke("the supervisor gave up: " + supervision_.reason());
        return;
      case Decision::nothing:
      case Decision::pause:
      case Decision::terminate:
      case Decision::done: break;
    }
  }

  void start_worker() {
    auto added = relay_->add_engine();
    if (!added) return carry_out(supervision_.start_failed(added.error().message()));
    ++totals_.workers;
    workers_.push_back(std::make_unique<Worker>());
    auto& one = *workers_.back();
    one.group = static_cast<int>(workers_.size());
    one.engine = added->first;
    one.port = std::move(added->second);
    note("start worker " + std::to_string(one.group));
    auto const again = workers_.size() > 1 && random_.one_in(2);
    Scheduler::start_in_group(one.group);
    one.thread = std::thread([this, &one, again] { run_worker(one, again); });
    Scheduler::start_in_group(0);
    carry_out(supervision_.started());
  }

  void verify() {
    auto& one = *worker();
    auto const length =
        static_cast<std::uint32_t>(std::min<std::uint64_t>(image_.device.size(), 64 * 1024));
    relay_->probe(one.engine, 0, length, [this, &one](auto bytes) {
      if (&one != worker() || one.has_ended || is_gone(one)) return;
      verdict_ = !bytes                ? Verdict::unknown
                 : is_right(0, *bytes) ? Verdict::same
                                       : Verdict::different;
    });
  }

  [[nodiscard]] static bool is_gone(Worker const& one) {
    return !one.hangs && Scheduler::now_running()->is_dead(one.group);
  }

  // Ends the present worker from outside.
  void end_worker(EngineEnd how) {
    auto& one = *worker();
    note("kill worker " + std::to_string(one.group));
    Scheduler::now_running()->kill(one.group);
    one.hangs = false;
    relay_->remove_engine(one.engine, how);
    verdict_.reset();
    carry_out(supervision_.died({.signal = 9}));
  }

  void supervise() {
    auto* const one = worker();
    if (one == nullptr || !supervision_.has_daemon()) return carry_out(supervision_.expired());
    if (is_gone(*one)) return end_worker(EngineEnd::killed);  // the disk's doing
    if (one->has_ended) {
      if (one->ended) saw("worker " + std::to_string(one->group), *one->ended);
      relay_->remove_engine(one->engine, EngineEnd::killed);
      verdict_.reset();
      // Nobody can open what is poisoned; all else may be another next time.
      auto const hopeless = is_calm_ && net_.poisoned() >= 0;
      return carry_out(supervision_.died({.status = hopeless ? 78 : 2}));
    }
    if (one->serves && supervision_.state() == SupervisionState::opening) {
      carry_out(supervision_.answered());
    }
    if (auto const verdict = std::exchange(verdict_, std::nullopt)) {
      if (*verdict == Verdict::different) broke("the worker reads other bytes than before");
      auto const decision = supervision_.verified(*verdict);
      if (*verdict == Verdict::same) relay_->activate(one->engine);
      carry_out(decision);
    }
    if (one->signs != signs_) {
      signs_ = one->signs;
      carry_out(supervision_.heartbeat(one->busy));
    }
    supervision_.asked(relay_->in_flight() != 0);
    carry_out(supervision_.expired());
  }

  // One turn of the supervisor's loop, at most until `end`.
  void turn(steady_clock::time_point end) {
    supervise();
    if (auto const deadline = supervision_.deadline()) end = std::min(end, *deadline);
    std::vector<pollfd> fds{{bell_->fd(), POLLIN, 0}, {kernel_.get(), POLLIN, 0}};
    relay_->watch(fds);
    auto const wait = std::chrono::ceil<milliseconds>(end - steady_clock::now());
    ::poll(fds.data(), fds.size(),
           static_cast<int>(std::clamp<std::int64_t>(wait.count(), 0, 60'000)));
    bell_->clear();
    relay_->act(std::span(fds).subspan(2));
    check_text(relay_->complaint());
    take_replies();
  }

  // --- the client --------------------------------------------------------------------------------

  void ask(std::uint64_t offset, std::uint32_t length) {
    nbd::Request const request{0, static_cast<std::uint16_t>(nbd::Command::read), ++cookie_, offset,
                               length};
    auto const raw = encode(request);
    if (::send(kernel_.get(), raw.data(), raw.size(), MSG_NOSIGNAL) !=
        static_cast<ssize_t>(raw.size())) {
      return broke("the relay takes no request");
    }
    asked_.emplace(request.cookie, Ask{offset, length, steady_clock::now()});
    note("read " + std::to_string(offset) + "+" + std::to_string(length));
  }

  void ask_anything() {
    auto const size = image_.device.size();
    constexpr std::array<std::uint64_t, 3> most{512, 8'192, 131'072};
    auto offset = random_.below(size);
    if (random_.one_in(3)) offset = next_offset_ % size;
    if (random_.one_in(8)) offset = size - std::min<std::uint64_t>(size, random_.between(1, 600));
    auto const longest = std::min(size - offset, most[random_.below(most.size())]);
    auto const length = random_.between(1, longest);
    next_offset_ = offset + length;
    ask(offset, static_cast<std::uint32_t>(length));
  }

  void take_replies() {
    for (;;) {
      auto const before = input_.size();
      input_.resize(before + 65'536);
      auto const n = ::recv(kernel_.get(), input_.data() + before, 65'536, MSG_DONTWAIT);
      input_.resize(before + static_cast<std::size_t>(std::max<ssize_t>(n, 0)));
      if (n == 0) broke("the relay has closed the device");
      if (n <= 0) break;
    }
    while (take_reply()) {}
  }

  bool take_reply() {
    constexpr auto head = nbd::SimpleReply::wire_size;
    if (input_.size() < head) return false;
    auto const raw = std::span<std::byte const>(input_);
    auto const reply = nbd::decode_simple_reply(raw.first<head>());
    auto const found = reply ? asked_.find(reply->cookie) : asked_.end();
    if (found == asked_.end()) {
      broke("a reply that nobody asked for");
      input_.clear();
      return false;
    }
    auto const one = found->second;
    bool const good = reply->error == nbd::Errno::none;
    auto const length = good ? std::size_t{one.length} : 0;
    if (input_.size() < head + length) return false;
    if (good) {
      check_bytes("a reply", one.offset, raw.subspan(head, length));
      ++totals_.reads;
    } else {
      ++totals_.errors;
    }
    note(good ? "  bytes" : "  error");
    last_was_good_ = good;
    input_.erase(input_.begin(), input_.begin() + static_cast<std::ptrdiff_t>(head + length));
    asked_.erase(found);
    return true;
  }

  // memcmp(3): this is not optimised, and most of what a run does.
  [[nodiscard]] bool is_right(std::uint64_t offset, std::span<std::byte const> bytes) const {
    auto const right = std::span(image_.device).subspan(static_cast<std::size_t>(offset));
    return bytes.size() <= right.size() &&
           std::memcmp(bytes.data(), right.data(), bytes.size()) == 0;
  }

  void check_bytes(std::string_view who, std::uint64_t offset, std::span<std::byte const> bytes) {
    if (is_right(offset, bytes)) return;
    auto const right = std::span(image_.device).subspan(static_cast<std::size_t>(offset));
    auto const first = std::ranges::mismatch(bytes, right).in1 - bytes.begin();
    broke(std::string(who) + " has wrong bytes, offset " + std::to_string(offset) + ", length " +
          std::to_string(bytes.size()) + ", the first one at " +
          std::to_string(offset + static_cast<std::uint64_t>(first)) + " of " +
          std::to_string(image_.device.size()));
  }

  // --- the course of a run -----------------------------------------------------------------------

  // The client reads while everything fails.
  void trouble() {
    auto left = random_.between(4, 16);
    auto kills = random_.below(3);
    auto const poisons = random_.one_in(6);
    auto const end = steady_clock::now() + 40s;
    auto const soon = [this](std::uint64_t most) {
      return steady_clock::now() + milliseconds(random_.between(20, most));
    };
    auto event = soon(3'000);
    auto next_read = steady_clock::now();
    while (failure_.empty() && steady_clock::now() < end &&
           (left > 0 || !asked_.empty() || kills > 0) && !has_given_up()) {
      while (left > 0 && asked_.size() < reads_at_once_ && steady_clock::now() >= next_read) {
        ask_anything();
        --left;
        if (random_.one_in(4)) next_read = soon(2'000);
      }
      turn(std::min({end, event, left > 0 && next_read > steady_clock::now() ? next_read : end}));
      if (steady_clock::now() < event) continue;
      event = soon(3'000);
      if (poisons && net_.poisoned() < 0 && ever_served_ && random_.one_in(2)) {
        net_.poison(random_.below(image_.layers.size()));
      } else if (kills > 0 && strike()) {
        --kills;
      }
    }
  }

  // Something ends or stops the worker, if there is one.
  bool strike() {
    auto* const one = worker();
    if (one == nullptr || !supervision_.has_daemon() || one->hangs || one->has_ended ||
        is_gone(*one)) {
      return false;
    }
    if (supervision_.state() == SupervisionState::serving && random_.one_in(3)) {
      note("worker " + std::to_string(one->group) + " hangs");
      totals_.coverage.occurred(Fault::hang);
      one->hangs = true;
      Scheduler::now_running()->hang(one->group);
      return true;
    }
    auto const kind = !one->serves                           ? Fault::kill_opening
                      : relay_->unanswered(one->engine) == 0 ? Fault::kill_idle
                                                             : Fault::kill_reading;
    totals_.coverage.occurred(kind);
    if (kind != Fault::kill_reading) net_effect(kind);
    end_worker(EngineEnd::killed);
    return true;
  }

  // Nothing fails any more: soon every read must succeed.
  void calm() {
    note("calm");
    is_calm_ = true;
    net_.heal();
    auto const most = 60s + 2 * limits_.total;
    auto const end = steady_clock::now() + most;
    while (failure_.empty() && (!asked_.empty() || !serves())) {
      turn(end);
      if (has_given_up()) return;
      if (steady_clock::now() >= end) {
        return broke("no service within " + std::to_string(most.count()) + " ms of calm");
      }
    }
    constexpr std::uint32_t piece = 131'072;
    for (std::uint64_t at = 0; at < image_.device.size() && failure_.empty(); at += piece) {
      auto const length =
          static_cast<std::uint32_t>(std::min<std::uint64_t>(piece, image_.device.size() - at));
      read_surely(at, length);
    }
  }

  // A worker whose probe meets what is poisoned is killed each time.
  [[nodiscard]] bool has_given_up() const {
    return supervision_.state() == SupervisionState::given_up ||
           (net_.poisoned() >= 0 && supervision_.failures() > 4);
  }

  [[nodiscard]] bool serves() const { return supervision_.state() == SupervisionState::serving; }

  void read_surely(std::uint64_t offset, std::uint32_t length) {
    // The supervisor's longest pause, an opening, what FailFast remembers, and the read itself.
    auto const until = steady_clock::now() + 5s + 2 * limits_.total + 2s;
    auto const may_fail = net_.poisoned() >= 0 && touches(offset, length, net_.poisoned());
    for (;;) {
      ask(offset, length);
      while (!asked_.empty() && failure_.empty()) {
        turn(until);
        if (has_given_up()) return;
        if (steady_clock::now() >= until && !asked_.empty()) {
          return broke("a read has no answer, though nothing fails any more");
        }
      }
      if (!failure_.empty() || last_was_good_ || may_fail) return;
      if (steady_clock::now() >= until) return broke("a read fails, though nothing else does");
      auto const again = steady_clock::now() + 300ms;
      while (steady_clock::now() < again && failure_.empty()) turn(again);
    }
  }

  [[nodiscard]] bool touches(std::uint64_t offset, std::uint64_t length, int layer) const {
    auto const& one = image_.layers[static_cast<std::size_t>(layer)];
    return offset < one.end && offset + length > one.begin;
  }

  // The longest that a read may take, in parts of its deadline: each layer has one of its own, and
  // each span of a plain one, which ends with the first piece that comes behind it.
  [[nodiscard]] double most_time(std::uint64_t offset, std::uint64_t length) const {
    double most = 0;
    for (int i = 0; i < static_cast<int>(image_.layers.size()); ++i) {
      if (!touches(offset, length, i)) continue;
      auto const& one = image_.layers[static_cast<std::size_t>(i)];
      auto const begin = std::max(offset, one.begin) - one.begin;
      auto const end = std::min(offset + length, one.end) - one.begin;
      auto const spans = (end - 1) / image_.span_size - begin / image_.span_size + 1;
      most += one.is_plain ? static_cast<double>(spans) * 4 / 3 : 1;
    }
    return std::max(most, 1.0);
  }

  // What crashes have left goes when it is old, and what is in its place is whole.
  void look_at_store() {
    auto const leftovers = directory_ + "/store/tmp";
    auto const count = entries_of(leftovers);
    if (count > 0) {
      totals_.coverage.occurred(Fault::leftover);
      auto const old = fs::file_time_type::clock::now() - 48h;
      for (auto const& entry : fs::directory_iterator(leftovers)) fs::last_write_time(entry, old);
    }
    auto const store = IndexStore::open(directory_ + "/store");
    if (!store) return broke("the store cannot be opened: " + store.error().message());
    if (entries_of(leftovers) != 0) broke("old leftovers stay in the store");
    if (count > 0) net_effect(Fault::leftover);
    for (auto const& layer : image_.layers) {
      auto const there = store->holds_layer(layer.descriptor.digest);
      auto const found = store->find_layer(layer.descriptor.digest);
      if (!found) broke("the store: " + found.error().message());
      if (found && there && !*found) broke("the store holds an index that is not whole");
    }
  }

  Random random_;
  SimulatedImage const& image_;
  Totals& totals_;
  SimulatedNet net_;
  std::string directory_;
  HttpLimits limits_;
  Backoff backoff_;
  ImageReadOptions reading_;
  unsigned parallel_ = 1;
  std::uint64_t reads_at_once_ = 1;
  std::uint64_t engine_threads_ = 1;
  std::uint64_t disk_one_in_ = 0;
  std::optional<nbd::Wakeup> bell_;
  UniqueFd kernel_;
  std::optional<NbdRelay> relay_;
  Supervision<> supervision_{{.suspect_after = 200ms,
                              .most_failures = std::numeric_limits<unsigned>::max(),
                              .give_up_after = std::chrono::hours(1)}};
  std::vector<std::unique_ptr<Worker>> workers_;
  std::optional<Verdict> verdict_;
  std::uint64_t signs_ = 0;
  std::uint64_t cookie_ = 0;
  std::uint64_t next_offset_ = 0;
  std::map<std::uint64_t, Ask> asked_;
  bool last_was_good_ = false;  // the last answer
  Bytes input_;
  bool is_calm_ = false;
  bool is_over_ = false;
  bool ever_served_ = false;
  std::string failure_;
};

/// The source that a worker serves: checks each read's bytes and time.
class Timed {
 public:
  Timed(AnySource inner, World& world) : inner_(std::move(inner)), world_(&world) {}

  [[nodiscard]] std::uint64_t size() const noexcept { return inner_.size(); }

  [[nodiscard]] Result<std::size_t> read_at(std::uint64_t offset, std::span<std::byte> out) const {
    auto const begin = steady_clock::now();
    auto n = inner_.read_at(offset, out);
    if (world_->is_dead() || world_->is_over_) return n;
    if (n) world_->check_bytes("a read", offset, out.first(*n));
    if (!n) world_->saw("  read", n.error());
    using Seconds = std::chrono::duration<double>;
    auto const took = Seconds(steady_clock::now() - begin) / Seconds(world_->reading_.deadline);
    auto const most = world_->most_time(offset, out.size());
    world_->totals_.longest_read = std::max(world_->totals_.longest_read, took / most);
    if (took > most + 0.001) {
      world_->broke("a read took " + std::to_string(took) + " times its deadline, not " +
                    std::to_string(most) + " at most");
    }
    return n;
  }

 private:
  AnySource inner_;
  World* world_;
};

Result<void> World::work(Worker& worker, bool again) {
  EROFS_OCI_TRY_ASSIGN(auto source, open_image(again), "open");
  NbdEngineOptions options;
  options.workers = engine_threads_;
  options.on_tick = [&worker](Activity<> const&, bool busy) {
    ++worker.signs;
    worker.busy = busy;
  };
  EROFS_OCI_TRY_ASSIGN(auto engine, NbdEngine<Timed>::open(Timed(std::move(source), *this),
                                                           std::move(worker.port), options));
  worker.serves = ever_served_ = true;
  net_.press();
  bell_->notify();
  return engine.run(worker.stop.get_token());
}

}  // namespace

Outcome run_seed(std::uint64_t seed, Totals& totals, std::string const& directory,
                 std::function<void(std::string const&)> print,
                 std::function<void(std::string const&)> on_stuck) {
  static_cast<void>(image_of(seed));  // not simulated
  auto const before = held();
  Outcome outcome;
  {
    Scheduler scheduler(seed, std::move(print));
    scheduler.on_stuck = std::move(on_stuck);
    World world(seed, totals, directory);
    scheduler.on_disk = [&world](DiskStep step) { return world.on_disk(step); };
    auto const begin = steady_clock::now();
    world.run();
    outcome.failure = world.finish(scheduler);
    outcome.trace = scheduler.trace();
    totals.switches += scheduler.switches();
    totals.seconds += std::chrono::duration<double>(steady_clock::now() - begin).count();
  }
  // A thread that was joined is listed for a moment still.
  auto after = held();
  for (int i = 0; i < 1'000 && after != before; ++i) {
    std::this_thread::sleep_for(1ms);
    after = held();
  }
  if (after != before && outcome.failure.empty()) {
    outcome.failure = std::to_string(after.first) + " threads and " + std::to_string(after.second) +
                      " descriptors, before: " + std::to_string(before.first) + " and " +
                      std::to_string(before.second);
  }
  return outcome;
}

}  // namespace simulation
