// SPDX-License-Identifier: Apache-2.0
#include "upstream_mount.hpp"

#include <cstring>
#include <string_view>
#include <utility>

#include <unistd.h>

#include <erofs_oci/combinator/padded.hpp>
#include <erofs_oci/nbd/device.hpp>
#include <erofs_oci/oci/reference.hpp>
#include <erofs_oci/recovery/journal_directory.hpp>

namespace mount_oci {
namespace {

using erofs_oci::AnySource;
using erofs_oci::fail;
using erofs_oci::JournalDirectory;
using erofs_oci::UpstreamRecord;

constexpr std::size_t most_record = 64 * 1024;  // of one line; its parser has a limit of its own

/// A file in a directory.
struct Place {
  std::string directory;
  std::string name;
};

/// Where an identifier of the kernel's leads to, if it is one of mount.erofs.
std::optional<Place> place_of(std::string_view backend, UpstreamPlaces const& places) {
  constexpr std::string_view prefix = "mountnbd_";
  for (auto const& directory : places.records) {
    if (!backend.starts_with(directory + "/")) continue;
    auto const name = backend.substr(directory.size() + 1);
    if (name.starts_with(prefix) && erofs_oci::is_plain_name(name)) {
      return Place{directory, std::string(name)};
    }
  }
  return std::nullopt;
}

/// Where a kernel that keeps no identifier has the record: by the number, if there is one.
std::optional<Place> place_by_number(std::uint32_t index, UpstreamPlaces const& places) {
  auto const name = "mountnbd_nbd" + std::to_string(index);
  for (auto const& directory : places.records) {
    auto const path = directory + "/" + name;
    if (::access(path.c_str(), F_OK) == 0) return Place{directory, name};
  }
  return std::nullopt;
}

/// The text of a record; nobody else can have written it.
Result<std::string> read_checked(Place const& place) {
  auto const above = place.directory.substr(0, place.directory.rfind('/'));
  if (auto const parent = JournalDirectory::open_existing(above); !parent) {
    return fail(parent.error());
  }
  auto const directory = JournalDirectory::open_existing(place.directory);
  if (!directory) return fail(directory.error());
  return directory->read(place.name, most_record);
}

Result<UpstreamRecord> read_record(Place const& place) {
  hide_memory();  // the text may hold a password
  auto text = read_checked(place);
  if (!text && text.error().code == std::errc::no_such_file_or_directory) {
    return fail(Errc::not_found, place.directory + "/" + place.name +
                                     ": the record is gone, and with it what was mounted; "
                                     "mount.erofs removes it when its daemon ends by an error");
  }
  if (!text) return fail(std::move(text).error());
  auto record = erofs_oci::parse_upstream_record(*text);
  ::explicit_bzero(text->data(), text->size());
  if (!record) return fail(std::move(record).error(), place.directory + "/" + place.name);
  return record;
}

Result<void> set_blob(UpstreamRecord const& record, ImageOptions& options) {
  // Canonical, or a name such as "oci:v1" would mean a directory.
  auto const reference = erofs_oci::Reference::parse(record.image);
  if (!reference) return fail(reference.error());
  options.image = reference->to_string();
  options.platform = record.platform;
  options.layer = record.layer;
  if (record.blob) options.blob = record.blob->to_string();
  if (record.tarindex.empty()) return {};
  options.tarindex = record.tarindex;
  options.zinfo = record.zinfo;
  return {};
}

}  // namespace

Result<std::optional<UpstreamMount>> find_upstream_mount(std::uint32_t index,
                                                         UpstreamPlaces const& places) {
  auto backend = erofs_oci::nbd_attribute(index, "backend", places.sysfs).value_or("");
  auto const place = backend.empty() ? place_by_number(index, places) : place_of(backend, places);
  if (!place) return std::optional<UpstreamMount>();
  auto record = read_record(*place);
  if (!record) return fail(std::move(record).error());
  auto path = place->directory + "/" + place->name;
  if (backend.empty()) backend = path;
  return std::optional(
      UpstreamMount{index, std::move(backend), std::move(path), *std::move(record)});
}

Result<ImageOptions> options_of(UpstreamRecord const& record, ImageOptions given) {
  auto options = std::move(given);
  options.blob.clear();
  options.layer.reset();
  options.soci = SociUse::none;
  switch (record.kind) {
    case UpstreamRecord::Kind::local: options.image = "file:" + record.path; return options;
    case UpstreamRecord::Kind::s3_object:
      return fail(Errc::unsupported, "an object of S3 was mounted, " + record.object + " at " +
                                         record.endpoint +
                                         ": only mount.erofs --reattach can serve that");
    default: break;
  }
  if (auto const ok = set_blob(record, options); !ok) return fail(ok.error());
  return options;
}

Result<AnySource> pad_for_upstream(AnySource image) {
  auto padded = erofs_oci::Padded<AnySource>::to_size(std::move(image), upstream_device_size);
  if (!padded) return fail(std::move(padded).error());
  return AnySource(*std::move(padded));
}

}  // namespace mount_oci
