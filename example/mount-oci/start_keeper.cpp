// SPDX-License-Identifier: Apache-2.0
#include "start_keeper.hpp"

#include <algorithm>
#include <chrono>
#include <string>
#include <utility>

#include <erofs_oci/core/clock.hpp>
#include <erofs_oci/image/index_store.hpp>
#include <erofs_oci/image/start_refine.hpp>

namespace mount_oci {
namespace {

using erofs_oci::IndexStore;
using erofs_oci::StartFetcher;
using erofs_oci::StartLayer;
using erofs_oci::StartList;

constexpr std::chrono::minutes minute(1);

bool reads_list(StartListUse wanted) {
  return wanted == StartListUse::use || wanted == StartListUse::all;
}

bool writes_list(StartListUse wanted) {
  return wanted == StartListUse::record || wanted == StartListUse::all;
}

}  // namespace

StartKeeper::StartKeeper(ImageOptions const& options, Log const& log)
    : wanted_(options.start_list),
      store_(store_path(options).value_or("")),
      connections_(options.connections),
      most_(options.cache_bytes() / 8),  // as much as a Gzran fetches for one reader
      requests_(options.access.requests.get_token()),
      log_(log),
      recorder_(minute),
      cache_(options.layer_cache) {}

StartKeeper::~StartKeeper() {
  end();
}

void StartKeeper::offer(Result<StartList> list) {
  if (!list) {
    return log_.say(Level::info, "the index's start list is not used: " + list.error().message());
  }
  std::lock_guard const lock(mutex_);
  if (!offered_) offered_ = *std::move(list);
}

void StartKeeper::begin(std::vector<StartLayer> layers) {
  if (store_.empty() || layers.empty()) return;
  held_ = HeldStore(store_);
  if (!held_) return;
  layers_ = std::move(layers);
  if (reads_list(wanted_)) fetch();
  if (!writes_list(wanted_)) return;
  auto started = start_thread([this](std::stop_token const& stop) {
    static_cast<void>(erofs_oci::SteadyClock{stop}.sleep(minute));
    write();
  });
  if (!started) {
    return log_.say(Level::info, "no start list is kept: " + started.error().message());
  }
  writer_ = *std::move(started);
}

std::vector<erofs_oci::Digest> StartKeeper::digests() const {
  std::vector<erofs_oci::Digest> digests;
  for (auto const& layer : layers_) digests.push_back(layer.digest);
  return digests;
}

std::optional<StartList> StartKeeper::read() const {
  auto list = held_.open().and_then(
      [&](IndexStore const& store) { return store.find_start_list(digests()); });
  if (list) return *std::move(list);
  log_.say(Level::debug, "the start list is not used: " + list.error().message());
  return std::nullopt;
}

std::optional<StartList> StartKeeper::take_offered() const {
  if (!offered_) return std::nullopt;
  auto const kept = held_.open().and_then(
      [&](IndexStore const& store) { return store.put_start_list(digests(), *offered_); });
  if (!kept) log_.say(Level::info, "the start list is not kept: " + kept.error().message());
  return offered_;
}

void StartKeeper::fetch() {
  auto list = read();
  if (!list) list = take_offered();
  if (!list || list->empty()) return;
  erofs_oci::StartFetchOptions const options{
      .threads = connections_, .most_bytes = most_, .on_failure = [this](Error const& error) {
        log_.say(Level::debug, "fetching ahead has ended: " + error.message());
      }};
  auto plan = plan_start(*list, layers_, options);
  log_.say(Level::debug, "start list: " + std::to_string(list->bytes()) + " bytes, " +
                             std::to_string(plan.size()) + " ranges are fetched ahead");
  auto fetcher = std::make_unique<StartFetcher>(std::move(plan), layers_, options, requests_);
  std::lock_guard const lock(mutex_);
  fetcher_ = std::move(fetcher);
}

StartList StartKeeper::refine(IndexStore const& store, StartList list) const {
  for (auto const& layer : layers_) {
    auto const reads = recorder_.reads(layer.digest);
    auto const kept = cache_ ? cache_->kept({layer.digest, layer.size}, log_) : std::nullopt;
    if (!kept || reads.empty() || !layer.find_checkpoints || layer.entry.empty()) continue;
    auto const done =
        refine_start(list, layer, reads, *kept).and_then([&](auto refined) -> Result<void> {
          EROFS_OCI_TRY(store.put_checkpoints(layer.entry, refined.extra));
          list = std::move(refined.list);
          return {};
        });
    if (!done) log_.say(Level::debug, "no checkpoints are kept: " + done.error().message());
  }
  return list;
}

void StartKeeper::write() const noexcept {
  auto const written = erofs_oci::without_throwing([&]() -> Result<void> {
    auto list = recorder_.list();
    if (list.empty()) return {};
    EROFS_OCI_TRY_ASSIGN(auto const store, held_.open());
    list = refine(store, std::move(list));
    auto const key = digests();
    auto const before = store.find_start_list(key);
    if (before && *before) list = StartList::merge(**before, list);
    return store.put_start_list(key, list);
  });
  if (written) return;
  log_.say(Level::info, "the start list is not kept: " + written.error().message());
}

void StartKeeper::end() noexcept {
  if (fetcher_) {
    auto const used = erofs_oci::without_throwing([&]() -> Result<StartUse> { return use(); });
    std::unique_ptr<StartFetcher> ended;  // ends after the lock
    std::lock_guard const lock(mutex_);
    ended_ = used.value_or(StartUse{});
    ended = std::move(fetcher_);
  }
  if (!writer_.joinable()) return;
  writer_.request_stop();
  writer_.join();
}

StartUse StartKeeper::use() const {
  std::lock_guard const lock(mutex_);
  if (!fetcher_) return ended_;
  auto const fetched = fetcher_->fetched();
  return {fetched.bytes, fetched.list.overlap(recorder_.list())};
}

std::shared_ptr<StartKeeper> start_keeper_of(ImageOptions const& options, Log const& log) {
  if (options.start_list == StartListUse::off || options.opened_before) return nullptr;
  return std::make_shared<StartKeeper>(options, log);
}

}  // namespace mount_oci
