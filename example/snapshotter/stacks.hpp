// SPDX-License-Identifier: Apache-2.0
/// @file
/// Which stacks of layers snapshots stand on.
#pragma once

#include <set>
#include <string>

#include "snapshot.hpp"
#include "store.hpp"

namespace oci_snapshotter {

/// Names of the stacks that a served snapshot may be mounted by.
[[nodiscard]] std::set<std::string> stacks_of(SnapshotStore const& store, Snapshot const& snapshot);

/// Names of the stacks that active snapshots and views stand on.
[[nodiscard]] std::set<std::string> needed_stacks(SnapshotStore const& store);

}  // namespace oci_snapshotter
