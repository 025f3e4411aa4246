// SPDX-License-Identifier: Apache-2.0
/// @file
/// LayerBuilder: the tree of one layer, from the members of its tar.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <erofs_oci/core/memory_budget.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/erofs/tree.hpp>
#include <erofs_oci/tar/entry.hpp>
#include <erofs_oci/tar/whiteout.hpp>
#include <erofs_oci/tarindex/path.hpp>

namespace erofs_oci::tarindex {

/// A hard link whose target its own layer did not have when the link came; a lower layer may have
/// it, and then the link is to that file. Else it is to the file that the layer's tree has there.
struct DanglingLink {
  std::string path;             ///< the link
  std::string target;           ///< what it links to
  std::uint64_t header_offset;  ///< of the link in its archive

  friend bool operator==(DanglingLink const&, DanglingLink const&) = default;
};

/// Reports that a hard link is left out.
inline void report_left_out(tar::Reports& reports, DanglingLink const& link, std::string_view why) {
  reports.add(link.header_offset, "hard link " + tar::printable(link.path) + " to " +
                                      tar::printable(link.target) + ": " + std::string(why) +
                                      ", left out");
}

/// A layer by itself: what it adds, and, by Kind::whiteout and Directory::opaque, what it removes.
///
/// A directory without a header of its own is `implied`. The root is opaque if the layer hides all
/// that is below it.
struct Layer {
  erofs::Tree tree;
  std::vector<DanglingLink>
      dangling;          ///< in the order of the archive; merge() looks in lower layers
  tar::Reports reports;  ///< what was left out
};

/// How `.wh.` names are read.
enum class Whiteouts : std::uint8_t {
  oci,      ///< removals from lower layers
  literal,  ///< files of that name
};

/// How to read a layer.
struct LayerOptions {
  /// Default: Whiteouts::oci.
  Whiteouts whiteouts = Whiteouts::oci;
  /// Where files, whiteouts, links that wait for their targets, and all that they bring along are
  /// counted. Default: the layer has a whole budget of its own, however short it is.
  std::shared_ptr<ImageMemory> memory{};
};

/// Applies members one after another, as an extraction would:
///   - paths are cleaned, and `..` stops at the root; symbolic links on the way are followed inside
///     the tree
///   - a later member replaces an earlier one of its name; a directory over a directory only
///     changes its attributes; a directory in place of something else hides what lower layers have
///   - a hard link keeps the file that its target named then: in this layer, or in a lower one
///     unless this layer has removed it before; a target that only comes later is found at the end
///   - whiteouts concern lower layers only, wherever they stand in the archive
///
/// Parents without a member become implied directories: 0755, 0:0, time 0; so does the root.
class LayerBuilder {
 public:
  explicit LayerBuilder(LayerOptions options = {});

  /// Adds a member. One that no file system could hold where it stands is left out and reported,
  /// and so is an attribute that no image can hold; doc/formats/oddities.md lists them. After an
  /// error the builder must not be used any more.
  /// @error{Errc::corrupt, a whiteout that names nothing}
  /// @error{as ImageMemory::take_tree(), as there}
  [[nodiscard]] Result<void> apply(tar::Entry entry);

  /// The layer, once all members are in.
  [[nodiscard]] Layer finish() &&;

 private:
  /// A hard link whose target was not there when it was added.
  struct Late {
    DanglingLink link;
    bool hidden = false;  ///< the layer has removed what a lower one may have there
    bool done = false;
  };

  /// Takes what the member before has cost.
  [[nodiscard]] Result<void> charge();

  [[nodiscard]] Result<void> take(tar::Entry&& entry);

  /// How a name is read; as none if whiteouts are literal.
  [[nodiscard]] tar::Whiteout mark_of(std::string_view name) const noexcept;

  /// AUFS kept files of its own under `.wh..wh.` names; they and what is in them are left out.
  [[nodiscard]] bool is_bookkeeping(Components const& parts) const noexcept;

  /// Whether a path is a whiteout, but of nothing that could be removed.
  [[nodiscard]] bool names_nothing(std::string_view path) const;

  [[nodiscard]] Result<void> update_directory(erofs::NodeId id, tar::Entry&& entry);

  [[nodiscard]] Result<void> put(Place place, tar::Entry&& entry);

  [[nodiscard]] Result<void> put_link(Place place, tar::Entry&& entry);

  /// Keeps a link whose target is not there, and removes what it replaces. A target that is itself
  /// a link that waits stands for what that one waits for, since either name may be linked to
  /// something else later.
  void wait(Place place, DanglingLink link, std::optional<Place> const& target);

  /// Whether this layer has removed what lower ones may have at `target`.
  [[nodiscard]] bool hides(std::string_view target);

  /// Links that came before their targets. A target may be another such link: each chain is
  /// followed once, whatever its order in the archive.
  void resolve_links();

  void settle(Place const& place, Late& late, std::optional<erofs::NodeId> id);

  /// The layer's own files win over its whiteouts; an own directory hides the one below.
  void place_whiteouts();

  LayerOptions options_;
  Layer layer_;
  std::map<Place, erofs::Time> whiteouts_;
  std::map<Place, Late> late_;
  std::uint64_t beside_ = 0;   // bytes ever added outside the tree
  std::uint64_t charged_ = 0;  // of both, taken from the budget
};

}  // namespace erofs_oci::tarindex

#ifndef EROFS_OCI_COMPILED
#include <erofs_oci/tarindex/detail/layer_body.hpp>
#endif
