// SPDX-License-Identifier: Apache-2.0
#include "reader.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <unistd.h>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/source.hpp>
#include <erofs_oci/image/image_name.hpp>
#include <erofs_oci/oci/reference.hpp>
#include <erofs_oci/posix/memory_file.hpp>
#include <erofs_oci/posix/trusted_file.hpp>
#include <erofs_oci/source/local.hpp>

#include "find_image.hpp"
#include "helper_process.hpp"
#include "indexing.hpp"
#include "layer_cache.hpp"

namespace mount_oci {
namespace {

using erofs_oci::fail;
using erofs_oci::ImageName;
using erofs_oci::ImagePlace;

/// The files and directories that are named; not all need exist.
std::vector<std::string> named_files(ImageOptions const& options, ImageName const& name,
                                     erofs_oci::Record const* record) {
  std::vector<std::string> paths{options.tarindex, options.zinfo, options.index_directory,
                                 options.index_layout};
  if (name.place != ImagePlace::registry) paths.push_back(name.path);
  if (record == nullptr) return paths;
  auto const& image = record->image;
  paths.push_back(image.directory);
  auto const add = [&](auto const& file) {
    if (file) paths.push_back(file->path);
  };
  add(image.tarindex);
  for (auto const& layer : image.layers) {
    add(layer.file);
    add(layer.zinfo);
  }
  return paths;
}

/// The path of a file that stays open: it can be closed to the process's user.
std::string own_path(UniqueFd fd) {
  return "/proc/self/fd/" + std::to_string(fd.release());
}

/// The directories of the stores; what cannot be made is told when a store is opened.
std::vector<std::string> prepare_stores(ImageOptions& options, Log const& log) {
  std::vector<std::string> paths;
  auto const prepare = [&](std::string const& path) {
    auto const given = give_store(path);
    if (!given) log.say(Level::info, path + ": " + given.error().message());
    paths.push_back(path);
    return given.has_value();
  };
  if (auto const store = store_path(options)) prepare(*store);
  if (auto const cache = cache_path(options)) prepare(*cache);
  auto& own = options.own_store;
  if (!own.empty() && prepare(own) && ::geteuid() == 0) {
    UniqueFd fd(::open(own.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (fd) own = own_path(std::move(fd));
  }
  return paths;
}

constexpr std::uint64_t most_certificates = 16 << 20;  // bytes of a file

/// Reads a file once, and yields a path by which it can be read again for each new connection.
Result<std::string> hold(std::string const& path) {
  EROFS_OCI_TRY_ASSIGN(auto const file, erofs_oci::Local::open(path));
  if (file.size() > most_certificates) return fail(Errc::invalid_argument, path + ": too long");
  erofs_oci::Bytes bytes(static_cast<std::size_t>(file.size()));
  EROFS_OCI_TRY(read_exact(file, 0, bytes));
  EROFS_OCI_TRY_ASSIGN(auto held, erofs_oci::to_memory_file(bytes));
  return own_path(std::move(held));
}

Result<void> hold_certificates(erofs_oci::HostTls& tls) {
  for (auto& path : tls.ca_files) {
    EROFS_OCI_TRY_ASSIGN(path, hold(path));
  }
  for (auto* const path : {&tls.client_certificate, &tls.client_key}) {
    if (path->empty()) continue;
    EROFS_OCI_TRY_ASSIGN(*path, hold(*path));
  }
  return {};
}

/// Reads the keys that indexes are signed with.
Result<std::vector<erofs_oci::PublicKey>> read_keys(std::vector<std::string> const& paths) {
  std::vector<erofs_oci::PublicKey> keys;
  for (auto const& path : paths) {
    EROFS_OCI_TRY_ASSIGN(auto const read, erofs_oci::read_trusted_file(path), "oci.index_key");
    EROFS_OCI_TRY_ASSIGN(auto key, erofs_oci::PublicKey::from_pem(read.text),
                         "oci.index_key " + path);
    keys.push_back(std::move(key));
  }
  return keys;
}

void append(std::vector<std::string>& to, std::vector<std::string> const& from) {
  to.insert(to.end(), from.begin(), from.end());
}

}  // namespace

Result<void> prepare_registry(ImageOptions& options, erofs_oci::Reference const& reference,
                              Log const& log) {
  if (!options.ca.empty()) {
    EROFS_OCI_TRY_ASSIGN(options.access.ca, hold(options.ca), "oci.ca");
  }
  EROFS_OCI_TRY_ASSIGN(auto hosts, hosts_of(reference.registry, options, log));
  std::vector<std::string> authorities;
  auto const prepare = [&](erofs_oci::RegistryHost& host) {
    authorities.push_back(host.api.authority());
    return hold_certificates(host.tls);
  };
  for (auto& mirror : hosts.mirrors) EROFS_OCI_TRY(prepare(mirror), "oci.hosts");
  EROFS_OCI_TRY(prepare(*hosts.server), "oci.hosts");
  options.access.hosts = std::make_shared<erofs_oci::HostsFile const>(std::move(hosts));
  options.access.config = find_config(options);
  EROFS_OCI_TRY_ASSIGN(auto lookup, credentials_of(reference.registry, options));
  EROFS_OCI_TRY_ASSIGN(
      options.access.login,
      look_up_by_helper(std::move(lookup), std::move(authorities), reference.repository,
                        options.access.requests.get_token()));
  return {};
}

Result<void> open_ways(ImageOptions& options, erofs_oci::Record const* record, Confinement& more,
                       Log const& log) {
  auto const name = ImageName::parse(options.image);
  // Both depend on who this process is now.
  options.layer_cache = layer_cache_of(options);
  options.usual_store = erofs_oci::IndexStore::default_path().value_or("");
  auto const files = named_files(options, name, record);
  auto const in_registry = record != nullptr
                               ? record->image.source == erofs_oci::RecordSource::registry
                               : name.place == ImagePlace::registry;
  more.network = more.network || in_registry;
  auto const is_named = [](std::string const& path) { return !path.empty(); };
  more.reads_all = more.reads_all || std::ranges::any_of(files, is_named) || is_named(options.ca) ||
                   is_named(options.password_file) || options.in_place_of ||
                   (!options.store.empty() && options.store != "none") ||
                   (!options.cache_dir.empty() && options.cache_dir != "none");
  EROFS_OCI_TRY_ASSIGN(options.access.index_keys, read_keys(options.index_keys));
  if (in_registry) {
    EROFS_OCI_TRY_ASSIGN(auto const reference, erofs_oci::Reference::parse(name.path));
    EROFS_OCI_TRY(prepare_registry(options, reference, log));
  }
  append(more.writes, prepare_stores(options, log));
  append(more.reads, files);
  return {};
}

Result<void> become_reader(ImageOptions& options, erofs_oci::Record const* record, Confinement more,
                           Log const& log) {
  EROFS_OCI_TRY(open_ways(options, record, more, log));
  return confine_or_fail(more, options.allow_unconfined, log);
}

}  // namespace mount_oci
