// SPDX-License-Identifier: Apache-2.0
#include "stacks.hpp"

#include <algorithm>
#include <span>

#include "chain.hpp"

namespace oci_snapshotter {

std::set<std::string> stacks_of(SnapshotStore const& store, Snapshot const& snapshot) {
  std::set<std::string> names;
  for (auto const& manifest : snapshot.manifests) {
    auto const image = store.image(manifest);
    if (image && image->layers.size() >= snapshot.depth) {
      names.insert(stack_name(std::span(image->layers).first(snapshot.depth)));
    }
  }
  return names;
}

std::set<std::string> needed_stacks(SnapshotStore const& store) {
  std::set<std::string> needed;
  for (auto const& snapshot : store.all()) {
    if (snapshot.info.kind == Kind::committed || snapshot.info.parent.empty()) continue;
    auto const lineage = store.lineage(snapshot.info.parent);
    if (!lineage) continue;  // it was removed meanwhile
    auto const served = std::ranges::find_if(*lineage, &Snapshot::is_served);
    if (served != lineage->end()) needed.merge(stacks_of(store, *served));
  }
  return needed;
}

}  // namespace oci_snapshotter
