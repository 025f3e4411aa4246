// SPDX-License-Identifier: Apache-2.0
// extract.
#include <cstdint>
#include <string>
#include <utility>

#include "extract_plan.hpp"
#include "extractor.hpp"
#include "reading.hpp"
#include "tar_stream.hpp"
#include "target_directory.hpp"

namespace mount_oci {

using erofs_oci::fail;

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
  auto const attributes = [&](auto const& inode) { return attributes_of(reader, inode); };
  EROFS_OCI_TRY_ASSIGN(auto const done,
                       extract(reader, *plan, target,
                               {.attributes = attributes,
                                .finishes_root = read.paths.empty(),
                                .stop = reading.guard.stop_token()}),
                       read.directory);
  if (!read.json) return 0;
  EROFS_OCI_TRY(reading.output.put_json({{"directory", read.directory},
                                         {"files", done.files},
                                         {"bytes", done.bytes},
                                         {"warnings", warnings}}));
  return 0;
}

}  // namespace mount_oci
