// SPDX-License-Identifier: Apache-2.0
#include "lazy_policy.hpp"

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>
#include <vector>

#include <erofs_oci/oci/reference.hpp>

#include "chain.hpp"

namespace oci_snapshotter {

using erofs_oci::Digest;

namespace {

constexpr std::array<std::string_view, 3> media_types{
    "application/vnd.oci.image.layer.v1.tar+gzip", "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip"};

std::string sized(std::uint64_t bytes) {
  return std::to_string(bytes / 1'000'000) + "." + std::to_string(bytes / 100'000 % 10) + " MB";
}

}  // namespace

std::optional<ImageLabels> ImageLabels::of(Labels const& labels) {
  ImageLabels out{label_of(labels, reference_label),
                  {},
                  label_of(labels, "containerd.io/snapshot/cri.manifest-digest"),
                  label_of(labels, "containerd.io/snapshot/cri.layer-digest")};
  auto const name =
      erofs_oci::Reference::parse(label_of(labels, "containerd.io/snapshot/cri.image-ref"));
  if (!name || !Digest::parse(out.chain) || !Digest::parse(out.manifest) ||
      !Digest::parse(out.layer)) {
    return std::nullopt;
  }
  out.repository = name->repository_name();
  return out;
}

bool LazyPolicy::fits(ImageFacts const& image, std::size_t depth, ImageLabels const& labels) {
  if (depth == 0 || depth > image.layers.size()) return false;
  if (image.layers[depth - 1].digest.to_string() != labels.layer) return false;
  std::vector<Digest> diff_ids;
  for (std::size_t i = 0; i < depth; ++i) diff_ids.push_back(image.layers[i].diff_id);
  return chain_id(diff_ids) == labels.chain;
}

tl::expected<ImageDescription, std::string> LazyPolicy::look(ImageLabels const& labels) const {
  if (!options_.never_because.empty()) return tl::unexpected(options_.never_because);
  if (auto const why = store_.refuted(labels.manifest)) {
    return tl::unexpected("it was found to be wrong: " + *why);
  }
  if (auto known = store_.image(labels.manifest)) return ImageDescription{*std::move(known), {}};
  auto found =
      tool_.describe(labels.repository, labels.manifest, Clock::now() + options_.timeout, {});
  if (!found) return tl::unexpected(found.error().message());
  for (auto const& type : found->media_types) {
    if (std::ranges::find(media_types, type) == media_types.end()) {
      return tl::unexpected("a layer is " + type);
    }
  }
  if (found->size < options_.min_size) {
    return tl::unexpected("its layers have " + sized(found->size) + ", less than " +
                          sized(options_.min_size));
  }
  return *std::move(found);
}

std::optional<ImageFacts> LazyPolicy::decide(ImageLabels const& labels, Patience const& patience) {
  std::unique_lock lock(mutex_);
  auto const now = Clock::now();
  std::erase_if(decisions_, [&](auto const& one) { return one.second.until < now; });
  auto const [at, is_first] = decisions_.try_emplace(labels.manifest);
  if (!is_first) {
    // Another call asks: of the same image in another namespace, say.
    for (;;) {
      auto const found = decisions_.find(labels.manifest);
      if (found == decisions_.end()) return std::nullopt;
      if (found->second.made) return found->second.image;
      if (Clock::now() >= patience.until || patience.is_cancelled()) return std::nullopt;
      changed_.wait_for(lock, std::chrono::milliseconds(100));
    }
  }
  lock.unlock();
  auto const found = look(labels);
  auto const name = labels.repository + "@" + labels.manifest;
  if (!found) {
    say_(name + ": left to containerd to download: " + found.error());
  } else {
    say_(name + ": served lazily, " + std::to_string(found->facts.layers.size()) + " layers" +
         (found->size == 0
              ? ", as it was before"
              : " of " + sized(found->size) + ", all of which are tar, gzipped or not"));
  }
  lock.lock();
  auto& decision = decisions_[labels.manifest];
  decision.made = true;
  decision.name = name;
  ++(found ? served_ : unpacked_);
  // The table keeps what is served; what is not may be another time.
  decision.until = Clock::now() + options_.remember;
  if (found) decision.image = found->facts;
  changed_.notify_all();
  return decision.image;
}

LazyPolicy::Decisions LazyPolicy::decisions() const {
  std::scoped_lock const lock(mutex_);
  Decisions out{{}, served_, unpacked_};
  for (auto const& [manifest, decision] : decisions_) {
    if (decision.made) out.by_image[decision.name] = decision.image.has_value();
  }
  return out;
}

}  // namespace oci_snapshotter
