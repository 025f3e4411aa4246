// SPDX-License-Identifier: Apache-2.0
#include "id_mapping.hpp"

#include <algorithm>
#include <limits>
#include <utility>

#include <erofs_oci/core/text.hpp>

#include "refusal.hpp"

namespace oci_snapshotter {

using erofs_oci::Result;

namespace {

bool is_sound(IdRange const& range) {
  constexpr auto most = std::numeric_limits<std::uint32_t>::max();
  return range.length != 0 && range.length <= most - range.inside &&
         range.length <= most - range.outside;
}

std::optional<IdRange> parse_range(std::string_view text) {
  IdRange range;
  for (auto* const part : {&range.inside, &range.outside, &range.length}) {
    if (part != &range.inside && !erofs_oci::take_char(text, ':')) return std::nullopt;
    auto const number = erofs_oci::take_number<std::uint32_t>(text);
    if (!number) return std::nullopt;
    *part = *number;
  }
  if (!text.empty() || !is_sound(range)) return std::nullopt;
  return range;
}

bool is_outside(std::span<IdRange const> ranges, std::uint32_t id) {
  return std::ranges::any_of(ranges, [&](IdRange const& range) {
    return id >= range.outside && id - range.outside < range.length;
  });
}

}  // namespace

Result<std::vector<IdRange>> parse_id_ranges(std::string_view text) {
  std::vector<IdRange> ranges;
  for (auto rest = text; ranges.empty() || !rest.empty();) {
    auto const range = parse_range(erofs_oci::take_part(rest, ','));
    if (!range) {
      return refuse(Refusal::invalid_argument,
                    "`" + std::string(text) + "` maps no users or groups: INSIDE:OUTSIDE:LENGTH");
    }
    ranges.push_back(*range);
  }
  return ranges;
}

Result<std::optional<IdMapping>> IdMapping::of(Labels const& labels) {
  IdMapping mapping;
  mapping.user_text_ = label_of(labels, user_mapping_label);
  mapping.group_text_ = label_of(labels, group_mapping_label);
  if (mapping.user_text_.empty() && mapping.group_text_.empty()) return std::optional<IdMapping>();
  EROFS_OCI_TRY_ASSIGN(mapping.users_, parse_id_ranges(mapping.user_text_), user_mapping_label);
  EROFS_OCI_TRY_ASSIGN(mapping.groups_, parse_id_ranges(mapping.group_text_), group_mapping_label);
  return std::optional(std::move(mapping));
}

std::uint32_t IdMapping::mapped(std::span<IdRange const> ranges, std::uint32_t id) {
  for (auto const wanted : {id, std::uint32_t(0)}) {
    for (auto const& range : ranges) {
      if (wanted >= range.inside && wanted - range.inside < range.length) {
        return range.outside + (wanted - range.inside);
      }
    }
  }
  return ranges.front().outside;
}

bool IdMapping::has_mapped(uid_t user, gid_t group) const {
  return is_outside(users_, user) && is_outside(groups_, group);
}

std::vector<std::string> IdMapping::mount_options() const {
  return {"uidmap=" + user_text_, "gidmap=" + group_text_};
}

bool is_unmappable(std::vector<mount_oci::MountEntry> const& table, std::string const& path) {
  auto const found = mount_oci::find_target(table, path);
  return found && found->type.starts_with("fuse");
}

}  // namespace oci_snapshotter
