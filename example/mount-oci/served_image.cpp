// SPDX-License-Identifier: Apache-2.0
#include "served_image.hpp"

#include <algorithm>
#include <array>
#include <filesystem>
#include <optional>
#include <string_view>
#include <utility>

#include <unistd.h>

#include <erofs_oci/core/source.hpp>
#include <erofs_oci/digest/sha256.hpp>
#include <erofs_oci/image/index_store.hpp>
#include <erofs_oci/oci/credentials.hpp>
#include <erofs_oci/oci/reference.hpp>
#include <erofs_oci/recovery/local_file.hpp>
#include <erofs_oci/source/local.hpp>

#include "find_image.hpp"
#include "image.hpp"
#include "same_image.hpp"
#include "upstream_mount.hpp"

namespace mount_oci {
namespace {

using erofs_oci::AnySource;
using erofs_oci::CredentialSource;
using erofs_oci::DeviceImage;
using erofs_oci::fail;
using erofs_oci::FileIdentity;
using erofs_oci::KnownSpan;
using erofs_oci::LocalFile;
using erofs_oci::measure_file;
using erofs_oci::Record;
using erofs_oci::RecordSource;

constexpr std::string_view layout_prefix = "oci:";
constexpr std::string_view file_prefix = "file:";

Result<std::string> absolute(std::string const& path) {
  if (path.empty()) return std::string();
  std::error_code error;
  auto const result = std::filesystem::canonical(path, error);
  if (error) return fail(error, path);
  return result.string();
}

// ---------------------------------------------------------------- the bytes

/// The digest of a part of the device.
Result<erofs_oci::Digest> digest_of_span(AnySource const& source, std::uint64_t offset,
                                         std::uint64_t length) {
  erofs_oci::Sha256 hash;
  erofs_oci::Bytes piece(std::min<std::uint64_t>(length, 1u << 20));
  for (std::uint64_t at = 0; at < length;) {
    auto const n = std::min<std::uint64_t>(length - at, piece.size());
    auto const part = std::span(piece).first(static_cast<std::size_t>(n));
    if (auto const ok = read_exact(source, offset + at, part); !ok) return fail(ok.error());
    hash.update(part);
    at += n;
  }
  return hash.finish();
}

/// The metadata, which say what all the rest is; of an image that has none apart, its superblock.
Result<KnownSpan> known_span(OpenedImage const& opened) {
  constexpr std::uint64_t most = 64u << 20;
  constexpr std::uint64_t least = 4096;
  auto const size = opened.device.source.size();
  KnownSpan known;
  known.length = std::min({size, most, std::max(opened.metadata_size, least)});
  auto const digest = digest_of_span(opened.device.source, known.offset, known.length);
  if (!digest) return fail(digest.error());
  known.digest = *digest;
  return known;
}

Result<void> check_known(KnownSpan const& known, AnySource const& source) {
  auto const digest = digest_of_span(source, known.offset, known.length);
  if (!digest) return fail(digest.error());
  if (*digest == known.digest) return {};
  return fail(Errc::mismatch, "the image's metadata are not those that were mounted (" +
                                  digest->to_string() + ", were " + known.digest.to_string() + ")");
}

// ---------------------------------------------------------------- the record

Result<std::optional<LocalFile>> measured(std::string const& path, FileIdentity identity) {
  if (path.empty()) return std::optional<LocalFile>();
  auto file = measure_file(path, identity);
  if (!file) return fail(std::move(file).error());
  return std::optional(*std::move(file));
}

/// The registry, directory or file that the user named.
Result<void> note_place(std::string const& name, erofs_oci::RecordImage& image) {
  auto const text = std::string_view(name);
  if (text.starts_with(layout_prefix)) {
    image.source = RecordSource::layout;
    auto const where = layout_directory(text.substr(layout_prefix.size()));
    auto path = absolute(where);
    if (!path) return fail(std::move(path).error());
    image.directory = *std::move(path);
    return {};
  }
  if (names_file(text)) {
    image.source = RecordSource::files;
    return {};
  }
  auto reference = erofs_oci::Reference::parse(text);
  if (!reference) return fail(std::move(reference).error());
  image.source = RecordSource::registry;
  image.registry = std::move(reference->registry);
  image.repository = std::move(reference->repository);
  image.tag = std::move(reference->tag);
  return {};
}

Result<void> note_layers(FoundImage const& found, ImageOptions const& options,
                         erofs_oci::RecordImage& image) {
  for (auto const& layer : found.layers) {
    erofs_oci::RecordLayer one;
    if (layer.descriptor.digest != erofs_oci::Digest()) one.digest = layer.descriptor.digest;
    one.size = layer.blob.size();
    one.media_type = layer.descriptor.media_type;
    image.layers.push_back(std::move(one));
  }
  auto& first = image.layers.front();
  if (image.source == RecordSource::files) {
    auto path = options.image;
    if (path.starts_with(file_prefix)) path.erase(0, file_prefix.size());
    auto file = measured(path, FileIdentity::stamp);
    if (!file) return fail(std::move(file).error());
    first.file = *std::move(file);
  }
  auto zinfo = measured(options.zinfo, FileIdentity::content);
  if (!zinfo) return fail(std::move(zinfo).error());
  first.zinfo = *std::move(zinfo);
  auto tarindex = measured(options.tarindex, FileIdentity::content);
  if (!tarindex) return fail(std::move(tarindex).error());
  image.tarindex = *std::move(tarindex);
  return {};
}

/// The store of indexes, or nothing if there is none: then the mount has one of its own.
std::string usable_store(ImageOptions const& options) {
  if (options.store == "none") return {};
  auto const root = options.store.empty() ? erofs_oci::IndexStore::default_path()
                                          : Result<std::string>(options.store);
  auto const store =
      root ? erofs_oci::IndexStore::open(*root) : Result<erofs_oci::IndexStore>(fail(root.error()));
  return store ? absolute(store->root()).value_or("") : std::string();
}

Result<erofs_oci::RecordReach> reach_of(ImageOptions const& options) {
  erofs_oci::RecordReach reach;
  reach.insecure = options.insecure;
  reach.mirrors = options.mirrors;
  reach.timeout = options.timeout;
  reach.retry = options.retry;
  reach.connections = options.connections;
  reach.cache_bytes = options.cache;
  auto ca = absolute(options.ca);
  if (!ca) return fail(std::move(ca).error(), "oci.ca");
  reach.ca = *std::move(ca);
  reach.cache_directory = usable_store(options);
  return reach;
}

/// Where the credentials came from, never what they are.
Result<CredentialSource> credentials_of(ImageOptions const& options) {
  erofs_oci::GivenCredentials given;
  given.username = options.username;
  given.password = options.password;
  auto file = absolute(options.password_file);
  if (!file) return fail(std::move(file).error(), "oci.password_file");
  given.password_file = *std::move(file);
  auto const configs =
      options.config_files.empty() ? erofs_oci::default_config_files() : options.config_files;
  for (auto const& config : configs) {
    if (!given.docker_config.empty() || ::access(config.c_str(), R_OK) != 0) continue;
    given.docker_config = absolute(config).value_or("");
  }
  return erofs_oci::credential_source(given);
}

Result<Record> record_of(FoundImage const& found, OpenedImage const& opened,
                         ImageOptions const& options) {
  Record record;
  auto& image = record.image;
  if (auto const ok = note_place(options.image, image); !ok) return fail(ok.error());
  if (auto const ok = note_layers(found, options, image); !ok) return fail(ok.error());
  image.manifest = found.digest;
  if (found.platform) image.platform = found.platform->to_string();
  image.device_size = opened.device.source.size();
  auto reach = reach_of(options);
  if (!reach) return fail(std::move(reach).error());
  record.reach = *std::move(reach);
  auto credentials = credentials_of(options);
  if (!credentials) return fail(std::move(credentials).error());
  if (image.source == RecordSource::registry) record.credentials = *std::move(credentials);
  auto known = known_span(opened);
  if (!known) return fail(std::move(known).error());
  record.known = *known;
  return record;
}

/// The file that it was, if there was one.
Result<std::optional<AnySource>> open_part(std::optional<LocalFile> const& file) {
  if (!file) return std::optional<AnySource>();
  auto fd = erofs_oci::open_unchanged(*file);
  if (!fd) return fail(std::move(fd).error());
  auto local = erofs_oci::Local::of_fd(*std::move(fd), file->path);
  if (!local) return fail(std::move(local).error());
  return std::optional(AnySource(*std::move(local)));
}

Result<OwnIndex> open_index(erofs_oci::RecordImage const& image) {
  auto tarindex = open_part(image.tarindex);
  if (!tarindex) return fail(std::move(tarindex).error());
  auto zinfo = open_part(image.layers.front().zinfo);
  if (!zinfo) return fail(std::move(zinfo).error());
  return OwnIndex{*std::move(tarindex), *std::move(zinfo)};
}

/// What mount.erofs mounts has its metadata in the blob or in a tarindex, and no other index will
/// do.
Result<void> check_whole(FoundImage const& found, OwnIndex const& index) {
  if (!index.empty()) return {};
  auto const native = is_native(found);
  if (!native) return fail(native.error());
  if (*native) return {};
  return fail(Errc::unsupported,
              found.name +
                  ": no EROFS image; if it was mounted with a tarindex, which such a "
                  "record does not name, give it: -o oci.tarindex=PATH,oci.zinfo=PATH");
}

/// In place of a device's first daemon: nothing but what is mounted from it.
Result<AnySource> in_place_of(ForeignDevice const& device, AnySource image) {
  if (auto const ok = check_same_image(device, image); !ok) return fail(ok.error());
  return pad_for_upstream(std::move(image));
}

}  // namespace

Result<ServedImage> serve_first(ImageOptions const& options, Log const& log,
                                ExitOnSignal const* guard) {
  auto index = open_own_index(options);
  if (!index) return fail(std::move(index).error());
  auto found = find_image(options, log);
  if (!found) return fail(found.error());
  if (options.in_place_of) {
    if (auto const ok = check_whole(*found, *index); !ok) return fail(ok.error());
  }
  auto opened = open_found(*found, *std::move(index), options, log, guard);
  if (!opened) return fail(std::move(opened).error());
  auto record = record_of(*found, *opened, options);
  if (!record) return fail(std::move(record).error());
  if (options.in_place_of) {
    auto source = in_place_of(*options.in_place_of, std::move(opened->device.source));
    if (!source) return fail(std::move(source).error());
    opened->device.source = *std::move(source);
  }
  return ServedImage{std::move(opened->device), *std::move(record)};
}

Result<ServedImage> serve_again(Record const& record, ImageOptions const& options, Log const& log,
                                ExitOnSignal const* guard) {
  auto index = open_index(record.image);
  if (!index) return fail(std::move(index).error());
  auto found = find_again(record.image, options, log);
  if (!found) return fail(found.error());
  auto opened = open_found(*found, *std::move(index), options, log, guard);
  if (!opened) return fail(std::move(opened).error());
  auto const size = opened->device.source.size();
  if (size != record.image.device_size) {
    return fail(Errc::mismatch, "the image has " + std::to_string(size) + " bytes, had " +
                                    std::to_string(record.image.device_size));
  }
  if (record.known) {
    auto const ok = check_known(*record.known, opened->device.source);
    if (!ok) return fail(ok.error());
  }
  if (is_foreign(record)) {
    auto padded = pad_for_upstream(std::move(opened->device.source));
    if (!padded) return fail(std::move(padded).error());
    opened->device.source = *std::move(padded);
  }
  return ServedImage{std::move(opened->device), record};
}

Result<ImageOptions> options_of(Record const& record, ImageOptions const& given) {
  auto const& reach = record.reach;
  auto options = given;
  options.image = record.image.source == RecordSource::registry
                      ? record.image.registry + "/" + record.image.repository
                      : record.image.directory;
  options.insecure = reach.insecure;
  options.ca = reach.ca;
  options.mirrors = reach.mirrors;
  options.timeout = std::chrono::duration_cast<std::chrono::seconds>(reach.timeout);
  options.retry.reset();
  if (reach.retry) options.retry = std::chrono::duration_cast<std::chrono::seconds>(*reach.retry);
  options.connections = reach.connections;
  options.cache = reach.cache_bytes;
  options.readahead = record.attach.read_ahead;
  options.store = reach.cache_directory.empty() ? "none" : reach.cache_directory;
  options.soci = SociUse::none;
  if (!given.username.empty()) return options;  // newer ones are as good
  using Kind = CredentialSource::Kind;
  switch (record.credentials.kind) {
    case Kind::anonymous:
    case Kind::helper: break;
    case Kind::docker_config: options.config_files = {record.credentials.where}; break;
    case Kind::file:
      options.username = record.credentials.username;
      options.password_file = record.credentials.where;
      break;
    case Kind::given:
      return fail(Errc::unauthorized,
                  record.image.registry +
                      ": the password was given by hand and is not written down: give it again, "
                      "with -o oci.username=NAME,oci.password_file=PATH");
  }
  return options;
}

}  // namespace mount_oci
