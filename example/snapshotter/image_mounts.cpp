// SPDX-License-Identifier: Apache-2.0
#include "image_mounts.hpp"

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <span>
#include <system_error>

#include <sys/stat.h>
#include <unistd.h>

#include <erofs_oci/host/mount_point.hpp>
#include <erofs_oci/host/unmount.hpp>

#include "chain.hpp"
#include "refusal.hpp"

namespace oci_snapshotter {

using erofs_oci::Digest;
using erofs_oci::fail;
using erofs_oci::fail_errno;
using namespace std::chrono_literals;

namespace {

std::span<LayerFacts const> lowest(ImageFacts const& image, std::size_t depth) {
  return std::span(image.layers).first(std::min(depth, image.layers.size()));
}

}  // namespace

ImageMounts::ImageMounts(Options options, MountTool tool, SnapshotStore& store, Say say)
    : options_(std::move(options)), tool_(std::move(tool)), store_(store), say_(std::move(say)) {}

ImageMounts::~ImageMounts() {
  std::vector<std::jthread> threads;
  {
    std::scoped_lock const lock(mutex_);
    for (auto& [name, stack] : stacks_) threads.push_back(std::move(stack.worker));
    for (auto& [manifest, thread] : indexing_) threads.push_back(std::move(thread));
  }
  for (auto& thread : threads) thread.request_stop();
}

bool ImageMounts::is_proved(Snapshot const& snapshot) const {
  return std::ranges::any_of(snapshot.manifests, [&](auto const& manifest) {
    auto const image = store_.image(manifest);
    return image && image->layers.size() >= snapshot.depth &&
           known_chain(*image, snapshot.depth) == snapshot.chain;
  });
}

// ---------------------------------------------------------------- for a call

Result<ImageMounts::Use> ImageMounts::acquire(Snapshot const& snapshot, Patience const& patience) {
  auto last = make_error_code(Refusal::failed_precondition);
  std::string why = "no image is known whose layers have the chain ID " + snapshot.chain;
  for (auto const& manifest : snapshot.manifests) {
    auto const image = store_.image(manifest);
    if (!image || image->layers.size() < snapshot.depth) continue;
    auto use = acquire_of(*image, snapshot, patience);
    if (use) return use;
    auto error = std::move(use).error();
    if (error.code == Refusal::failed_precondition) {
      say_(image->reference() + ": " + error.message() + ": its claims are forgotten");
      EROFS_OCI_TRY(store_.refute(manifest, error.message()));
    }
    last = error.code;
    why = error.message();
  }
  return refuse(last == Refusal::unavailable ? Refusal::unavailable : Refusal::failed_precondition,
                why);
}

Result<ImageMounts::Use> ImageMounts::acquire_of(ImageFacts const& image, Snapshot const& snapshot,
                                                 Patience const& patience) {
  auto const name = stack_name(lowest(image, snapshot.depth));
  std::unique_lock lock(mutex_);
  auto& stack = stacks_[name];
  auto is_new_attempt = true;
  for (;;) {
    if (!stack.chain.empty() && stack.chain != snapshot.chain) {
      return refuse(Refusal::failed_precondition,
                    "the layers of " + image.reference() + " have the chain ID " + stack.chain +
                        ", where its configuration says " + snapshot.chain);
    }
    if (stack.state == Stack::State::mounted) {
      // Whoever has unmounted it by hand must not make an empty directory of the image, and nobody
      // gets one whose server has died.
      auto const is_fresh = Clock::now() < stack.probed + options_.probe_after;
      if (is_fresh && mounted_at(path_of(name)) == stack.mount) {
        ++stack.uses;
        return Use(*this, name, path_of(name));
      }
      stack.state = Stack::State::idle;
    }
    if (stack.state == Stack::State::idle) {
      auto const failed =
          stack.error && (!is_new_attempt || Clock::now() < stack.failed + options_.retry_after);
      if (failed)
        return refuse(Refusal::unavailable, image.reference() + ": " + stack.error->message());
      start(name, stack, image, snapshot.depth, snapshot.chain);
      is_new_attempt = false;
    }
    changed_.wait_until(lock, std::min(patience.until, Clock::now() + 100ms));
    if (stack.state != Stack::State::working) continue;
    auto const is_late = Clock::now() >= patience.until;
    if (is_late || patience.is_cancelled()) {
      return refuse(Refusal::unavailable,
                    image.reference() + ": " +
                        (stack.chain.empty() ? "its layers are still being indexed"
                                             : "it is still being mounted") +
                        "; what is done goes on, so try again");
    }
  }
}

void ImageMounts::release(std::string const& name) {
  std::scoped_lock const lock(mutex_);
  auto& stack = stacks_[name];
  --stack.uses;
  stack.last_use = Clock::now();
}

// ---------------------------------------------------------------- in a thread

void ImageMounts::start(std::string const& name, Stack& stack, ImageFacts const& image,
                        std::size_t depth, std::string const& chain) {
  stack.state = Stack::State::working;
  stack.error.reset();
  // The thread that this one takes the place of has ended, but for its return.
  stack.worker = std::jthread([this, name, image, depth, chain](std::stop_token const& stop) {
    work(stop, name, image, depth, chain);
  });
}

void ImageMounts::work(std::stop_token const& stop, std::string const& name,
                       ImageFacts const& image, std::size_t depth, std::string const& chain) {
  auto const begin = Clock::now();
  auto const done = erofs_oci::without_throwing([&]() -> Result<std::uint64_t> {
    EROFS_OCI_TRY_ASSIGN(auto found, find_chain(image, depth, stop));
    auto const is_right = found == chain;
    {
      std::scoped_lock const lock(mutex_);
      stacks_[name].chain = std::move(found);
    }
    if (!is_right) return fail(make_error_code(Refusal::failed_precondition), "chain ID");
    return mount(name, image, depth, stop);
  });
  std::scoped_lock const lock(mutex_);
  auto& stack = stacks_[name];
  auto& count = counts_[image.reference()];
  ++(done ? count.mounts : count.failures);
  count.time += std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - begin);
  if (done) {
    stack.state = Stack::State::mounted;
    stack.mount = *done;
    stack.probed = stack.last_use = Clock::now();
  } else {
    stack.state = Stack::State::idle;
    stack.error = done.error();
    stack.failed = Clock::now();
  }
  changed_.notify_all();
}

std::map<std::string, ImageMounts::Count> ImageMounts::counts() {
  std::set<std::string> known;
  for (auto const& image : store_.images()) known.insert(image.reference());
  std::scoped_lock const lock(mutex_);
  std::erase_if(counts_, [&](auto const& one) { return !known.contains(one.first); });
  return counts_;
}

std::optional<std::string> ImageMounts::known_chain(ImageFacts const& image,
                                                    std::size_t depth) const {
  std::vector<Digest> diff_ids;
  for (auto const& layer : lowest(image, depth)) {
    auto const known = store_.diff_id(layer.digest);
    if (!known) return std::nullopt;
    diff_ids.push_back(*known);
  }
  return chain_id(diff_ids);
}

/// What the layers really are. The same indexing for all layers, if it goes on, is waited for.
Result<std::string> ImageMounts::find_chain(ImageFacts const& image, std::size_t depth,
                                            std::stop_token const& stop) {
  if (auto known = known_chain(image, depth)) return *std::move(known);
  {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, stop, [&] {
      return !indexing_.contains(image.manifest) || indexed_.contains(image.manifest);
    });
  }
  if (auto known = known_chain(image, depth)) return *std::move(known);
  EROFS_OCI_TRY_ASSIGN(auto const found, tool_.index(image, depth, stop), "index");
  auto const same = [](LayerFacts const& a, LayerFacts const& b) { return a.digest == b.digest; };
  if (!std::ranges::equal(found, lowest(image, depth), same)) {
    return fail(erofs_oci::Errc::mismatch, "other layers were indexed");
  }
  EROFS_OCI_TRY(store_.note_diff_ids(found));
  if (auto known = known_chain(image, depth)) return *std::move(known);
  return fail(erofs_oci::Errc::unavailable, "the image was forgotten meanwhile");
}

void ImageMounts::prepare(ImageFacts const& image) {
  if (known_chain(image, image.layers.size())) return;
  std::scoped_lock const lock(mutex_);
  if (indexing_.contains(image.manifest) && !indexed_.contains(image.manifest)) return;
  indexed_.erase(image.manifest);
  indexing_[image.manifest] = std::jthread([this, image](std::stop_token const& stop) {
    auto const done = erofs_oci::without_throwing([&]() -> Result<void> {
      EROFS_OCI_TRY_ASSIGN(auto const found, tool_.index(image, image.layers.size(), stop));
      return store_.note_diff_ids(found);
    });
    // Whoever needs the layers tries again, and tells a client why that has failed.
    if (!done && done.error().code != erofs_oci::Errc::stopping) {
      say_(image.reference() + ": index: " + done.error().message());
    }
    std::scoped_lock const ended(mutex_);
    indexed_.insert(image.manifest);
    changed_.notify_all();
  });
}

/// The mount at a directory, if it is one of its own.
std::optional<std::uint64_t> ImageMounts::mounted_at(std::string const& path) const {
  auto const here = erofs_oci::mount_id_at(path);
  auto const above = erofs_oci::mount_id_at(options_.directory);
  if (!here || !above || *here == *above) return std::nullopt;
  return *here;
}

Result<std::uint64_t> ImageMounts::mount(std::string const& name, ImageFacts const& image,
                                         std::size_t depth, std::stop_token const& stop) const {
  auto const path = path_of(name);
  if (auto const found = mounted_at(path)) {
    EROFS_OCI_TRY_ASSIGN(auto const is_served, tool_.is_served(path));
    if (is_served) return *found;
    say_(path + ": nobody serves it any more, so it is mounted anew");
    EROFS_OCI_TRY(erofs_oci::unmount(path, erofs_oci::UnmountBusy::detach));
  }
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (error) return fail(error, path);
  EROFS_OCI_TRY(tool_.mount(image, depth, path, stop));
  auto const found = mounted_at(path);
  if (!found) return fail(erofs_oci::Errc::unavailable, path + ": mounted, but not seen there");
  struct stat about{};
  struct stat above{};
  if (::stat(path.c_str(), &about) != 0) return fail_errno(errno, path);
  if (::stat(options_.directory.c_str(), &above) != 0) return fail_errno(errno, path);
  if (about.st_dev == above.st_dev) {
    return fail(erofs_oci::Errc::unavailable, path + ": another file system is mounted there");
  }
  return *found;
}

// ---------------------------------------------------------------- afterwards

/// @return  whether nothing is mounted there now
bool ImageMounts::unmount(std::string const& name, std::stop_token const& stop) const {
  auto const path = path_of(name);
  if (mounted_at(path)) {
    auto const done = tool_.unmount(path, stop);
    if (!done) say_(path + ": cannot be unmounted now: " + done.error().message());
    if (mounted_at(path)) return false;
  }
  // rmdir(2) removes nothing that is mounted or has something in it.
  ::rmdir(path.c_str());
  ::rmdir((options_.directory + "/" + name).c_str());
  return true;
}

void ImageMounts::clean(std::set<std::string> const& needed, std::stop_token const& stop) {
  std::set<std::string> names;
  std::error_code error;
  std::filesystem::directory_iterator entries(options_.directory, error);
  for (; !error && entries != std::filesystem::directory_iterator(); entries.increment(error)) {
    names.insert(entries->path().filename().string());
  }
  for (auto const& name : names) {
    if (stop.stop_requested()) return;
    if (needed.contains(name)) {
      std::scoped_lock const lock(mutex_);
      stacks_[name].last_use = Clock::now();
      continue;
    }
    {
      std::scoped_lock const lock(mutex_);
      auto& stack = stacks_[name];
      auto const now = Clock::now();
      // One that an earlier process has left has never been used by this one.
      if (stack.last_use == Clock::time_point()) stack.last_use = now;
      if (stack.uses != 0 || stack.state == Stack::State::working ||
          now < stack.last_use + options_.unmount_after) {
        continue;
      }
      stack.state = Stack::State::working;  // acquire() waits meanwhile
    }
    auto const gone = unmount(name, stop);
    std::scoped_lock const lock(mutex_);
    auto& stack = stacks_[name];
    stack.state = Stack::State::idle;
    stack.error.reset();
    stack.last_use = Clock::now();
    if (gone) stack.chain.clear();
    changed_.notify_all();
  }
}

}  // namespace oci_snapshotter
