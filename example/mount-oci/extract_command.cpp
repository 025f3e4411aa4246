// SPDX-License-Identifier: Apache-2.0
// extract.
#include <cstdint>
#include <ranges>
#include <stop_token>
#include <string>
#include <utility>

#include "extract_plan.hpp"
#include "reading.hpp"
#include "tar_stream.hpp"
#include "target_directory.hpp"

namespace mount_oci {
namespace {

using erofs_oci::fail;
using erofs_oci::erofs::Run;

/// What a summary counts.
struct Extracted {
  std::uint64_t files = 0;
  std::uint64_t bytes = 0;
};

class Extractor {
 public:
  Extractor(ImageReader const& reader, TargetDirectory& target, std::stop_token stop)
      : reader_(reader), target_(target), stop_(std::move(stop)) {}

  [[nodiscard]] Result<void> run(ExtractPlan const& plan, bool whole) {
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
    return finish_directories(plan, whole);
  }

  [[nodiscard]] Extracted const& done() const noexcept { return done_; }

 private:
  /// From below: what is made in a directory changes its time.
  Result<void> finish_directories(ExtractPlan const& plan, bool whole) {
    for (auto const& node : plan.files | std::views::reverse) {
      if (!node.inode.is_directory() || (node.path == "/" && !whole)) continue;
      EROFS_OCI_TRY_ASSIGN(auto const with, attributes_of(reader_, node.inode), node.path);
      EROFS_OCI_TRY(target_.finish_directory(node.path, with));
    }
    return {};
  }

  Result<void> make_node(PlannedFile const& file) {
    auto const& inode = file.inode;
    if (inode.is_directory()) return target_.make_directory(file.path);
    EROFS_OCI_TRY_ASSIGN(auto const with, attributes_of(reader_, inode), file.path);
    if (!inode.is_symlink()) return target_.make_special(file.path, inode.device(), with);
    EROFS_OCI_TRY_ASSIGN(auto const to, reader_.read_link(inode), file.path);
    return target_.make_symlink(file.path, to, with);
  }

  Result<void> make_file(PlannedFile const& file) {
    EROFS_OCI_TRY_ASSIGN(auto const with, attributes_of(reader_, file.inode), file.path);
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
        if (stop_.stop_requested()) written = fail(Errc::stopping, "extract");
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
  std::stop_token stop_;
  Extracted done_;
};

}  // namespace

Result<Status> run_extract(Reading const& reading) {
  auto const& read = reading.options.read;
  EROFS_OCI_TRY_ASSIGN(auto const reader, reading.open());
  auto const plan = plan_extraction(reader, read.paths);
  if (!plan && is_about_path(plan.error())) {
    reading.complain(plan.error());
    return 1;
  }
  if (!plan) return fail(plan.error());
  std::uint64_t warnings = 0;
  auto const warn = [&](std::string const& text) {
    ++warnings;
    reading.log.say(Level::warning, text);
  };
  if (read.tar) {
    EROFS_OCI_TRY(write_tar(reader, *plan, reading.output, warn));
    return 0;
  }
  EROFS_OCI_TRY_ASSIGN(auto target, TargetDirectory::open(read.directory, warn, read.safe));
  ExitOnSignal::Pause const pause(reading.guard);
  Extractor extractor(reader, target, reading.guard.stop_token());
  EROFS_OCI_TRY(extractor.run(*plan, read.paths.empty()), read.directory);
  if (!read.json) return 0;
  EROFS_OCI_TRY(reading.output.put_json({{"directory", read.directory},
                                         {"files", extractor.done().files},
                                         {"bytes", extractor.done().bytes},
                                         {"warnings", warnings}}));
  return 0;
}

}  // namespace mount_oci
