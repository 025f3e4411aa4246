// SPDX-License-Identifier: Apache-2.0
#include "extractor.hpp"

#include <ranges>
#include <string>

#include <erofs_oci/erofs/file_map.hpp>

namespace mount_oci {
namespace {

using erofs_oci::fail;
using erofs_oci::erofs::Run;

class Extractor {
 public:
  Extractor(ImageReader const& reader, TargetDirectory& target, ExtractOptions const& options)
      : reader_(reader), target_(target), options_(options) {}

  [[nodiscard]] Result<Extracted> run(ExtractPlan const& plan) {
    for (auto const& file : plan.files) {
      ++done_.files;
      if (file.inode.is_regular() || !file.link_to.empty()) continue;
      EROFS_OCI_TRY(make_node(file));
    }
    for (auto const i : plan.by_place) {
      EROFS_OCI_TRY(make_file(plan.files[i]));
    }
    for (auto const& file : plan.files) {
      if (file.link_to.empty()) continue;
      EROFS_OCI_TRY(target_.make_link(file.path, file.link_to));
    }
    EROFS_OCI_TRY(finish_directories(plan));
    return done_;
  }

 private:
  /// From below: what is made in a directory changes its time.
  Result<void> finish_directories(ExtractPlan const& plan) {
    for (auto const& node : plan.files | std::views::reverse) {
      if (!node.inode.is_directory() || (node.path == "/" && !options_.finishes_root)) continue;
      EROFS_OCI_TRY_ASSIGN(auto const with, options_.attributes(node.inode), node.path);
      EROFS_OCI_TRY(target_.finish_directory(node.path, with));
    }
    return {};
  }

  Result<void> make_node(PlannedFile const& file) {
    auto const& inode = file.inode;
    if (inode.is_directory()) return target_.make_directory(file.path);
    EROFS_OCI_TRY_ASSIGN(auto const with, options_.attributes(inode), file.path);
    if (!inode.is_symlink()) return target_.make_special(file.path, inode.device(), with);
    EROFS_OCI_TRY_ASSIGN(auto const to, reader_.read_link(inode), file.path);
    return target_.make_symlink(file.path, to, with);
  }

  Result<void> make_file(PlannedFile const& file) {
    EROFS_OCI_TRY_ASSIGN(auto const with, options_.attributes(file.inode), file.path);
    return target_.make_file(
        file.path, file.inode.size(), [&](auto const& write) { return fill(file.inode, write); },
        with);
  }

  template <class Write>
  Result<void> fill(erofs_oci::erofs::Inode const& inode, Write const& write) {
    return reader_.runs(inode, 0, inode.size(), [&](Run const& run) -> Result<bool> {
      if (!run.place) return true;
      auto offset = run.file_offset;
      Result<void> written;
      auto const ok = reader_.frame().stream_data(*run.place, run.length, [&](auto piece) {
        if (options_.stop.stop_requested()) written = fail(Errc::stopping, "extract");
        if (written) written = write(offset, piece);
        offset += piece.size();
        done_.bytes += piece.size();
        return written.has_value();
      });
      EROFS_OCI_TRY(written);
      EROFS_OCI_TRY(ok);
      return true;
    });
  }

  ImageReader const& reader_;
  TargetDirectory& target_;
  ExtractOptions const& options_;
  Extracted done_;
};

}  // namespace

Result<Extracted> extract(ImageReader const& reader, ExtractPlan const& plan,
                          TargetDirectory& target, ExtractOptions const& options) {
  return Extractor(reader, target, options).run(plan);
}

}  // namespace mount_oci
