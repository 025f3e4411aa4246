// SPDX-License-Identifier: Apache-2.0
/// @file
/// StartKeeper: records what the first minute of a mount needs, and fetches it at the next one.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <erofs_oci/digest/digest.hpp>
#include <erofs_oci/image/index_store.hpp>
#include <erofs_oci/image/start_fetcher.hpp>
#include <erofs_oci/image/start_list.hpp>
#include <erofs_oci/image/start_recorder.hpp>

#include "indexing.hpp"
#include "layer_cache.hpp"
#include "mount_report.hpp"
#include "options.hpp"
#include "process.hpp"

namespace mount_oci {

/// The start list of the image that a process serves. Its file is in the index store; where there
/// is no store, nothing is kept.
///
/// @par Thread safety
/// note() and use(), from any thread.
class StartKeeper {
 public:
  /// Begins the minute; touches nothing. Borrows `log`.
  StartKeeper(ImageOptions const& options, Log const& log);

  StartKeeper(StartKeeper const&) = delete;
  StartKeeper& operator=(StartKeeper const&) = delete;
  /// end().
  ~StartKeeper();

  /// As erofs_oci::ImageReadOptions::on_need.
  void note(erofs_oci::Digest const& layer, std::uint64_t begin, std::uint64_t end) {
    recorder_.needed(layer, begin, end);
  }

  /// As erofs_oci::ImageReadOptions::on_read.
  void note_read(erofs_oci::Digest const& layer, std::uint64_t begin, std::uint64_t end) {
    recorder_.read(layer, begin, end);
  }

  /// A list that came with the image's index: the first one counts, if the store has none. Before
  /// begin(), from any thread. An error is a message.
  void offer(Result<erofs_oci::StartList> list);

  /// Begins to fetch what the list names, and to wait for the end of the minute, to write it. A
  /// list that cannot be read or written is a message. Before end_opening().
  /// @param layers  of the image that was opened
  void begin(std::vector<erofs_oci::StartLayer> layers);

  /// Ends fetching, and writes the list if that has not been done. Waits for fetches under way:
  /// who ends all requests before does not wait long.
  void end() noexcept;

  /// What was fetched ahead, and how much of that reads have needed in the first minute.
  [[nodiscard]] StartUse use() const;

 private:
  [[nodiscard]] std::optional<erofs_oci::StartList> read() const;
  [[nodiscard]] std::optional<erofs_oci::StartList> take_offered() const;
  void fetch();
  [[nodiscard]] std::vector<erofs_oci::Digest> digests() const;
  [[nodiscard]] erofs_oci::StartList refine(erofs_oci::IndexStore const& store,
                                            erofs_oci::StartList list) const;
  void write() const noexcept;

  StartListUse const wanted_;
  std::string const store_;     // empty: none
  HeldStore held_;              // once begin() was called
  unsigned const connections_;  // ranges at a time
  std::uint64_t const most_;    // bytes fetched ahead
  std::stop_token const requests_;
  Log const& log_;
  erofs_oci::StartRecorder<> recorder_;
  std::shared_ptr<LayerCache> const cache_;  // of the image; null: none
  std::vector<erofs_oci::StartLayer> layers_;
  std::optional<erofs_oci::StartList> offered_;
  mutable std::mutex mutex_;  // guards fetcher_ and offered_
  std::unique_ptr<erofs_oci::StartFetcher> fetcher_;
  StartUse ended_;       // once the fetcher has ended
  std::jthread writer_;  // last: ends first
};

/// A keeper for an image that is mounted or served now, if the options want a start list; else
/// null.
[[nodiscard]] std::shared_ptr<StartKeeper> start_keeper_of(ImageOptions const& options,
                                                           Log const& log);

}  // namespace mount_oci
