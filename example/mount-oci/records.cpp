// SPDX-License-Identifier: Apache-2.0
#include "records.hpp"

#include <algorithm>
#include <filesystem>
#include <iterator>
#include <utility>

#include <sys/stat.h>

#include <erofs_oci/image/image_name.hpp>
#include <erofs_oci/nbd/device.hpp>
#include <erofs_oci/oci/reference.hpp>

#include "mount_journal.hpp"
#include "mount_table.hpp"

namespace mount_oci {
namespace {

using erofs_oci::fail;
using erofs_oci::RecordSource;

/// The name of the record of a FUSE mount, or of EROFS on a file that FUSE serves.
std::string fuse_name(dev_t device) {
  return "fuse" + std::to_string(device);
}

NotedMount read_noted(erofs_oci::Journal const& journal, std::string name) {
  auto record = journal.read(name);
  auto const held = journal.is_held(name).value_or(true);
  if (!record) return {std::move(name), std::nullopt, record.error().message(), held};
  return {std::move(name), *std::move(record), {}, held};
}

/// The recorded place, unless something else is mounted there by now: of a writable mount the
/// overlay is.
bool is_at(NotedMount const& noted, std::optional<MountEntry> const& top, std::string const& path) {
  if (noted.record->mount_point != path) return false;
  return !top || !is_ours(*top) || top->type == "overlay" || top->type == "fuse.fuse-overlayfs";
}

/// Whether the record is of that device, mount or mount point.
bool is_of(NotedMount const& noted, std::optional<std::uint32_t> index,
           std::optional<MountEntry> const& top, std::string const& path) {
  if (!noted.record) return index && noted.name == "nbd" + std::to_string(*index);
  if (index) return noted.record->attach.index == index && noted.is_connected();
  return (top && noted.name == fuse_name(top->device)) || is_at(noted, top, path);
}

}  // namespace

bool NotedMount::is_connected() const {
  if (!record) return true;  // not known: assume that it exists
  auto const& attach = record->attach;
  if (!attach.index) {
    if (held) return true;
    auto const table = read_mount_table();
    return table && !mounts(*table).empty();  // the process that serves them may have died
  }
  if (!erofs_oci::nbd_attribute(*attach.index, "pid")) return false;
  auto const backend = erofs_oci::nbd_attribute(*attach.index, "backend");
  return !backend || *backend == attach.backend;  // old kernels show none
}

std::vector<MountEntry> NotedMount::mounts(std::vector<MountEntry> const& table) const {
  std::vector<MountEntry> found;
  if (!record) return found;
  auto const& index = record->attach.index;
  std::ranges::copy_if(table, std::back_inserter(found), [&](MountEntry const& entry) {
    if (entry.root != "/") return false;
    if (!index) return name == fuse_name(entry.device);
    return entry.type == "erofs" && nbd_index_of(entry.device) == index;
  });
  return found;
}

std::vector<std::string> NotedMount::mount_points() const {
  std::vector<std::string> places;
  if (!record) return places;
  auto const table = read_mount_table();
  auto const mounted = table ? mounts(*table) : std::vector<MountEntry>();
  for (auto const& entry : mounted) places.push_back(entry.target);
  if (places.empty() && !record->mount_point.empty()) places.push_back(record->mount_point);
  auto const recorded = std::ranges::find(places, record->mount_point);
  if (recorded != places.end()) std::rotate(places.begin(), recorded, recorded + 1);
  return places;
}

std::string NotedMount::device() const {
  if (!record || !record->attach.index) return {};
  return erofs_oci::nbd_device_path(*record->attach.index);
}

std::string NotedMount::image() const {
  if (!record) return {};
  auto const& image = record->image;
  switch (image.source) {
    case RecordSource::layout: return "oci:" + image.directory;
    case RecordSource::files: return image.layers.front().file->path;
    case RecordSource::registry: break;
  }
  auto const tag = image.tag.empty() ? std::string() : ":" + image.tag;
  auto const digest = image.manifest ? "@" + image.manifest->to_string() : std::string();
  return image.registry + "/" + image.repository + tag + digest;
}

bool NotedMount::is_of_image(std::string const& wanted) const {
  if (!record) return false;
  auto const& image = record->image;
  auto const parsed = erofs_oci::ImageName::parse(wanted);
  switch (image.source) {
    case RecordSource::layout:
      return parsed.place == erofs_oci::ImagePlace::layout &&
             real_path(parsed.path).value_or(parsed.path) == image.directory;
    case RecordSource::files:
      return parsed.place == erofs_oci::ImagePlace::file &&
             real_path(parsed.path).value_or(parsed.path) == image.layers.front().file->path;
    case RecordSource::registry: break;
  }
  auto const reference = erofs_oci::Reference::parse(wanted);
  return parsed.place == erofs_oci::ImagePlace::registry && reference &&
         reference->registry == image.registry && reference->repository == image.repository &&
         (reference->digest ? reference->digest == image.manifest : reference->tag == image.tag);
}

std::optional<std::uint32_t> nbd_index_of_target(std::string const& target) {
  // Not opened: open(2) of a device without a worker may hang.
  if (auto const device = block_device(target)) {
    if (auto const index = nbd_index_of(*device)) return index;
  }
  auto const table = read_mount_table();
  auto const entry = table ? find_target(*table, real_path(target).value_or(target)) : std::nullopt;
  return entry ? nbd_index_of(entry->device) : std::nullopt;
}

Result<std::vector<NotedMount>> noted_mounts(Options const& options) {
  EROFS_OCI_TRY_ASSIGN(auto const path, journal_directory(options));
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) return std::vector<NotedMount>();
  EROFS_OCI_TRY_ASSIGN(auto const journal, erofs_oci::Journal::open(path));
  EROFS_OCI_TRY_ASSIGN(auto names, journal.list());
  std::vector<NotedMount> all;
  for (auto& name : names) all.push_back(read_noted(journal, std::move(name)));
  return all;
}

Result<NotedMount> noted_mount(Options const& options, std::string const& target) {
  EROFS_OCI_TRY_ASSIGN(auto all, noted_mounts(options));
  auto const index = nbd_index_of_target(target);
  auto const path = real_path(target).value_or(target);
  auto const table = read_mount_table();
  auto const top = table ? find_target(*table, path) : std::nullopt;
  auto const found =
      std::ranges::find_if(all, [&](auto const& noted) { return is_of(noted, index, top, path); });
  if (found != all.end()) return std::move(*found);
  return fail(Errc::not_found, target + ": no record of such a mount");
}

}  // namespace mount_oci
