// SPDX-License-Identifier: Apache-2.0
/// @file
/// What image/start_fetcher.hpp only declares.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <stop_token>
#include <utility>
#include <vector>

#include <erofs_oci/core/config.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/image/start_fetcher.hpp>
#include <erofs_oci/image/start_list.hpp>

namespace erofs_oci {
namespace detail {

/// A range with its place in the order.
struct PlannedRange {
  PlannedFetch fetch;
  std::size_t order = 0;
};

/// The ranges of one layer, those that lie close together as one.
[[nodiscard]] inline std::vector<PlannedRange> joined_ranges(StartList const& list,
                                                             StartLayer const& layer,
                                                             std::size_t number,
                                                             std::uint64_t gap) {
  std::vector<PlannedRange> ranges;
  for (std::size_t i = 0; i < list.ranges().size(); ++i) {
    auto const& range = list.ranges()[i];
    if (range.layer != layer.digest || range.begin >= layer.size) continue;
    ranges.push_back({{number, range.begin, std::min(range.end, layer.size)}, i});
  }
  std::ranges::sort(ranges, {}, [](PlannedRange const& one) { return one.fetch.begin; });
  std::vector<PlannedRange> joined;
  for (auto const& range : ranges) {
    if (joined.empty() || range.fetch.begin - joined.back().fetch.end > gap) {
      joined.push_back(range);
      continue;
    }
    auto& last = joined.back();
    last.fetch.end = range.fetch.end;
    last.order = std::min(last.order, range.order);
  }
  return joined;
}

}  // namespace detail

EROFS_OCI_BODY std::vector<PlannedFetch> plan_start(StartList const& list,
                                                    std::vector<StartLayer> const& layers,
                                                    StartFetchOptions const& options) {
  std::vector<detail::PlannedRange> ranges;
  for (std::size_t i = 0; i < layers.size(); ++i) {
    auto const of_layer = detail::joined_ranges(list, layers[i], i, options.gap);
    ranges.insert(ranges.end(), of_layer.begin(), of_layer.end());
  }
  std::ranges::sort(ranges, {}, &detail::PlannedRange::order);

  std::vector<PlannedFetch> plan;
  auto left = options.most_bytes;
  for (auto const& [range, order] : ranges) {
    for (auto begin = range.begin; begin < range.end && left > 0;) {
      auto const most = std::max<std::uint64_t>(std::min(options.request, left), 1);
      auto const cut =
          most < range.end - begin ? layers[range.layer].next_begin(begin + most) : range.end;
      auto const end = std::clamp(cut, begin + 1, range.end);
      plan.push_back({range.layer, begin, end});
      left -= std::min(left, end - begin);
      begin = end;
    }
  }
  return plan;
}

EROFS_OCI_BODY StartFetcher::StartFetcher(std::vector<PlannedFetch> plan,
                                          std::vector<StartLayer> layers,
                                          StartFetchOptions const& options, std::stop_token stop)
    : plan_(std::move(plan)), layers_(std::move(layers)), on_failure_(options.on_failure) {
  auto const started = without_throwing([&]() -> Result<void> {
    at_stop_.emplace(std::move(stop), [this] { stop_.request_stop(); });
    auto const count = std::min<std::size_t>(std::clamp(options.threads, 1U, 64U), plan_.size());
    threads_.reserve(count);
    for (std::size_t i = 0; i < count; ++i) {
      threads_.emplace_back([this] { run(); });
    }
    return {};
  });
  if (!started && on_failure_) on_failure_(started.error());
  std::lock_guard const lock(mutex_);
  if (threads_.empty()) next_ = plan_.size();
}

EROFS_OCI_BODY StartFetcher::~StartFetcher() {
  stop_.request_stop();
}

EROFS_OCI_BODY StartFetcher::Fetched StartFetcher::fetched() const {
  std::lock_guard const lock(mutex_);
  auto fetched = fetched_;
  fetched.done = running_ == 0 && (next_ == plan_.size() || stop_.stop_requested());
  return fetched;
}

EROFS_OCI_BODY std::optional<PlannedFetch> StartFetcher::next() {
  std::lock_guard const lock(mutex_);
  if (next_ == plan_.size() || stop_.stop_requested()) return std::nullopt;
  ++running_;
  return plan_[next_++];
}

EROFS_OCI_BODY void StartFetcher::note(PlannedFetch const& fetch,
                                       Result<std::uint64_t> const& came) {
  auto const fails = !came && !stop_.stop_requested();
  if (!came) stop_.request_stop();
  {
    std::lock_guard const lock(mutex_);
    if (came) {
      fetched_.bytes += *came;
      fetched_.list.add({layers_[fetch.layer].digest, fetch.begin, fetch.end});
    }
    --running_;
  }
  if (fails && on_failure_) on_failure_(came.error());
}

EROFS_OCI_BODY void StartFetcher::run() noexcept {
  auto const token = stop_.get_token();
  while (auto const fetch = next()) {
    auto const came = without_throwing(
        [&] { return layers_[fetch->layer].fetch(fetch->begin, fetch->end, token); });
    auto const noted = without_throwing([&]() -> Result<void> {
      note(*fetch, came);
      return {};
    });
    if (!noted) stop_.request_stop();
  }
}

}  // namespace erofs_oci
