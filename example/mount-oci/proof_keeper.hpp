// SPDX-License-Identifier: Apache-2.0
/// @file
/// ProofKeeper: compares the layers of an image that is served with their indexes, meanwhile.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <erofs_oci/combinator/proof.hpp>
#include <erofs_oci/core/any_source.hpp>
#include <erofs_oci/gzip/demand_gate.hpp>
#include <erofs_oci/image/index_store.hpp>

#include "indexing.hpp"
#include "layer_cache.hpp"
#include "layer_proof.hpp"
#include "mount_report.hpp"
#include "options.hpp"
#include "process.hpp"
#include "served_ranges.hpp"

namespace mount_oci {

/// Proves the layers of an image that a process serves, if their indexes came from elsewhere. One
/// thread of low priority reads them through the layer cache, a MiB at a time, and lets reads
/// of the image go first, for a second at most. With Verify::lazy it begins with a layer once all
/// of it is on this machine. A layer that is not what was said of it refutes the image's Proof.
///
/// @par Thread safety
/// read(), layers(), served() and ranges(), from any thread.
class ProofKeeper {
 public:
  /// Touches nothing. Borrows `log`.
  ProofKeeper(ImageOptions const& options, Log const& log);

  ProofKeeper(ProofKeeper const&) = delete;
  ProofKeeper& operator=(ProofKeeper const&) = delete;
  /// end().
  ~ProofKeeper();

  /// Begins. Before end_opening().
  /// @param image     may be null: there is nothing to prove
  /// @param proof     what the image's source asks; null if nothing is to be proved
  /// @param earlier   bytes of the device that earlier workers have read
  /// @param mismatch  what an earlier worker has told its Proof: nothing is proved any more; empty:
  ///                  it has told nothing
  void begin(std::shared_ptr<ImageToProve> image, std::shared_ptr<erofs_oci::Proof> proof,
             std::vector<ByteRange> const& earlier = {}, std::string const& mismatch = {});

  /// Ends the thread. Waits for its request, which ends soon if the caller has ended all requests.
  void end() noexcept;

  /// A read of these bytes, as long as it lives: the thread makes way for it.
  [[nodiscard]] erofs_oci::DemandGate::Demand read(std::uint64_t offset, std::uint64_t length) {
    if (!notes_) return {};
    ranges_.note(offset, offset + length);
    return gate_.enter();
  }

  /// All layers of the image.
  [[nodiscard]] std::vector<LayerProof> layers() const;
  /// What was read before a layer failed; empty: none has.
  [[nodiscard]] ServedFiles served() const;
  /// What was read of the device; empty once there is nothing to prove.
  [[nodiscard]] std::vector<ByteRange> ranges() const;

 private:
  void run(std::stop_token const& stop);
  [[nodiscard]] Result<void> prepare();
  [[nodiscard]] bool is_turn(ImageToProve::Layer const& layer) const;
  [[nodiscard]] bool look_elsewhere(ImageToProve::Layer const& layer);
  [[nodiscard]] Result<void> prove(ImageToProve::Layer const& layer, std::stop_token const& stop);
  [[nodiscard]] Result<void> fill(FoundLayer const& layer, std::stop_token const& stop);
  [[nodiscard]] bool make_way(std::stop_token const& stop);
  void conclude(ImageToProve::Layer const& layer, Verdict const& verdict);
  void refute(ImageToProve::Layer const& layer, std::string const& problem);
  void set_state(std::size_t layer, LayerState state, std::string problem);
  void forget(std::size_t number);

  ImageOptions options_;  // for comparing: with little memory
  Log const& log_;
  std::shared_ptr<LayerCache> const cache_;
  HeldStore held_;
  std::optional<erofs_oci::IndexStore> store_;  // by what is held
  std::shared_ptr<ImageToProve> image_;
  std::shared_ptr<erofs_oci::Proof> proof_;
  std::vector<std::string> diff_ids_;  // of image_->image's layers, once they are known
  erofs_oci::DemandGate gate_;
  std::atomic<bool> notes_{false};
  ServedRanges ranges_;
  mutable std::mutex mutex_;  // guards the two below
  std::vector<LayerProof> states_;
  ServedFiles served_;
  std::jthread thread_;  // last: ends first
};

/// Reads as another source, and tells a ProofKeeper of each read, which must outlive it.
///
/// @par Thread safety
/// All const members, from any thread.
class Attended {
 public:
  Attended(erofs_oci::AnySource inner, ProofKeeper& keeper) noexcept
      : inner_(std::move(inner)), keeper_(&keeper) {}

  /// @name RandomAccessSource
  /// @{
  [[nodiscard]] std::uint64_t size() const noexcept { return inner_.size(); }
  [[nodiscard]] Result<std::size_t> read_at(std::uint64_t offset, std::span<std::byte> out) const {
    auto const demand = keeper_->read(offset, out.size());
    return inner_.read_at(offset, out);
  }
  [[nodiscard]] Result<void> stream(std::uint64_t offset, std::uint64_t length,
                                    erofs_oci::ByteSink sink) const {
    auto const demand = keeper_->read(offset, length);
    return inner_.stream(offset, length, sink);
  }
  /// @}

 private:
  erofs_oci::AnySource inner_;
  ProofKeeper* keeper_;
};

}  // namespace mount_oci
