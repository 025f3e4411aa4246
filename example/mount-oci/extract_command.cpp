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
  std::uint64_t warnings = 0;
};

class Extractor {
 public:
  Extractor(ImageReader const& reader, TargetDirectory& target, std::stop_token stop)
      : reader_(reader), target_(target), stop_(std::move(stop)) {}

  [[nodiscard]] Result<void> run(ExtractPlan const& plan, bool whole) {
    for (auto const& file : plan.files) {
      ++done_.files;
      if (file.inode.is_regular() || !file.link_to.empty()) continue;
      if (auto ok = make_node(file); !ok) return ok;
    }
    for (auto const i : plan.by_place) {
      if (auto ok = make_file(plan.files[i]); !ok) return ok;
    }
    for (auto const& file : plan.files) {
      if (file.link_to.empty()) continue;
      if (auto ok = target_.make_link(file.path, file.link_to); !ok) return ok;
    }
    return finish_directories(plan, whole);
  }

  [[nodiscard]] Extracted const& done() const noexcept { return done_; }

 private:
  /// From below: what is made in a directory changes its time.
  Result<void> finish_directories(ExtractPlan const& plan, bool whole) {
    for (auto const& node : plan.files | std::views::reverse) {
      if (!node.inode.is_directory() || (node.path == "/" && !whole)) continue;
      auto const with = attributes_of(reader_, node.inode);
      if (!with) return fail(with.error(), node.path);
      if (auto ok = target_.finish_directory(node.path, *with); !ok) return ok;
    }
    return {};
  }

  Result<void> make_node(PlannedFile const& file) {
    auto const& inode = file.inode;
    if (inode.is_directory()) return target_.make_directory(file.path);
    auto const with = attributes_of(reader_, inode);
    if (!with) return fail(with.error(), file.path);
    if (!inode.is_symlink()) return target_.make_special(file.path, inode.device(), *with);
    auto const to = reader_.read_link(inode);
    if (!to) return fail(to.error(), file.path);
    return target_.make_symlink(file.path, *to, *with);
  }

  Result<void> make_file(PlannedFile const& file) {
    auto const with = attributes_of(reader_, file.inode);
    if (!with) return fail(with.error(), file.path);
    return target_.make_file(
        file.path, file.inode.size(), [&](auto const& write) { return fill(file.inode, write); },
        *with);
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
      if (!written) return fail(written.error());
      if (!ok) return fail(ok.error());
      return true;
    });
  }

  ImageReader const& reader_;
  TargetDirectory& target_;
  std::stop_token stop_;
  Extracted done_;
};

Result<Status> summarise(Reading const& reading, Extracted const& done) {
  if (!reading.options.read.json) return 0;
  auto const ok = reading.output.put_json({{"directory", reading.options.read.directory},
                                           {"files", done.files},
                                           {"bytes", done.bytes},
                                           {"warnings", done.warnings}});
  if (!ok) return fail(ok.error());
  return 0;
}

}  // namespace

Result<Status> run_extract(Reading const& reading) {
  auto const& read = reading.options.read;
  auto const reader = reading.open();
  if (!reader) return fail(reader.error());
  auto const plan = plan_extraction(*reader, read.paths);
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
    auto const ok = write_tar(*reader, *plan, reading.output, warn);
    if (!ok) return fail(ok.error());
    return 0;
  }
  auto target = TargetDirectory::open(read.directory, warn);
  if (!target) return fail(target.error());
  ExitOnSignal::Pause const pause(reading.guard);
  Extractor extractor(*reader, *target, reading.guard.stop_token());
  auto const ok = extractor.run(*plan, read.paths.empty());
  if (!ok) return fail(ok.error(), read.directory);
  auto done = extractor.done();
  done.warnings = warnings;
  return summarise(reading, done);
}

}  // namespace mount_oci
