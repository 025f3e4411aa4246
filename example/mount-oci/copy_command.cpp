// SPDX-License-Identifier: Apache-2.0
// cp.
#include "copy_command.hpp"

#include <cerrno>
#include <chrono>
#include <cstdint>
#include <string>
#include <system_error>
#include <utility>

#include <sys/stat.h>
#include <unistd.h>

#include "entry.hpp"
#include "extract_plan.hpp"
#include "extractor.hpp"
#include "reading.hpp"
#include "tar_stream.hpp"
#include "target_directory.hpp"

namespace mount_oci {
namespace {

using erofs_oci::fail;
using erofs_oci::fail_errno;
using erofs_oci::erofs::Follow;
using erofs_oci::erofs::Inode;

/// The attributes of a new file of this user's, with the permissions of the one that is copied.
Attributes new_attributes(Inode const& inode, std::uint32_t mask) {
  using namespace std::chrono;
  auto const now = system_clock::now().time_since_epoch();
  auto const whole = floor<seconds>(now);
  auto const kept = ~std::uint32_t{07777} | (0777U & ~mask);
  return {static_cast<std::uint16_t>(inode.mode() & kept),
          ::geteuid(),
          ::getegid(),
          {whole.count(), static_cast<std::uint32_t>(nanoseconds(now - whole).count())},
          {}};
}

/// The file to copy. A symbolic link is copied only with -r.
Result<Inode> find_source(ImageReader const& reader, ReadOptions const& read) {
  auto const& path = read.copy.path;
  EROFS_OCI_TRY_ASSIGN(auto inode,
                       find_path(reader, path, read.recursive ? Follow::parents : Follow::all));
  if (inode.is_directory() && !read.recursive) {
    return fail(std::make_error_code(std::errc::is_a_directory), path + ": -r copies directories");
  }
  if (!inode.is_directory() && read.copy.name().empty()) {
    return fail(std::make_error_code(std::errc::not_a_directory), path);
  }
  auto const makes_devices = read.preserve && ::geteuid() == 0;
  if (inode.is_device() && !read.tar && !makes_devices) {
    return fail(std::make_error_code(std::errc::invalid_argument),
                path + ": a " + std::string(type_text(inode.mode())) + ", which -p as root copies");
  }
  return inode;
}

class Copy {
 public:
  Copy(Reading const& reading, ImageReader const& reader)
      : reading_(reading), read_(reading.options.read), reader_(reader) {}

  [[nodiscard]] Result<void> run(Inode const& source) {
    auto const warn = [this](std::string const& text) {
      ++warnings_;
      reading_.log.say(Level::warning, text);
    };
    EROFS_OCI_TRY_ASSIGN(auto const plan, plan_copy(reader_, source, read_.copy_as));
    if (read_.tar) return write_tar(reader_, plan, reading_.output, warn);
    if (source.is_directory() && read_.over_file) {
      return fail(std::make_error_code(std::errc::not_a_directory), read_.local);
    }
    EROFS_OCI_TRY_ASSIGN(auto target,
                         TargetDirectory::open(read_.directory, warn, !read_.preserve));
    ExitOnSignal::Pause const pause(reading_.guard);
    auto const attributes = [this](Inode const& inode) -> Result<Attributes> {
      if (read_.preserve) return attributes_of(reader_, inode);
      return new_attributes(inode, read_.mask);
    };
    EROFS_OCI_TRY_ASSIGN(auto const done,
                         extract(reader_, plan, target,
                                 {.attributes = attributes,
                                  .finishes_root = false,
                                  .stop = reading_.guard.stop_token()}),
                         read_.directory);
    return read_.json ? print(done) : Result<void>();
  }

 private:
  Result<void> print(Extracted const& done) const {
    return reading_.output.put_json({{"directory", read_.directory},
                                     {"files", done.files},
                                     {"bytes", done.bytes},
                                     {"warnings", warnings_}});
  }

  Reading const& reading_;
  ReadOptions const& read_;
  ImageReader const& reader_;
  std::uint64_t warnings_ = 0;
};

/// Without slashes at the end, unless it is nothing but slashes.
std::string without_slashes(std::string path) {
  while (path.size() > 1 && path.ends_with('/')) path.pop_back();
  return path;
}

}  // namespace

Result<void> prepare_copy(ReadOptions& read) {
  read.copy_as = "/" + read.copy.name();
  if (read.tar) return {};
  read.mask = ::umask(0);
  ::umask(static_cast<mode_t>(read.mask));
  struct stat there{};
  auto const exists = ::stat(read.local.c_str(), &there) == 0;
  if (!exists && errno != ENOENT) return fail_errno(errno, read.local);
  if (exists && S_ISDIR(there.st_mode)) {
    read.directory = read.local;
    return {};
  }
  if (read.local.ends_with('/') && (exists || !read.recursive)) {
    return fail_errno(exists ? ENOTDIR : ENOENT, read.local);
  }
  read.over_file = exists;
  auto const local = without_slashes(read.local);
  auto const slash = local.rfind('/');
  read.copy_as = "/" + local.substr(slash + 1);
  read.directory = slash == std::string::npos ? "." : slash == 0 ? "/" : local.substr(0, slash);
  if (::stat(read.directory.c_str(), &there) != 0) return fail_errno(errno, read.directory);
  if (!S_ISDIR(there.st_mode)) return fail_errno(ENOTDIR, read.directory);
  return {};
}

Result<Status> run_cp(Reading const& reading) {
  EROFS_OCI_TRY_ASSIGN(auto const reader, reading.open());
  auto const source = find_source(reader, reading.options.read);
  if (!source && is_about_path(source.error())) {
    reading.complain(source.error());
    return 1;
  }
  if (!source) return fail(source.error());
  EROFS_OCI_TRY(Copy(reading, reader).run(*source));
  return 0;
}

}  // namespace mount_oci
