// SPDX-License-Identifier: Apache-2.0
#include "proof_keeper.hpp"

#include <algorithm>
#include <chrono>
#include <utility>

#include <sys/resource.h>

#include <erofs_oci/core/clock.hpp>
#include <erofs_oci/core/source.hpp>
#include <erofs_oci/image/image_name.hpp>
#include <erofs_oci/image/index_layers.hpp>
#include <erofs_oci/tarindex/build.hpp>

namespace mount_oci {
namespace {

using namespace std::chrono_literals;
using erofs_oci::AnySource;
using erofs_oci::fail;
using erofs_oci::IndexStore;
using erofs_oci::SteadyClock;

constexpr auto look_again = 2000ms;         // at what is on this machine, and in the store
constexpr auto most_pause = 64'000ms;       // after an error
constexpr auto most_waiting = 1000ms;       // for reads, before each MiB
constexpr std::uint64_t memory = 32 << 20;  // bytes of decoded data

std::string name_of(ImageToProve::Layer const& layer) {
  return layer_name(layer.found.number, layer.found.descriptor);
}

/// This thread and those that it starts get a tenth of what others get of a busy processor: less,
/// and a proof on a busy machine would never end.
void yield_to_others() noexcept {
  constexpr int less = 10;
  static_cast<void>(::setpriority(PRIO_PROCESS, 0, ::getpriority(PRIO_PROCESS, 0) + less));
}

/// Options by which an image is found by its digest, all of it.
ImageOptions by_digest(ImageOptions options, std::string name) {
  options.image = std::move(name);
  options.blob.clear();
  options.layer.reset();
  options.first_layers.reset();
  return options;
}

}  // namespace

ProofKeeper::ProofKeeper(ImageOptions const& options, Log const& log)
    : options_(options), log_(log), cache_(options.layer_cache) {
  options_.starts.reset();  // what it reads is no need of the mount's
  options_.memory = options.budget().bytes;
  options_.cache = memory;
  options_.connections = 1;
}

ProofKeeper::~ProofKeeper() {
  end();
}

void ProofKeeper::begin(std::shared_ptr<ImageToProve> image,
                        std::shared_ptr<erofs_oci::Proof> proof,
                        std::vector<ByteRange> const& earlier, std::string const& mismatch) {
  if (!image) return;
  {
    std::lock_guard const lock(mutex_);
    states_ = image->states;
  }
  for (auto const& layer : image->layers) {
    auto const name = name_of(layer) + ": ";
    if (!mismatch.starts_with(name)) continue;
    set_state(layer.number, LayerState::failed, mismatch.substr(name.size()));
  }
  if (image->layers.empty() || !proof || !mismatch.empty()) return;
  image_ = std::move(image);
  proof_ = std::move(proof);
  if (auto const path = store_path(options_)) {
    held_ = HeldStore(*path);
    if (held_) {
      auto store = held_.open();
      if (store) store_ = *std::move(store);
    }
  }
  for (auto const& range : earlier) ranges_.note(range.begin, range.end);
  notes_ = true;
  auto const is_local =
      erofs_oci::ImageName::parse(options_.image).place != erofs_oci::ImagePlace::registry;
  if (is_local) {
    if (auto const ok = prepare(); !ok) log_.say(Level::info, ok.error().message());
  }
  auto started = start_thread([this](std::stop_token const& stop) { run(stop); });
  if (!started) {
    return log_.say(Level::warning, "no layer is proved: " + started.error().message());
  }
  thread_ = *std::move(started);
}

void ProofKeeper::end() noexcept {
  if (!thread_.joinable()) return;
  thread_.request_stop();
  thread_.join();
}

std::vector<LayerProof> ProofKeeper::layers() const {
  std::lock_guard const lock(mutex_);
  return states_;
}

ServedFiles ProofKeeper::served() const {
  std::lock_guard const lock(mutex_);
  return served_;
}

std::vector<ByteRange> ProofKeeper::ranges() const {
  return notes_ ? ranges_.list() : std::vector<ByteRange>();
}

// ---------------------------------------------------------------- the thread

void ProofKeeper::run(std::stop_token const& stop) {
  yield_to_others();
  std::chrono::milliseconds pause = look_again;
  while (!stop.stop_requested() && !image_->layers.empty() && proof_->check()) {
    auto failed = false;
    for (std::size_t i = 0; i < image_->layers.size() && !stop.stop_requested();) {
      auto const& layer = image_->layers[i];
      if (look_elsewhere(layer)) return;
      if (!is_turn(layer)) {
        ++i;
        continue;
      }
      auto const done = erofs_oci::without_throwing([&] { return prove(layer, stop); });
      if (stop.stop_requested() || !proof_->check()) return;
      if (done) {
        forget(i);
        continue;
      }
      failed = true;
      set_state(layer.number, LayerState::pending, done.error().message());
      log_.say(Level::info, name_of(layer) + ": not proved yet: " + done.error().message());
      ++i;
    }
    pause = failed ? std::min(pause * 2, most_pause) : look_again;
    if (image_->layers.empty() || !SteadyClock{stop}.sleep(pause)) break;
  }
  if (!image_->layers.empty() || !proof_->check()) return;
  proof_->prove();
  notes_ = false;
}

/// Gets the digests that the image's configuration has.
Result<void> ProofKeeper::prepare() {
  if (!diff_ids_.empty()) return {};
  auto const& image = image_->image;
  if (image.config || image_->name_again.empty()) {
    EROFS_OCI_TRY_ASSIGN(diff_ids_, diff_ids_for(image, image.layers));
    return {};
  }
  EROFS_OCI_TRY_ASSIGN(auto const named, find_image(by_digest(options_, image_->name_again), log_));
  EROFS_OCI_TRY_ASSIGN(diff_ids_, diff_ids_for(named, image.layers));
  return {};
}

/// Whether it is time to read a layer.
bool ProofKeeper::is_turn(ImageToProve::Layer const& layer) const {
  if (options_.verify != Verify::lazy || !is_remote(layer.found.blob)) return true;
  // Told first by what is counted anyway: to look at all of a layer takes longer.
  return cache_ && cache_->use().kept >= layer.found.blob.size() && cache_->has_all(layer.found);
}

/// Whether another process has found that the index of a layer lies.
bool ProofKeeper::look_elsewhere(ImageToProve::Layer const& layer) {
  auto const reason =
      store_ ? store_->find_refutation(layer.found.descriptor.digest, *layer.index.unproved)
             : std::nullopt;
  if (reason) refute(layer, *reason);
  return reason.has_value();
}

Result<void> ProofKeeper::prove(ImageToProve::Layer const& layer, std::stop_token const& stop) {
  EROFS_OCI_TRY(prepare(), "the image's configuration");
  EROFS_OCI_TRY(fill(layer.found, stop));
  auto const next = [&](std::uint64_t) { return make_way(stop); };
  EROFS_OCI_TRY_ASSIGN(
      auto const verdict,
      prove_layer(layer.found, layer.index, diff_ids_[layer.number], options_, next, stop));
  if (verdict.kind == Verdict::Kind::wrong_bytes)
    return fail(Errc::digest_mismatch, verdict.problem);
  conclude(layer, verdict);
  return {};
}

/// Brings all of a layer onto this machine, so that it need not come twice.
Result<void> ProofKeeper::fill(FoundLayer const& layer, std::stop_token const& stop) {
  if (!is_remote(layer.blob) || !cache_ || !cache_->blobs(log_) || cache_->has_all(layer))
    return {};
  Paced const blob(layer.blob, [&](std::uint64_t) { return make_way(stop); });
  return blob.stream(0, blob.size(), [&](auto) { return !stop.stop_requested(); });
}

bool ProofKeeper::make_way(std::stop_token const& stop) {
  return gate_.wait_for(most_waiting, stop) && proof_->check().has_value();
}

void ProofKeeper::conclude(ImageToProve::Layer const& layer, Verdict const& verdict) {
  auto const& digest = layer.found.descriptor.digest;
  auto const kept = store_ ? keep_verdict(*store_, digest, layer.index, verdict) : Result<void>();
  if (!kept) log_.say(Level::warning, name_of(layer) + ": " + kept.error().message());
  if (!verdict.is_proved()) return refute(layer, verdict.problem);
  set_state(layer.number, LayerState::proved, {});
  proof_->saw(layer.found.blob.size());
  log_.say(Level::info, name_of(layer) + ": proved: its index is what it holds");
}

void ProofKeeper::refute(ImageToProve::Layer const& layer, std::string const& problem) {
  set_state(layer.number, LayerState::failed, problem);
  proof_->refute(erofs_oci::make_error(Errc::digest_mismatch, name_of(layer) + ": " + problem));
  if (!image_->metadata) return;
  auto const name = erofs_oci::tarindex::data_name(layer.index.index.index);
  auto files = served_files(*image_->metadata, name, ranges_.list());
  if (!files) return log_.say(Level::warning, files.error().message());
  std::string names;
  for (auto const& file : files->names) names += " " + file;
  log_.say(Level::error, name_of(layer) + ": " + std::to_string(files->count) +
                             " files of it may have been read before:" + names);
  std::lock_guard const lock(mutex_);
  served_ = *std::move(files);
}

void ProofKeeper::set_state(std::size_t layer, LayerState state, std::string problem) {
  std::lock_guard const lock(mutex_);
  states_[layer].state = state;
  states_[layer].problem = std::move(problem);
}

/// A layer that was proved needs no index for comparing any more.
void ProofKeeper::forget(std::size_t number) {
  image_->layers.erase(image_->layers.begin() + static_cast<std::ptrdiff_t>(number));
}

}  // namespace mount_oci
