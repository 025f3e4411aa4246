// SPDX-License-Identifier: Apache-2.0
#include "served_image.hpp"

#include <algorithm>
#include <array>
#include <filesystem>
#include <memory>
#include <optional>
#include <string_view>
#include <utility>

#include <unistd.h>

#include <erofs_oci/combinator/padded.hpp>
#include <erofs_oci/combinator/proved.hpp>
#include <erofs_oci/core/source.hpp>
#include <erofs_oci/digest/sha256.hpp>
#include <erofs_oci/image/image_name.hpp>
#include <erofs_oci/image/index_store.hpp>
#include <erofs_oci/oci/credentials.hpp>
#include <erofs_oci/oci/reference.hpp>
#include <erofs_oci/recovery/local_file.hpp>
#include <erofs_oci/source/local.hpp>

#include "config_file.hpp"
#include "find_image.hpp"
#include "image.hpp"
#include "indexing.hpp"
#include "layer_cache.hpp"
#include "merkle_tree.hpp"
#include "same_image.hpp"
#include "upstream_mount.hpp"

namespace mount_oci {
namespace {

using erofs_oci::AnySource;
using erofs_oci::CredentialSource;
using erofs_oci::fail;
using erofs_oci::FileIdentity;
using erofs_oci::ImageName;
using erofs_oci::ImagePlace;
using erofs_oci::KnownSpan;
using erofs_oci::LocalFile;
using erofs_oci::measure_file;
using erofs_oci::Record;
using erofs_oci::RecordSource;

Result<std::string> absolute_path(std::string const& path) {
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
  for (std::uint64_t at = 0; at < length; at += piece.size()) {
    auto const n = std::min<std::uint64_t>(length - at, piece.size());
    auto const part = std::span(piece).first(static_cast<std::size_t>(n));
    EROFS_OCI_TRY(read_exact(source, offset + at, part));
    hash.update(part);
  }
  return hash.finish();
}

/// The span that identifies the image: its metadata, or its superblock if there are no separate
/// metadata.
Result<KnownSpan> known_span(OpenedImage const& opened) {
  constexpr std::uint64_t most = 64u << 20;
  constexpr std::uint64_t superblock = 4096;
  auto const& source = opened.device.source;
  KnownSpan known;
  // No byte of the data: one that cannot be read later is no sign of another image.
  auto const wanted = opened.metadata_size != 0 ? opened.metadata_size : superblock;
  known.length = std::min({source.size(), most, wanted});
  EROFS_OCI_TRY_ASSIGN(known.digest, digest_of_span(source, known.offset, known.length));
  return known;
}

Result<void> check_known(KnownSpan const& known, AnySource const& source) {
  EROFS_OCI_TRY_ASSIGN(auto const digest, digest_of_span(source, known.offset, known.length));
  if (digest == known.digest) return {};
  return fail(Errc::mismatch, "the image's metadata differ from those that were mounted (" +
                                  digest.to_string() + ", were " + known.digest.to_string() + ")");
}

// ---------------------------------------------------------------- the record

Result<std::optional<LocalFile>> measured(std::string const& path, FileIdentity identity) {
  if (path.empty()) return std::optional<LocalFile>();
  EROFS_OCI_TRY_ASSIGN(auto file, measure_file(path, identity));
  return std::optional(std::move(file));
}

/// The registry, directory or file that the user named.
Result<void> note_place(std::string const& name, erofs_oci::RecordImage& image) {
  auto const parsed = ImageName::parse(name);
  image.source = parsed.place == ImagePlace::layout ? RecordSource::layout
                 : parsed.place == ImagePlace::file ? RecordSource::files
                                                    : RecordSource::registry;
  if (parsed.place == ImagePlace::layout) {
    EROFS_OCI_TRY_ASSIGN(image.directory, absolute_path(parsed.path));
  }
  if (image.source != RecordSource::registry) return {};
  EROFS_OCI_TRY_ASSIGN(auto reference, erofs_oci::Reference::parse(name));
  image.registry = std::move(reference.registry);
  image.repository = std::move(reference.repository);
  image.tag = std::move(reference.tag);
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
  if (image.layers.empty()) return {};
  auto& first = image.layers.front();
  if (image.source == RecordSource::files) {
    EROFS_OCI_TRY_ASSIGN(first.file,
                         measured(ImageName::parse(options.image).path, FileIdentity::stamp));
  }
  EROFS_OCI_TRY_ASSIGN(first.zinfo, measured(options.zinfo, FileIdentity::content));
  EROFS_OCI_TRY_ASSIGN(image.tarindex, measured(options.tarindex, FileIdentity::content));
  return {};
}

/// The store of indexes, or nothing if there is none: then the mount has one of its own.
std::string usable_store(ImageOptions const& options) {
  auto const store =
      store_path(options).and_then([](auto const& path) { return open_store_at(path); });
  return store ? absolute_path(store->root()).value_or("") : std::string();
}

Result<erofs_oci::RecordReach> reach_of(ImageOptions const& options) {
  erofs_oci::RecordReach reach;
  reach.insecure = options.insecure;
  reach.mirrors = options.mirrors;
  reach.timeout = options.timeout;
  reach.retry = options.retry;
  reach.connections = options.connections;
  reach.cache_bytes = options.cache_bytes();
  EROFS_OCI_TRY_ASSIGN(reach.ca, absolute_path(options.ca), "oci.ca");
  reach.cache_directory = usable_store(options);
  if (options.verify != Verify::lazy) reach.verify = name_of(options.verify);
  reach.hosts = options.hosts;
  if (!options.config.empty()) {  // which the reader of an image need not be able to look at
    reach.config = std::filesystem::absolute(options.config).lexically_normal().string();
  }
  reach.inward = options.allow_private;
  reach.unhedged = !options.hedge;
  return reach;
}

/// The source of the credentials, never the credentials.
Result<CredentialSource> recorded_credentials(ImageOptions const& options) {
  erofs_oci::GivenCredentials given{.username = options.username, .password = options.password};
  EROFS_OCI_TRY_ASSIGN(given.password_file, absolute_path(options.password_file),
                       "oci.password_file");
  given.docker_config = options.access.login ? options.access.config : find_config(options);
  return erofs_oci::credential_source(given);
}

Result<Record> record_of(FoundImage const& found, OpenedImage const& opened,
                         ImageOptions const& options) {
  Record record;
  auto& image = record.image;
  EROFS_OCI_TRY(note_place(options.image, image));
  EROFS_OCI_TRY(note_layers(found, options, image));
  image.manifest = found.digest;
  if (found.platform) image.platform = found.platform->to_string();
  image.device_size = opened.device.source.size();
  image.rewritten = opened.rewritten;
  if (opened.tree) {
    image.verity = opened.tree->tree.root;
    image.verity_data = opened.tree->tree.data_size;
  }
  EROFS_OCI_TRY_ASSIGN(record.reach, reach_of(options));
  EROFS_OCI_TRY_ASSIGN(auto credentials, recorded_credentials(options));
  if (image.source == RecordSource::registry) record.credentials = std::move(credentials);
  EROFS_OCI_TRY_ASSIGN(record.known, known_span(opened));
  return record;
}

/// Fills a device up with zeros.
Result<void> pad(erofs_oci::DeviceImage& device, std::uint64_t size) {
  EROFS_OCI_TRY_ASSIGN(auto padded,
                       erofs_oci::Padded<AnySource>::to_size(std::move(device.source), size));
  device.source = AnySource(std::move(padded));
  return {};
}

Result<OwnIndex> open_index(erofs_oci::RecordImage const& image) {
  OwnIndex index;
  if (image.tarindex) {
    EROFS_OCI_TRY_ASSIGN(index.tarindex, open_recorded_file(*image.tarindex));
  }
  if (!image.layers.empty() && image.layers.front().zinfo) {
    EROFS_OCI_TRY_ASSIGN(index.zinfo, open_recorded_file(*image.layers.front().zinfo));
  }
  return index;
}

/// Requires that the metadata are in the blob or in a tarindex: mount.erofs mounts nothing else.
Result<void> check_whole(FoundImage const& found, OwnIndex const& index) {
  if (!index.empty()) return {};
  EROFS_OCI_TRY_ASSIGN(auto const native, is_native(found));
  if (native) return {};
  return fail(Errc::unsupported,
              found.name +
                  ": no EROFS image; if it was mounted with a tarindex, which such a "
                  "record does not name, give it: -o oci.tarindex=PATH,oci.zinfo=PATH");
}

/// Makes reads fail, for what was found by an earlier worker: what that has handed on may be in the
/// kernel's memory still.
/// @param later  whether the caller shall refute the proof
void refute(erofs_oci::DeviceImage& device, std::string const& mismatch, bool later) {
  if (!device.proof) {
    device.proof = std::make_shared<erofs_oci::Proof>(device.source.size());
    device.source = AnySource(erofs_oci::Guarded(std::move(device.source), device.proof));
  }
  if (!later) device.proof->refute(erofs_oci::make_error(Errc::digest_mismatch, mismatch));
}

/// The image of a record, if it is still what was mounted.
Result<OpenedImage> open_again(Record const& record, ImageOptions const& options, Log const& log,
                               ExitOnSignal const* guard) {
  EROFS_OCI_TRY_ASSIGN(auto index, open_index(record.image));
  EROFS_OCI_TRY_ASSIGN(auto found, find_again(record.image, options, log));
  auto opened = open_found(found, std::move(index), options, log, guard);
  if (!opened) return opened;
  EROFS_OCI_TRY(append_tree(*opened, options, log));
  auto const size = opened->device.source.size();
  auto const wanted = record.image.device_size;
  if (wanted != size && wanted != size + quiet_end) {  // which devices of older versions lack
    return fail(Errc::mismatch,
                "the image has " + std::to_string(size) + " bytes, had " + std::to_string(wanted));
  }
  EROFS_OCI_TRY(pad(opened->device, wanted));
  if (record.known) EROFS_OCI_TRY(check_known(*record.known, opened->device.source));
  return opened;
}

}  // namespace

Result<ServedImage> serve_first(ImageOptions const& options, Log const& log,
                                ExitOnSignal const* guard) {
  EROFS_OCI_TRY_ASSIGN(auto index, open_own_index(options));
  EROFS_OCI_TRY_ASSIGN(auto found, find_image(options, log));
  if (options.in_place_of) {
    EROFS_OCI_TRY(check_whole(found, index));
  }
  EROFS_OCI_TRY_ASSIGN(auto opened, open_found(found, std::move(index), options, log, guard));
  EROFS_OCI_TRY(check_first(opened, options, log));
  EROFS_OCI_TRY(append_tree(opened, options, log));
  if (!options.in_place_of) {
    EROFS_OCI_TRY(pad(opened.device, opened.device.source.size() + quiet_end));
  }
  EROFS_OCI_TRY_ASSIGN(auto record, record_of(found, opened, options));
  if (options.in_place_of) {
    EROFS_OCI_TRY(check_same_image(*options.in_place_of, opened.device.source));
    EROFS_OCI_TRY_ASSIGN(opened.device.source, pad_for_upstream(std::move(opened.device.source)));
  }
  return ServedImage{std::move(opened.device), std::move(record), std::move(opened.to_prove), {}};
}

Result<ServedImage> serve_again(Record const& record, ImageOptions const& options, Log const& log,
                                ExitOnSignal const* guard) {
  auto opened = open_again(record, options, log, guard);
  // The tree of another merged image is not there for this one.
  auto const is_other =
      !opened && (opened.error().code == Errc::mismatch ||
                  (opened.error().code == Errc::not_found && options.verity != VerityUse::off));
  if (is_other && options.index != IndexUse::none) {
    // It may have been mounted by what reading its layers gave, before the image's claims came.
    auto unclaimed = options;
    unclaimed.index = IndexUse::none;
    opened = open_again(record, unclaimed, log, guard);
  }
  if (!opened) return fail(std::move(opened).error());
  ServedImage served{std::move(opened->device), record, std::move(opened->to_prove), {}};
  if (auto const& mismatch = record.image.mismatch; !mismatch.empty()) {
    auto const later = served.to_prove && !options.for_kernel;
    refute(served.device, mismatch, later);
    if (later) served.mismatch = mismatch;
  }
  if (served.to_prove) served.to_prove->name_again = name_by_digest(record.image);
  if (is_foreign(record)) {
    EROFS_OCI_TRY_ASSIGN(served.device.source, pad_for_upstream(std::move(served.device.source)));
  }
  return served;
}

std::string name_by_digest(erofs_oci::RecordImage const& image) {
  if (!image.manifest) return {};
  auto const digest = "@" + image.manifest->to_string();
  switch (image.source) {
    case RecordSource::registry: return image.registry + "/" + image.repository + digest;
    case RecordSource::layout: return "oci:" + image.directory + digest;
    case RecordSource::files: break;
  }
  return {};
}

Result<ImageOptions> options_by_digest(Record const& record, ImageOptions const& given) {
  EROFS_OCI_TRY_ASSIGN(auto options, options_of(record, given));
  options.image = name_by_digest(record.image);
  if (options.image.empty() || record.image.layers.empty()) {
    return fail(Errc::invalid_argument, "no image is named by what was mounted there");
  }
  if (record.image.layers.size() == 1 && record.image.layers.front().digest) {
    options.blob = record.image.layers.front().digest->to_string();
  }
  options.opened_before = false;
  return options;
}

namespace {

/// Takes a password that was given by hand from the configuration file, if it is there.
Result<bool> find_given(std::string const& config, ImageOptions& options) {
  if (config.empty()) return false;
  auto const said = options_in_config(config, options.image, read_config);
  if (!said) return fail(Errc::invalid_argument, said.error().text);
  options.username = said->username;
  options.password = said->password;
  options.password_file = said->password_file;
  return !said->username.empty();
}

}  // namespace

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
  // It had enough when it was mounted, and its digest says that it is the same.
  options.memory = std::max(options.budget().bytes, std::uint64_t{1} << 40);
  options.readahead = record.attach.read_ahead;
  if (options.cache_dir.empty()) options.cache_dir = cache_path(given).value_or("none");
  options.store = reach.cache_directory.empty() ? "none" : reach.cache_directory;
  options.index = IndexUse::bound;  // finds what the store keeps; the registry is not asked
  options.verify = parse_verify(reach.verify).value_or(Verify::lazy);
  auto const has_tree = record.image.verity != erofs_oci::Digest();
  options.verity = has_tree ? VerityUse::require : VerityUse::off;
  options.verity_root.reset();
  if (has_tree) options.verity_root = record.image.verity;
  options.native = !record.image.rewritten;
  options.opened_before = true;
  if (!reach.hosts.empty()) options.hosts = reach.hosts;
  if (!reach.config.empty()) options.config = reach.config;
  options.allow_private = given.allow_private || reach.inward;
  options.hedge = given.hedge && !reach.unhedged;
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
    case Kind::given: {
      EROFS_OCI_TRY_ASSIGN(auto const found, find_given(reach.config, options));
      if (found) break;
      return fail(Errc::unauthorized,
                  record.image.registry +
                      ": the password was given by hand and is not recorded: give it again "
                      "with -o oci.username=NAME,oci.password_file=PATH");
    }
  }
  return options;
}

}  // namespace mount_oci
