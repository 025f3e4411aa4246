// SPDX-License-Identifier: Apache-2.0
#include "find_image.hpp"

#include <algorithm>
#include <filesystem>
#include <iterator>
#include <limits>
#include <memory>
#include <string_view>
#include <system_error>
#include <utility>
#include <variant>

#include <unistd.h>

#include <erofs_oci/combinator/retry.hpp>
#include <erofs_oci/core/text.hpp>
#include <erofs_oci/http/registry.hpp>
#include <erofs_oci/image/image_name.hpp>
#include <erofs_oci/oci/credentials.hpp>
#include <erofs_oci/oci/hosts_toml.hpp>
#include <erofs_oci/oci/layout.hpp>
#include <erofs_oci/oci/reference.hpp>
#include <erofs_oci/recovery/local_file.hpp>
#include <erofs_oci/source/local.hpp>

#include "layer_cache.hpp"

namespace mount_oci {
namespace {

using erofs_oci::AnySource;
using erofs_oci::Descriptor;
using erofs_oci::Digest;
using erofs_oci::fail;
using erofs_oci::ImageName;
using erofs_oci::ImagePlace;
using erofs_oci::LayerChoice;
using erofs_oci::Local;
using erofs_oci::Platform;
using erofs_oci::Shared;
using std::chrono::milliseconds;

// ---------------------------------------------------------------- a registry

/// Limits for one attempt, such that the last retry can end before the read's deadline.
erofs_oci::HttpLimits limits_of(ImageOptions const& options) {
  erofs_oci::HttpLimits limits{.total = options.timeout};
  limits.connect = std::min(limits.connect, limits.total / 4);
  limits.idle = std::min(limits.idle, limits.total / 3);
  limits.rate_time = std::min(limits.rate_time, limits.total / 2);
  return limits;
}

erofs_oci::Backoff backoff_of(ImageOptions const& options, erofs_oci::HttpLimits const& limits) {
  auto const most = limits.total - limits.connect - limits.idle;
  auto const once = options.retry == std::chrono::seconds(0);
  return {.attempts = once ? 1U : std::numeric_limits<unsigned>::max(),
          .total = options.retry ? std::min<milliseconds>(*options.retry, most) : most};
}

std::vector<std::string> config_files(ImageOptions const& options) {
  return options.config_files.empty() ? erofs_oci::default_config_files() : options.config_files;
}

}  // namespace

std::string find_config(ImageOptions const& options) {
  for (auto const& config : config_files(options)) {
    std::error_code error;
    auto const path = std::filesystem::canonical(config, error);
    if (!error && ::access(path.c_str(), R_OK) == 0) return path.string();
  }
  return {};
}

Result<erofs_oci::CredentialLookup> credentials_of(std::string const& registry,
                                                   ImageOptions const& options) {
  if (options.access.login) return options.access.login;
  hide_memory();
  erofs_oci::CredentialOptions where{.config_files = config_files(options)};
  where.helper_limit = std::min<milliseconds>(where.helper_limit, options.timeout / 2);
  if (options.username.empty()) return erofs_oci::credential_lookup(std::move(where));
  where.given = {registry, {options.username, options.password, {}, {}, "oci.username"}};
  if (!options.password_file.empty()) {
    where.given->credentials.place = "oci.username and " + options.password_file;
    EROFS_OCI_TRY_ASSIGN(where.given->credentials.password,
                         erofs_oci::read_password_file(options.password_file), "oci.password_file");
  }
  return erofs_oci::credential_lookup(std::move(where));
}

namespace {

/// `[http://|https://]HOST[:PORT][/PATH][;resolve]`
Result<erofs_oci::RegistryHost> mirror_of(std::string_view text) {
  constexpr std::string_view resolve = ";resolve";
  auto const resolves = text.ends_with(resolve);
  if (resolves) text.remove_suffix(resolve.size());
  EROFS_OCI_TRY_ASSIGN(auto out, erofs_oci::RegistryHost::parse(text), "oci.mirror");
  out.resolves = resolves;
  return out;
}

/// What hosts.toml says of a registry.
Result<erofs_oci::HostsFile> hosts_file_of(std::string const& registry, ImageOptions const& options,
                                           Log const& log) {
  erofs_oci::HostsFile out;
  if (options.hosts == "none") return out;
  std::vector<std::string> roots{"/etc/containerd/certs.d", "/etc/docker/certs.d"};
  if (!options.hosts.empty()) {
    roots.clear();
    for (auto rest = std::string_view(options.hosts); !rest.empty();) {
      roots.emplace_back(erofs_oci::take_part(rest, ':'));
    }
  }
  auto found = erofs_oci::find_hosts(roots, registry);
  if (!found) {
    auto const closed = found.error().code == std::errc::permission_denied;
    if (!closed || !options.hosts.empty()) return fail(std::move(found).error(), "oci.hosts");
    log.say(Level::warning, found.error().message() + ": the hosts in it are not used");
    return out;
  }
  if (*found) out = **std::move(found);
  for (auto const& warning : out.warnings) log.say(Level::warning, warning);
  for (auto const& mirror : out.mirrors) {
    log.say(Level::info, registry + ": asks " + mirror.api.to_string() + " first");
  }
  return out;
}

}  // namespace

Result<erofs_oci::HostsFile> hosts_of(std::string const& registry, ImageOptions const& options,
                                      Log const& log) {
  if (options.access.hosts) return *options.access.hosts;
  EROFS_OCI_TRY_ASSIGN(auto hosts, hosts_file_of(registry, options, log));
  std::vector<erofs_oci::RegistryHost> mirrors;
  for (auto const& mirror : options.mirrors) {
    EROFS_OCI_TRY_ASSIGN(mirrors.emplace_back(), mirror_of(mirror));
  }
  std::ranges::move(hosts.mirrors, std::back_inserter(mirrors));
  hosts.mirrors = std::move(mirrors);
  EROFS_OCI_TRY_ASSIGN(auto own, erofs_oci::RegistryHost::parse(
                                     (options.insecure ? "http://" : "https://") + registry));
  if (!hosts.server) {
    hosts.server = std::move(own);
  } else if (options.insecure && hosts.server->api.host == own.api.host) {
    hosts.server->api = std::move(own.api);
  }
  return hosts;
}

namespace {

/// A transport for the options' certificates and those of one host. It reads the files for each
/// connection, so the paths must be absolute: the working directory may change.
Result<erofs_oci::HttplibTransport> transport_of(ImageOptions const& options,
                                                 erofs_oci::RegistryHost const& host) {
  erofs_oci::HttplibOptions http;
  if (!options.ca.empty()) {
    auto const& path = options.access.ca.empty() ? options.ca : options.access.ca;
    EROFS_OCI_TRY(erofs_oci::open_read(path), "oci.ca");
    http.ca_file = std::filesystem::absolute(path).string();
  }
  for (auto const& file : host.tls.ca_files) EROFS_OCI_TRY(erofs_oci::open_read(file), "ca");
  http.tls = host.tls;
  http.tls_host = host.api.authority();
  EROFS_OCI_TRY_ASSIGN(http.proxies, erofs_oci::Proxies::from_environment(), "environment");
  http.idle_connections = options.connections;
  http.inward_redirects = options.allow_private;
  http.pace = options.access.pace;
  if (options.hedge) http.hedging = options.access.hedging;
  http.stop = options.access.requests.get_token();
  return erofs_oci::HttplibTransport(std::move(http));
}

/// A registry, and how its blobs are read.
struct Remote {
  erofs_oci::Registry registry;
  erofs_oci::Backoff backoff;

  [[nodiscard]] AnySource blob(Descriptor const& at) const {
    return AnySource(erofs_oci::Retry(registry.blob(at), backoff, registry.time()));
  }
};

/// Makes no request.
Result<Remote> open_remote(erofs_oci::Reference reference, ImageOptions const& options,
                           Log const& log, erofs_oci::LocalDocuments local = {}) {
  EROFS_OCI_TRY_ASSIGN(auto access, registry_access(reference.registry, options, log));
  access.settings.local = std::move(local);
  EROFS_OCI_TRY_ASSIGN(
      auto registry,
      erofs_oci::Registry::make(std::move(reference), access.settings, access.transport_of,
                                erofs_oci::SteadyClock{options.access.requests.get_token()}));
  return Remote{std::move(registry), backoff_of(options, access.settings.limits)};
}

// ---------------------------------------------------------------- from a record

using Opener = std::function<Result<AnySource>(erofs_oci::RecordLayer const&, Descriptor const&)>;

Result<Opener> opener_of(erofs_oci::RecordImage const& image, ImageOptions const& options,
                         Log const& log) {
  switch (image.source) {
    case erofs_oci::RecordSource::registry: {
      erofs_oci::Reference reference{image.registry, image.repository, {}, image.manifest};
      EROFS_OCI_TRY_ASSIGN(auto remote, open_remote(std::move(reference), options, log));
      return Opener(
          [shared = std::make_shared<Remote const>(std::move(remote))](
              auto const&, Descriptor const& at) -> Result<AnySource> { return shared->blob(at); });
    }
    case erofs_oci::RecordSource::layout: {
      EROFS_OCI_TRY_ASSIGN(auto layout, erofs_oci::Layout::open(image.directory));
      return Opener([shared = std::make_shared<erofs_oci::Layout const>(std::move(layout))](
                        auto const&, Descriptor const& at) -> Result<AnySource> {
        EROFS_OCI_TRY_ASSIGN(auto blob, shared->blob(at));
        return AnySource(std::move(blob));
      });
    }
    case erofs_oci::RecordSource::files: break;
  }
  return Opener([](erofs_oci::RecordLayer const& layer, Descriptor const&) {
    return open_recorded_file(*layer.file);
  });
}

// ---------------------------------------------------------------- any of them

Result<FoundImage> find_any(ImageOptions const& options, Log const& log) {
  auto const cache = layer_cache_of(options);
  LayerChoice choice{.number = options.layer, .first = options.first_layers};
  if (!options.blob.empty()) {
    EROFS_OCI_TRY_ASSIGN(choice.digest, Digest::parse(options.blob));
  }
  auto const in_registry = [&](erofs_oci::Reference reference,
                               Platform const& platform) -> Result<FoundImage> {
    auto local = cache->documents(reference, options.pull, log);
    EROFS_OCI_TRY_ASSIGN(auto const remote,
                         open_remote(std::move(reference), options, log, std::move(local)));
    EROFS_OCI_TRY_ASSIGN(
        auto found, erofs_oci::find_in_registry(remote.registry, platform, choice, remote.backoff,
                                                index_trust(options)));
    cache->keep(found, log);
    if (options.pull == Pull::never) EROFS_OCI_TRY(cache->check_kept(found));
    return found;
  };
  return erofs_oci::find_named(options.image, choice, options.platform, in_registry);
}

}  // namespace

erofs_oci::IndexTrust index_trust(ImageOptions const& options) {
  return {options.index, options.access.index_keys.value_or(std::vector<erofs_oci::PublicKey>())};
}

Result<RegistryAccess> registry_access(std::string const& registry, ImageOptions const& options,
                                       Log const& log) {
  RegistryAccess access;
  auto& settings = access.settings;
  EROFS_OCI_TRY_ASSIGN(settings.credentials, credentials_of(registry, options));
  EROFS_OCI_TRY_ASSIGN(auto hosts, hosts_of(registry, options, log));
  if (options.insecure) settings.protocol = erofs_oci::RegistryProtocol::http;
  settings.mirrors = std::move(hosts.mirrors);
  settings.server = std::move(hosts.server);
  settings.limits = limits_of(options);
  access.transport_of = [options](erofs_oci::RegistryHost const& host) {
    return transport_of(options, host);
  };
  return access;
}

Result<FoundImage> find_image(ImageOptions const& options, Log const& log) {
  auto found = find_any(options, log);
  if (!found) {
    auto error = std::move(found).error();
    if (error.context.ends_with(erofs_oci::no_tls_text)) error.context += ": see oci.insecure";
    return fail(std::move(error), options.image);
  }
  found->name = options.image;
  for (auto const& layer : found->layers) {
    log.say(Level::info, "blob " + erofs_oci::describe(layer.blob) + ", " +
                             std::to_string(layer.blob.size()) + " bytes");
  }
  return found;
}

Result<std::vector<std::string>> platforms_of(ImageOptions const& options, Log const& log) {
  auto const name = ImageName::parse(options.image);
  EROFS_OCI_TRY_ASSIGN(auto reference, erofs_oci::Reference::parse(name.path));
  auto const target = reference.target();
  EROFS_OCI_TRY_ASSIGN(auto const remote, open_remote(std::move(reference), options, log));
  EROFS_OCI_TRY_ASSIGN(auto const found, remote.registry.document(target));
  std::vector<std::string> out;
  auto const* const index = std::get_if<erofs_oci::Index>(&found.document);
  if (index == nullptr) return std::vector<std::string>(1);
  for (auto const& entry : index->manifests) {
    if (!entry.platform || !erofs_oci::is_image_entry(entry)) continue;
    auto text = entry.platform->normalised().to_string();
    if (std::ranges::find(out, text) == out.end()) out.push_back(std::move(text));
  }
  return out;
}

Result<AnySource> open_recorded_file(erofs_oci::LocalFile const& file) {
  EROFS_OCI_TRY_ASSIGN(auto fd, erofs_oci::open_unchanged(file));
  EROFS_OCI_TRY_ASSIGN(auto local, Local::of_fd(std::move(fd), file.path));
  return AnySource(std::move(local));
}

Result<FoundImage> find_again(erofs_oci::RecordImage const& image, ImageOptions const& options,
                              Log const& log) {
  EROFS_OCI_TRY_ASSIGN(auto const open, opener_of(image, options, log));
  FoundImage found;
  found.name = options.image;
  found.digest = image.manifest;
  found.layer_count = image.layers.size();
  for (auto const& layer : image.layers) {
    Descriptor descriptor;
    descriptor.media_type = layer.media_type;
    descriptor.size = layer.size;
    if (layer.digest) descriptor.digest = *layer.digest;
    EROFS_OCI_TRY_ASSIGN(auto blob, open(layer, descriptor));
    log.say(Level::info, "blob " + erofs_oci::describe(blob));
    found.layers.push_back(
        {found.layers.size(), std::move(descriptor), Shared<AnySource>(std::move(blob))});
  }
  layer_cache_of(options)->keep(found, log);
  return found;
}

}  // namespace mount_oci
