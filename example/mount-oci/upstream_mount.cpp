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

constexpr std::size_t most_record = 64 * 1024;  // of one line; its parser has a limit of its own

/// A file in a directory.
struct Place {
  std::string directory;
  std::string name;

  [[nodiscard]] std::string path() const { return directory + "/" + name; }
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
  for (auto const& directory : places.records) {
    Place place{directory, "mountnbd_nbd" + std::to_string(index)};
    if (::access(place.path().c_str(), F_OK) == 0) return place;
  }
  return std::nullopt;
}

/// The text of a record, if no other user could have written it.
Result<std::string> read_checked(Place const& place) {
  auto const above = place.directory.substr(0, place.directory.rfind('/'));
  EROFS_OCI_TRY(JournalDirectory::open_existing(above));
  EROFS_OCI_TRY_ASSIGN(auto const directory, JournalDirectory::open_existing(place.directory));
  return directory.read(place.name, most_record);
}

Result<UpstreamRecord> read_record(Place const& place) {
  hide_memory();  // the text may hold a password
  auto text = read_checked(place);
  if (!text && text.error().code == std::errc::no_such_file_or_directory) {
    return fail(Errc::not_found,
                place.path() +
                    ": the record is missing, so it is not known what was mounted; "
                    "mount.erofs removes the record when its daemon fails");
  }
  if (!text) return fail(std::move(text).error());
  auto record = parse_upstream_record(*text);
  ::explicit_bzero(text->data(), text->size());
  if (!record) return fail(std::move(record).error(), place.path());
  return record;
}

}  // namespace

Result<std::optional<UpstreamMount>> find_upstream_mount(std::uint32_t index,
                                                         UpstreamPlaces const& places) {
  auto backend = erofs_oci::nbd_attribute(index, "backend", places.sysfs).value_or("");
  auto const place = backend.empty() ? place_by_number(index, places) : place_of(backend, places);
  if (!place) return std::optional<UpstreamMount>();
  EROFS_OCI_TRY_ASSIGN(auto record, read_record(*place));
  auto path = place->path();
  if (backend.empty()) backend = path;
  return UpstreamMount{index, std::move(backend), std::move(path), std::move(record)};
}

Result<ImageOptions> upstream_options(UpstreamRecord const& record, ImageOptions options) {
  options.blob.clear();
  options.layer.reset();
  options.first_layers.reset();
  options.index = IndexUse::none;
  if (record.kind == UpstreamRecord::Kind::local) {
    options.image = "file:" + record.path;
    return options;
  }
  if (record.kind == UpstreamRecord::Kind::s3_object) {
    return fail(Errc::unsupported, "an object of S3 was mounted, " + record.object + " at " +
                                       record.endpoint +
                                       ": only mount.erofs --reattach can serve that");
  }
  // Canonical, or a name such as "oci:v1" would mean a directory.
  EROFS_OCI_TRY_ASSIGN(auto const reference, erofs_oci::Reference::parse(record.image));
  options.image = reference.to_string();
  options.platform = record.platform;
  options.layer = record.layer;
  if (record.blob) options.blob = record.blob->to_string();
  if (record.tarindex.empty()) return options;
  options.tarindex = record.tarindex;
  options.zinfo = record.zinfo;
  return options;
}

Result<AnySource> pad_for_upstream(AnySource image) {
  EROFS_OCI_TRY_ASSIGN(
      auto padded, erofs_oci::Padded<AnySource>::to_size(std::move(image), upstream_device_size));
  return AnySource(std::move(padded));
}

}  // namespace mount_oci
