// SPDX-License-Identifier: Apache-2.0
/// @file
/// hand_over(): gives an engine the READs that no engine has.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <span>

#include <erofs_oci/nbd/engine_channels.hpp>
#include <erofs_oci/nbd/engine_protocol.hpp>
#include <erofs_oci/nbd/read_table.hpp>
#include <erofs_oci/nbd/suspects.hpp>

namespace erofs_oci::nbd {

/// Sends an engine all READs of the queue that it may get now. Never blocks.
/// @return false: the engine's channel had no room for all of them
[[nodiscard]] inline bool hand_over(ReadTable& reads, Suspects const& suspects,
                                    EngineChannels const& engines, EngineId engine) {
  if (!engines.has(engine)) return true;
  while (!reads.line().empty()) {
    std::array<EngineRequest, most_in_packet> messages{};
    auto const count = std::min(suspects.may_send(reads, engine), messages.size());
    if (count == 0) return true;
    for (std::size_t i = 0; i < count; ++i) {
      auto const id = reads.line()[i];
      auto const& read = reads.at(id);
      messages[i] = {id, read.offset, read.place, read.length};
    }
    if (!engines.send(engine, std::span(messages).first(count))) return false;
    reads.assign(count, engine);
  }
  return true;
}

}  // namespace erofs_oci::nbd
