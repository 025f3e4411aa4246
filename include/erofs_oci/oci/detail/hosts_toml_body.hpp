// SPDX-License-Identifier: Apache-2.0
/// @file
/// What oci/hosts_toml.hpp only declares.
#pragma once

#include <algorithm>
#include <array>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <erofs_oci/core/config.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/core/text.hpp>
#include <erofs_oci/oci/hosts_toml.hpp>
#include <erofs_oci/oci/reference.hpp>
#include <erofs_oci/oci/registry_host.hpp>
#include <erofs_oci/oci/toml.hpp>
#include <erofs_oci/posix/trusted_file.hpp>
#include <erofs_oci/source/http_transport.hpp>
#include <erofs_oci/source/url.hpp>

namespace erofs_oci {
namespace detail {

/// Whether a field may be sent as it is and does not change what a request of ours means.
inline bool is_extra_header(std::string_view name, std::string_view value) {
  constexpr std::array fixed{"Host",       "Range",   "Accept-Encoding",   "Content-Length",
                             "Connection", "Upgrade", "Transfer-Encoding", "Proxy-Authorization"};
  auto const same = [&](char const* one) { return equal_ignoring_case(name, one); };
  return !name.empty() && is_made_of(name, "!#$%&'*+-.^_`|~") &&
         std::ranges::none_of(fixed, same) &&
         std::ranges::all_of(value, [](char c) { return c >= ' ' && c <= '~'; });
}

/// Applies the values of a hosts.toml in order.
class HostsReader {
 public:
  HostsReader(std::string_view name, std::string_view directory, std::string_view registry)
      : name_(name), directory_(directory), registry_(registry) {}

  Result<void> take(TomlEntry const& entry) {
    std::span<std::string const> keys(entry.path);
    if (keys[0] == "host") {
      if (keys.size() == 1) return entry.kind == Kind::table ? Result<void>() : refuse(entry);
      EROFS_OCI_TRY_ASSIGN(auto* const host, host_of(entry));
      return setting(*host, keys.subspan(2), entry);
    }
    if (keys[0] == "server" && keys.size() == 1) {
      if (entry.kind != Kind::text) return refuse(entry);
      EROFS_OCI_TRY(name_host(server(), entry.value, entry));
      server_named_ = true;
      return {};
    }
    return setting(server(), keys, entry);
  }

  Result<HostsFile> finish() && {
    HostsFile out;
    for (auto& [url, host] : hosts_) out.mirrors.push_back(complete(std::move(host)));
    if (server_) {
      if (!server_named_) EROFS_OCI_TRY(name_host(*server_, registry_, {}));
      out.server = complete(*std::move(server_));
    }
    out.warnings = std::move(warnings_);
    return out;
  }

 private:
  using Kind = TomlEntry::Kind;

  struct Host {
    RegistryHost host;
    bool override_path = false;
    std::string path;  // as the URL has it
  };

  [[nodiscard]] std::string place(TomlEntry const& entry) const {
    std::string keys;
    for (auto const& key : entry.path) keys += (keys.empty() ? "" : ".") + key;
    return name_ + ":" + std::to_string(entry.line) + ": " + quote(keys);
  }

  [[nodiscard]] tl::unexpected<Error> refuse(TomlEntry const& entry,
                                             std::string_view why = "a value of the wrong kind") {
    return fail(Errc::corrupt, place(entry) + ": " + std::string(why));
  }

  void warn(TomlEntry const& entry, std::string_view what) {
    warnings_.push_back(place(entry) + ": " + std::string(what));
  }

  Host& server() {
    if (!server_) server_ = Host{};
    return *server_;
  }

  Result<Host*> host_of(TomlEntry const& entry) {
    auto const& url = entry.path[1];
    auto const known = std::ranges::find(hosts_, url, &std::pair<std::string, Host>::first);
    if (known != hosts_.end()) return &known->second;
    Host host;
    EROFS_OCI_TRY(name_host(host, url, entry));
    return &hosts_.emplace_back(url, std::move(host)).second;
  }

  Result<void> name_host(Host& host, std::string_view text, TomlEntry const& entry) {
    auto parsed = RegistryHost::parse(text);
    if (!parsed) return refuse(entry, "not [http[s]://]HOST[:PORT][/PATH]");
    auto& api = parsed->api;
    if (api.host == "docker.io" || api.host == "index.docker.io") api.host = Reference::docker_hub;
    auto const bare = Url::parse(text.find("://") == text.npos ? "https://" + std::string(text)
                                                               : std::string(text));
    host.path = bare ? bare->target : "";
    while (host.path.ends_with('/')) host.path.pop_back();
    host.host.api = std::move(api);
    return {};
  }

  Result<void> setting(Host& host, std::span<std::string const> keys, TomlEntry const& entry) {
    if (keys.empty()) return entry.kind == Kind::table ? Result<void>() : refuse(entry);
    auto& out = host.host;
    auto const& key = keys[0];
    auto const depth = keys.size();
    auto const text = entry.kind == Kind::text;
    auto const array = entry.kind == Kind::array;
    if (key == "capabilities") {
      if (depth == 1 && array) {
        out.pulls = out.resolves = false;
        return {};
      }
      if (depth != 2 || !text) return refuse(entry);
      if (entry.value == "pull") out.pulls = true;
      if (entry.value == "resolve") out.resolves = true;
      if (entry.value != "pull" && entry.value != "resolve" && entry.value != "push") {
        return refuse(entry, "none of pull, resolve, push");
      }
      return {};
    }
    if (key == "ca") {
      if (depth == 1 && array) return {};
      if (!text || depth > 2) return refuse(entry);
      out.tls.ca_files.push_back(path_of(entry.value));
      return {};
    }
    if (key == "client") return client(out.tls, keys, entry);
    if (key == "skip_verify" || key == "override_path") {
      if (entry.kind != Kind::boolean || depth != 1) return refuse(entry);
      auto const on = entry.value == "true";
      if (key == "override_path") host.override_path = on;
      if (key == "skip_verify") out.tls.skip_verify = on;
      if (key == "skip_verify" && on) warn(entry, "certificates of this host are not verified");
      return {};
    }
    if (key == "header") {
      if ((depth == 1 && entry.kind == Kind::table) || (depth == 2 && array)) return {};
      if (!text || depth > 3 || depth < 2) return refuse(entry);
      if (!is_extra_header(keys[1], entry.value)) {
        return refuse(entry,
                      "a header that must not be set, or with characters that none may have");
      }
      out.headers.push_back({keys[1], entry.value, true});
      return {};
    }
    if (depth == 1 && key != "dial_timeout") warn(entry, "this key is not known and is ignored");
    return {};
  }

  /// PEM | [PEM...] | [[CERTIFICATE, KEY]...], of which the first counts.
  Result<void> client(HostTls& tls, std::span<std::string const> keys, TomlEntry const& entry) {
    auto const depth = keys.size();
    if (entry.kind == Kind::array && depth <= 2) return {};
    if (entry.kind != Kind::text || depth > 3 || (depth == 3 && keys[2] != "0" && keys[2] != "1")) {
      return refuse(entry);
    }
    if (depth > 1 && keys[1] != "0") {
      if (depth == 2 || keys[2] == "0") warn(entry, "only the first client certificate is used");
      return {};
    }
    (depth == 3 && keys[2] == "1" ? tls.client_key : tls.client_certificate) = path_of(entry.value);
    return {};
  }

  [[nodiscard]] std::string path_of(std::string_view path) const {
    return path.starts_with('/') ? std::string(path) : directory_ + "/" + std::string(path);
  }

  static RegistryHost complete(Host host) {
    if (host.override_path) host.host.api.target = std::move(host.path);
    return std::move(host.host);
  }

  std::string name_;
  std::string directory_;
  std::string registry_;
  std::vector<std::pair<std::string, Host>> hosts_;
  std::optional<Host> server_;
  bool server_named_ = false;
  std::vector<std::string> warnings_;
};

/// docker's certificates of a host: no mirrors.
inline Result<HostsFile> read_docker_certificates(std::string const& directory,
                                                  std::string_view registry) {
  std::vector<std::string> names;
  std::error_code error;
  for (std::filesystem::directory_iterator at(directory, error), end; !error && at != end;
       at.increment(error)) {
    names.push_back(at->path().string());
  }
  if (error) return fail(error, directory);
  std::ranges::sort(names);
  HostsFile out;
  EROFS_OCI_TRY_ASSIGN(auto server, RegistryHost::parse(registry));
  auto& tls = server.tls;
  for (auto const& name : names) {
    if (name.ends_with(".crt")) tls.ca_files.push_back(name);
    if (!name.ends_with(".cert") || !tls.client_certificate.empty()) continue;
    tls.client_certificate = name;
    tls.client_key = name.substr(0, name.size() - 4) + "key";
  }
  if (tls != HostTls()) out.server = std::move(server);
  return out;
}

}  // namespace detail

EROFS_OCI_BODY Result<HostsFile> parse_hosts_toml(std::string_view text, std::string_view name,
                                                  std::string_view directory,
                                                  std::string_view registry) {
  EROFS_OCI_TRY_ASSIGN(auto const entries, parse_toml(text, name));
  detail::HostsReader reader(name, directory, registry);
  for (auto const& entry : entries) EROFS_OCI_TRY(reader.take(entry));
  return std::move(reader).finish();
}

EROFS_OCI_BODY Result<std::optional<HostsFile>> find_hosts(std::vector<std::string> const& roots,
                                                           std::string_view registry) {
  auto const host = std::string(registry == Reference::docker_hub ? "docker.io" : registry);
  std::vector<std::string> names{host, "_default"};
  if (auto const colon = host.rfind(':'); colon != host.npos && !host.ends_with(']')) {
    names.insert(names.begin(), host.substr(0, colon) + "_" + host.substr(colon + 1) + "_");
  }
  for (auto const& root : roots) {
    for (auto const& name : names) {
      auto const directory = root + "/" + name;
      std::error_code ignored;
      if (!std::filesystem::is_directory(directory, ignored)) continue;
      auto const path = directory + "/hosts.toml";
      auto const read = read_trusted_file(path);
      if (read) return parse_hosts_toml(read->text, path, directory, registry);
      if (read.error().code != std::errc::no_such_file_or_directory) return fail(read.error());
      return detail::read_docker_certificates(directory, registry);
    }
  }
  return std::optional<HostsFile>();
}

}  // namespace erofs_oci
