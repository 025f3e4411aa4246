// SPDX-License-Identifier: Apache-2.0
#include "worker.hpp"

#include <cerrno>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <utility>

#include <unistd.h>

#include <erofs_oci/combinator/instrumented.hpp>
#include <erofs_oci/core/activity.hpp>
#include <erofs_oci/core/any_source.hpp>
#include <erofs_oci/host/privilege.hpp>
#include <erofs_oci/mount/mount_worker.hpp>
#include <erofs_oci/recovery/record_codec.hpp>
#include <erofs_oci/recovery/supervision.hpp>

#include "daemon.hpp"
#include "helper_process.hpp"
#include "image.hpp"
#include "layer_cache.hpp"
#include "memory_keeper.hpp"
#include "merkle_tree.hpp"
#include "mount_report.hpp"
#include "proof_keeper.hpp"
#include "read_error.hpp"
#include "reader.hpp"
#include "served_image.hpp"
#include "start_keeper.hpp"

namespace mount_oci {
namespace {

using erofs_oci::Activity;
using erofs_oci::AnySource;
using erofs_oci::fail_errno;
using erofs_oci::Signals;
using std::chrono::steady_clock;
using namespace std::chrono_literals;

/// What goes wrong in the same way in every worker. Credentials that are refused are not: they may
/// be renewed while the mount is there.
bool is_final(Error const& error) {
  return error.code == Errc::mismatch || error.code == Errc::digest_mismatch ||
         error.code == Errc::invalid_argument;
}

class Worker {
 public:
  Worker(WorkerTask task, Log& log)
      : task_(std::move(task)), worker_(std::move(task_.seat)), log_(log) {}

  /// @return whether nothing is left to serve
  Result<bool> run() {
    if (task_.record) {
      EROFS_OCI_TRY_ASSIGN(task_.options.image, options_of(*task_.record, task_.options.image));
    }
    task_.options.image.layer_cache = std::make_shared<LayerCache>(task_.options.image);
    task_.options.image.for_kernel = task_.way != erofs_oci::MountWay::fuse_tree;
    auto options = serving();
    bound_heap();
    memory_.emplace(log_);
    if (!is_thread()) {
      die_first(log_);
      EROFS_OCI_TRY(give_up_privileges(options.serving));
      EROFS_OCI_TRY_ASSIGN(auto signals, Signals::take());
      own_signals_ = std::make_unique<Signals>(std::move(signals));
      task_.signals = options.signals = own_signals_.get();
    }
    auto& starts = task_.options.image.starts;
    starts = start_keeper_of(task_.options.image, log_);
    EROFS_OCI_TRY_ASSIGN(auto image, open());
    if (starts) starts->begin(std::move(image.device.starts));
    // Keeps no directory of a user busy.
    if (!is_thread() && ::chdir("/") != 0) return fail_errno(errno, "/");
    options.serving.verity = verity_table(image.record.image, task_.options.image.verity);
    EROFS_OCI_TRY_ASSIGN(auto const opened, describe(image));
    held_ = image.device.held;
    memory_->begin(held_, [this] { return reads(); }, task_.options.image.idle);
    keeper_.emplace(task_.options.image, log_);
    mismatch_ = std::move(image.mismatch);
    watch(image.device.proof);
    keeper_->begin(std::move(image.to_prove), proof_, task_.read,
                   task_.record ? task_.record->image.mismatch : std::string());
    if (!is_thread()) end_opening();
    AnySource source(Attended(AnySource(erofs_oci::Instrumented(std::move(image.device.source),
                                                                erofs_oci::RecordTo(metrics_))),
                              *keeper_));
    auto served = worker_.serve(opened, std::move(source), std::move(options));
    if (starts) starts->end();
    keeper_->end();
    return served;
  }

  void report(Error const& error) const { worker_.report(error); }

 private:
  [[nodiscard]] bool is_thread() const noexcept { return worker_.seat().is_thread; }

  Result<ServedImage> open() {
    EROFS_OCI_TRY_ASSIGN(auto const guard,
                         ExitOnSignal::make(*task_.signals, worker_.seat().channel.fd()));
    auto const& image = task_.options.image;
    std::stop_callback const end(guard.stop_token(), [this] { end_requests(); });
    if (!task_.record) return serve_first(image, log_, &guard);
    return serve_again(*task_.record, image, log_, &guard);
  }

  [[nodiscard]] static Result<erofs_oci::WorkerImage> describe(ServedImage const& image) {
    // The supervisor adds how it is attached; until then a device's name stands in.
    auto record = image.record;
    if (record.attach.backend.empty()) record.attach.backend = "none";
    EROFS_OCI_TRY_ASSIGN(auto const text, erofs_oci::encode_record(record));
    erofs_oci::WorkerImage told{record.image.device_size, image.device.zeros_from,
                                erofs_oci::to_bytes(erofs_oci::as_bytes(text))};
    if (record.known) told.sample = record.known->length;
    return told;
  }

  [[nodiscard]] erofs_oci::MountWorkerOptions serving() {
    auto const& mount = task_.options.mount;
    erofs_oci::MountWorkerOptions options;
    options.serving.way = task_.way;
    options.serving.target = task_.target;
    options.serving.flags = mount.flags;
    options.serving.data = mount.data;
    options.serving.readahead = task_.options.image.readahead;
    options.serving.threads = worker_count(task_.options.image);
    options.serving.on_failure = [this](std::string const& text) { complain(text); };
    options.serving.on_attached = [this](std::string const& text) { log_.say(Level::info, text); };
    options.on_read_error = [this](std::uint64_t offset, std::uint32_t length, Error const& error) {
      log_read_error(log_, offset, length, error);
      worker_.trouble(error.message());
    };
    options.before_service = [this] { lock_memory(log_); };
    options.serving.before_requests = [this] {
      if (!mismatch_.empty()) {
        proof_->refute(erofs_oci::make_error(Errc::digest_mismatch, mismatch_));
      }
    };
    options.is_well = [this](Activity<> const& work) { return look(work); };
    options.on_settled = [this] { leave_streams(log_); };
    options.on_end = [this] { end_requests(); };
    return options;
  }

  void end_requests() noexcept { task_.options.image.access.requests.request_stop(); }

  void complain(std::string const& text) const {
    log_.say(Level::error, text);
    worker_.trouble(text);
  }

  /// Before anything of the image is read. Helpers keep what is needed later: they mount by FUSE,
  /// and look up credentials.
  [[nodiscard]] Result<void> give_up_privileges(erofs_oci::FuseServing& serving) {
    if (!is_nbd(task_.way)) {
      serving.access =
          erofs_oci::may_mount() ? erofs_oci::FuseAccess::everyone : erofs_oci::FuseAccess::owner;
      EROFS_OCI_TRY_ASSIGN(serving.mounter, mount_by_helper(serving, task_.options.image));
    }
    return become_reader(task_.options.image, task_.record ? &*task_.record : nullptr, {}, log_);
  }

  /// Whether the threads that read get something done; tells the supervisor of it once a second.
  bool look(Activity<> const& work) {
    if (is_stalled(work)) return false;
    auto const now = steady_clock::now();
    if (now - last_count_ < 1s) return true;
    last_count_ = now;
    auto const checked = proof_ ? proof_->check() : Result<void>();
    auto const counts = count(checked ? std::string() : checked.error().message());
    if (std::exchange(last_counts_, counts) != counts) worker_.counts(counts.text());
    return true;
  }

  [[nodiscard]] WorkerCounts count(std::string mismatch) const {
    auto const counted = metrics_.counts();
    WorkerCounts counts{held_.data(), reads(), counted.bytes, counted.errors};
    counts.memory = held_.all();
    if (proof_) {
      counts.seen = proof_->seen();
      counts.to_prove = proof_->total();
      counts.proved = proof_->proved();
    }
    counts.disk = task_.options.image.layer_cache->use();
    if (auto const& starts = task_.options.image.starts) counts.start = starts->use();
    counts.hedges = task_.options.image.access.hedging->counts();
    if (keeper_) {
      counts.layers = keeper_->layers();
      counts.served = keeper_->served();
      counts.read = keeper_->ranges();
    }
    counts.mismatch = std::move(mismatch);
    return counts;
  }

  /// Reads of the image that have ended.
  [[nodiscard]] std::uint64_t reads() const noexcept {
    auto const counted = metrics_.counts();
    return counted.reads + counted.streams;
  }

  /// Whether an earlier worker has found that what was served is wrong.
  [[nodiscard]] bool known_mismatch() const {
    return task_.record && !task_.record->image.mismatch.empty();
  }

  /// Tells of wrong bytes at once: the supervisor must know of them if this worker dies.
  void watch(std::shared_ptr<erofs_oci::Proof> proof) {
    proof_ = std::move(proof);
    if (!proof_ || known_mismatch()) return;
    proof_->on_refuted([this](Error const& error) {
      worker_.counts(count(error.message()).text());
      complain("wrong bytes: " + error.message() + "; all reads of it fail from now on");
    });
  }

  /// Whether nothing has been done for longer than anything may take. A request may cost several
  /// reads, each of which has its time.
  bool is_stalled(Activity<> const& work) {
    auto const most = 4 * task_.options.image.timeout + 15s;
    if (work.stalled() < most) return false;
    if (!std::exchange(said_stalled_, true)) {
      complain("no read has ended for " + std::to_string(most.count()) + " s");
    }
    return true;
  }

  WorkerTask task_;  // whose seat is worker_'s
  erofs_oci::MountWorker worker_;
  Log& log_;
  std::unique_ptr<Signals> own_signals_;  // of a process; null: a thread
  steady_clock::time_point last_count_{};
  erofs_oci::Metrics metrics_;
  WorkerCounts last_counts_;
  bool said_stalled_ = false;
  erofs_oci::HeldMemory held_;
  std::shared_ptr<erofs_oci::Proof> proof_;  // null: each byte is checked, or none
  std::string mismatch_;                     // what the proof is told when requests come
  std::optional<MemoryKeeper> memory_;       // its thread uses the rest, as the next one's
  std::optional<ProofKeeper> keeper_;
};

}  // namespace

int run_worker(WorkerTask task, Log& log) {
  hide_memory();
  Worker worker(std::move(task), log);
  auto const done = worker.run();
  // A worker that somebody else than its supervisor has asked to end is replaced.
  if (done) return *done ? 0 : 1;
  worker.report(done.error());
  return is_final(done.error()) ? erofs_oci::SupervisionOptions{}.final_status : 2;
}

}  // namespace mount_oci
