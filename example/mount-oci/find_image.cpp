// SPDX-License-Identifier: Apache-2.0
#include "find_image.hpp"

#include <algorithm>
#include <filesystem>
#include <limits>
#include <memory>
#include <mutex>
#include <numeric>
#include <string_view>
#include <system_error>
#include <utility>

#include <erofs_oci/combinator/retry.hpp>
#include <erofs_oci/gzip/ztoc.hpp>
#include <erofs_oci/http/http.hpp>
#include <erofs_oci/image/soci_layer.hpp>
#include <erofs_oci/oci/credentials.hpp>
#include <erofs_oci/oci/layout.hpp>
#include <erofs_oci/oci/manifest.hpp>
#include <erofs_oci/oci/reference.hpp>
#include <erofs_oci/oci/soci.hpp>
#include <erofs_oci/recovery/local_file.hpp>
#include <erofs_oci/source/local.hpp>

namespace mount_oci {
namespace {

using erofs_oci::AnySource;
using erofs_oci::Descriptor;
using erofs_oci::Digest;
using erofs_oci::fail;
using erofs_oci::Local;
using erofs_oci::Platform;
using erofs_oci::Shared;
using std::chrono::milliseconds;

// ---------------------------------------------------------------- which layer

Result<Platform> wanted_platform(ImageOptions const& options) {
  if (options.platform.empty()) return Platform::host();
  return Platform::parse(options.platform);
}

/// The numbers of the layers that the options name: one, or all.
Result<std::vector<std::size_t>> choose_layers(std::vector<Descriptor> const& layers,
                                               ImageOptions const& options) {
  if (!options.blob.empty()) {
    auto const digest = Digest::parse(options.blob);
    if (!digest) return fail(digest.error());
    auto const found = std::ranges::find(layers, *digest, &Descriptor::digest);
    if (found == layers.end()) {
      return fail(Errc::not_found, "layer digest " + options.blob + " not found in image layers");
    }
    return std::vector{static_cast<std::size_t>(found - layers.begin())};
  }
  if (options.layer) {
    if (*options.layer < layers.size()) return std::vector{std::size_t{*options.layer}};
    auto const last = std::to_string(layers.empty() ? 0 : layers.size() - 1);
    return fail(Errc::invalid_argument, "layer index " + std::to_string(*options.layer) +
                                            " out of range (0.." + last + ")");
  }
  std::vector<std::size_t> all(layers.size());
  std::iota(all.begin(), all.end(), std::size_t{0});
  return all;
}

/// What was resolved, with the chosen layers' blobs.
/// @param open  `(Descriptor const&) -> Result<AnySource>`
template <class Open>
Result<FoundImage> found_image(erofs_oci::Image const& image, ImageOptions const& options,
                               Open const& open) {
  FoundImage found;
  found.name = options.image;
  found.digest = image.digest;
  found.platform = image.platform;
  found.config_at = image.manifest.config;
  found.layer_count = image.manifest.layers.size();
  auto const numbers = choose_layers(image.manifest.layers, options);
  if (!numbers) return fail(numbers.error());
  for (auto const number : *numbers) {
    auto const& descriptor = image.manifest.layers[number];
    auto blob = open(descriptor);
    if (!blob) return fail(std::move(blob).error());
    found.layers.push_back({number, descriptor, Shared<AnySource>(*std::move(blob))});
  }
  // The configuration is nobody's business until it is read.
  if (auto config = open(image.manifest.config)) found.config.emplace(*std::move(config));
  return found;
}

// ---------------------------------------------------------------- a registry

/// Times that add up: an attempt that begins as late as retrying allows can still end, by its own
/// limits, before the read's deadline.
erofs_oci::HttpLimits limits_of(ImageOptions const& options) {
  milliseconds const total = options.timeout;
  erofs_oci::HttpLimits limits;
  limits.total = total;
  limits.connect = std::min(limits.connect, total / 4);
  limits.idle = std::min(limits.idle, total / 3);
  return limits;
}

erofs_oci::Backoff backoff_of(ImageOptions const& options, erofs_oci::HttpLimits const& limits) {
  auto const most = limits.total - limits.connect - limits.idle;
  erofs_oci::Backoff backoff;
  backoff.attempts = std::numeric_limits<unsigned>::max();
  backoff.total = options.retry ? std::min<milliseconds>(*options.retry, most) : most;
  if (options.retry == std::chrono::seconds(0)) backoff.attempts = 1;
  return backoff;
}

/// Who to log in as: as the options say, else as docker's and podman's files do.
Result<erofs_oci::CredentialLookup> credentials_of(ImageOptions const& options) {
  hide_memory();
  erofs_oci::CredentialOptions where;
  if (options.username.empty()) {
    where.config_files =
        options.config_files.empty() ? erofs_oci::default_config_files() : options.config_files;
    return erofs_oci::credential_lookup(std::move(where));
  }
  where.given = {options.username, options.password, {}, {}};
  if (!options.password_file.empty()) {
    auto password = erofs_oci::read_password_file(options.password_file);
    if (!password) return fail(std::move(password).error(), "oci.password_file");
    where.given->password = *std::move(password);
  }
  return erofs_oci::credential_lookup(std::move(where));
}

erofs_oci::Mirror mirror_of(std::string_view text, ImageOptions const& options) {
  using Protocol = erofs_oci::RegistryProtocol;
  constexpr std::string_view http = "http://";
  constexpr std::string_view https = "https://";
  if (text.starts_with(http)) return {std::string(text.substr(http.size())), Protocol::http};
  if (text.starts_with(https)) return {std::string(text.substr(https.size())), Protocol::https};
  return {std::string(text), options.insecure ? Protocol::http : Protocol::https};
}

/// A transport for the options' certificates. The file is read for each connection, so that it must
/// be found after a change of the working directory, too.
Result<erofs_oci::HttplibTransport> transport_of(ImageOptions const& options) {
  erofs_oci::HttplibOptions http;
  if (!options.ca.empty()) {
    auto const readable = erofs_oci::open_read(options.ca);
    if (!readable) return fail(readable.error(), "oci.ca");
    http.ca_file = std::filesystem::absolute(options.ca).string();
  }
  auto proxies = erofs_oci::Proxies::from_environment();
  if (!proxies) return fail(std::move(proxies).error(), "environment");
  http.proxies = *std::move(proxies);
  http.idle_connections = options.connections;
  return erofs_oci::HttplibTransport(std::move(http));
}

/// Looks for the image's SOCI index when a layer is first asked for, once.
class SociLookups {
 public:
  SociLookups(erofs_oci::Registry registry, erofs_oci::Image image, bool referrers)
      : registry_(std::move(registry)), image_(std::move(image)), referrers_(referrers) {}

  Result<std::optional<SociLayer>> operator()(Descriptor const& layer) {
    std::call_once(once_, [this] { index_ = erofs_oci::find_soci_index(registry_, image_); });
    if (!index_) return fail(index_.error());
    if (!*index_) return std::optional<SociLayer>();
    bool const bound = (*index_)->binding == erofs_oci::SociBinding::by_digest;
    auto const* const ztoc = bound || referrers_ ? (*index_)->ztoc_of(layer.digest) : nullptr;
    if (ztoc == nullptr) return std::optional<SociLayer>();
    auto const bytes = erofs_oci::fetch_ztoc(registry_, *ztoc);
    if (!bytes) return fail(bytes.error());
    auto const parsed = erofs_oci::parse_ztoc(*bytes);
    if (!parsed) return fail(parsed.error());
    auto built = erofs_oci::soci_layer(*parsed, layer);
    if (!built) return fail(std::move(built).error());
    return std::optional(SociLayer{*std::move(built), bound});
  }

 private:
  erofs_oci::Registry registry_;
  erofs_oci::Image image_;
  bool referrers_;
  std::once_flag once_;
  Result<std::optional<erofs_oci::SociIndex>> index_;
};

SociLookup soci_lookup(erofs_oci::Registry const& registry, erofs_oci::Image const& image,
                       SociUse use) {
  if (use == SociUse::none) return {};
  bool const by_tag = !registry.reference().digest.has_value();
  auto const lookups =
      std::make_shared<SociLookups>(registry, image, use == SociUse::trusted && by_tag);
  return [lookups](Descriptor const& layer) { return (*lookups)(layer); };
}

/// A registry, and how its blobs are read.
struct Remote {
  erofs_oci::Registry registry;
  erofs_oci::Backoff backoff;

  [[nodiscard]] AnySource blob(Descriptor const& at) const {
    return AnySource(erofs_oci::Retry(registry.blob(at), backoff));
  }
};

/// Makes no request.
Result<Remote> open_remote(erofs_oci::Reference reference, ImageOptions const& options) {
  auto credentials = credentials_of(options);
  if (!credentials) return fail(std::move(credentials).error());
  auto transport = transport_of(options);
  if (!transport) return fail(std::move(transport).error());

  erofs_oci::RegistryOptions settings;
  if (options.insecure) settings.protocol = erofs_oci::RegistryProtocol::http;
  for (auto const& mirror : options.mirrors) settings.mirrors.push_back(mirror_of(mirror, options));
  settings.credentials = *std::move(credentials);
  settings.limits = limits_of(options);
  auto registry = erofs_oci::Registry::make(std::move(reference), settings, *std::move(transport));
  if (!registry) return fail(std::move(registry).error());
  return Remote{*std::move(registry), backoff_of(options, settings.limits)};
}

Result<FoundImage> find_remote(ImageOptions const& options) {
  auto reference = erofs_oci::Reference::parse(options.image);
  if (!reference) return fail(std::move(reference).error());
  auto const platform = wanted_platform(options);
  if (!platform) return fail(platform.error());
  auto const remote = open_remote(*std::move(reference), options);
  if (!remote) return fail(remote.error());
  auto const image = remote->registry.resolve(*platform);
  if (!image) return fail(image.error());
  auto found = found_image(
      *image, options, [&](Descriptor const& at) -> Result<AnySource> { return remote->blob(at); });
  if (found) found->soci = soci_lookup(remote->registry, *image, options.soci);
  return found;
}

// ---------------------------------------------------------------- an OCI image layout

/// `DIR[:NAME]`; a directory whose name has a colon is taken as it is. NAME is a tag, or a digest
/// behind an `@`.
std::pair<std::string, std::string> split_layout(std::string_view text) {
  std::error_code ignored;
  if (std::filesystem::is_directory(text, ignored)) return {std::string(text), {}};
  auto const at = text.rfind('@');
  auto const cut = at != std::string_view::npos ? at : text.rfind(':');
  if (cut == std::string_view::npos) return {std::string(text), {}};
  return {std::string(text.substr(0, cut)), std::string(text.substr(cut + 1))};
}

Result<FoundImage> find_in_layout(std::string_view name, ImageOptions const& options) {
  auto const platform = wanted_platform(options);
  if (!platform) return fail(platform.error());
  auto const [directory, wanted] = split_layout(name);
  auto const layout = erofs_oci::Layout::open(directory);
  if (!layout) return fail(layout.error());
  auto const image = layout->resolve(wanted, *platform);
  if (!image) return fail(image.error());
  return found_image(*image, options, [&](Descriptor const& at) -> Result<AnySource> {
    auto blob = layout->blob(at);
    if (!blob) return fail(std::move(blob).error());
    return AnySource(*std::move(blob));
  });
}

// ---------------------------------------------------------------- a file

Result<FoundImage> find_file(std::string const& path, ImageOptions const& options) {
  if (!options.blob.empty() || options.layer) {
    return fail(Errc::invalid_argument, "a file is one layer: neither oci.blob nor oci.layer");
  }
  auto file = Local::open(path);
  if (!file) return fail(std::move(file).error());
  FoundImage found;
  found.name = options.image;
  Descriptor descriptor;
  descriptor.size = file->size();
  found.layers.push_back({0, std::move(descriptor), Shared(AnySource(*std::move(file)))});
  return found;
}

// ---------------------------------------------------------------- what was found before

using Opener = std::function<Result<AnySource>(erofs_oci::RecordLayer const&, Descriptor const&)>;

/// The file that it was.
Result<AnySource> open_recorded_file(erofs_oci::LocalFile const& file) {
  auto fd = erofs_oci::open_unchanged(file);
  if (!fd) return fail(std::move(fd).error());
  auto local = Local::of_fd(*std::move(fd), file.path);
  if (!local) return fail(std::move(local).error());
  return AnySource(*std::move(local));
}

Result<Opener> opener_of(erofs_oci::RecordImage const& image, ImageOptions const& options) {
  switch (image.source) {
    case erofs_oci::RecordSource::registry: {
      erofs_oci::Reference reference{image.registry, image.repository, {}, image.manifest};
      auto remote = open_remote(std::move(reference), options);
      if (!remote) return fail(std::move(remote).error());
      return Opener(
          [shared = std::make_shared<Remote const>(*std::move(remote))](
              auto const&, Descriptor const& at) -> Result<AnySource> { return shared->blob(at); });
    }
    case erofs_oci::RecordSource::layout: {
      auto layout = erofs_oci::Layout::open(image.directory);
      if (!layout) return fail(std::move(layout).error());
      return Opener([shared = std::make_shared<erofs_oci::Layout const>(*std::move(layout))](
                        auto const&, Descriptor const& at) -> Result<AnySource> {
        auto blob = shared->blob(at);
        if (!blob) return fail(std::move(blob).error());
        return AnySource(*std::move(blob));
      });
    }
    case erofs_oci::RecordSource::files: break;
  }
  return Opener([](erofs_oci::RecordLayer const& layer, Descriptor const&) {
    return open_recorded_file(*layer.file);
  });
}

// ---------------------------------------------------------------- any of them

constexpr std::string_view file_prefix = "file:";

Result<FoundImage> find_any(ImageOptions const& options) {
  auto const image = std::string_view(options.image);
  constexpr std::string_view layout = "oci:";
  if (image.starts_with(layout)) return find_in_layout(image.substr(layout.size()), options);
  if (image.starts_with(file_prefix)) {
    return find_file(options.image.substr(file_prefix.size()), options);
  }
  if (names_file(image)) return find_file(options.image, options);
  return find_remote(options);
}

}  // namespace

std::string layout_directory(std::string_view text) {
  return split_layout(text).first;
}

bool names_file(std::string_view name) noexcept {
  return name.starts_with(file_prefix) || name.starts_with("/") || name.starts_with("./") ||
         name.starts_with("../");
}

Result<FoundImage> find_image(ImageOptions const& options, Log const& log) {
  auto found = find_any(options);
  if (!found) return fail(std::move(found).error(), options.image);
  for (auto const& layer : found->layers) {
    log.say(Level::info, "blob " + erofs_oci::describe(layer.blob) + ", " +
                             std::to_string(layer.blob.size()) + " bytes");
  }
  return found;
}

Result<FoundImage> find_again(erofs_oci::RecordImage const& image, ImageOptions const& options,
                              Log const& log) {
  auto const open = opener_of(image, options);
  if (!open) return fail(open.error());
  FoundImage found;
  found.name = options.image;
  found.digest = image.manifest;
  found.layer_count = image.layers.size();
  for (auto const& layer : image.layers) {
    Descriptor descriptor;
    descriptor.media_type = layer.media_type;
    descriptor.size = layer.size;
    if (layer.digest) descriptor.digest = *layer.digest;
    auto blob = (*open)(layer, descriptor);
    if (!blob) return fail(std::move(blob).error());
    log.say(Level::info, "blob " + erofs_oci::describe(*blob));
    found.layers.push_back(
        {found.layers.size(), std::move(descriptor), Shared<AnySource>(*std::move(blob))});
  }
  return found;
}

}  // namespace mount_oci
