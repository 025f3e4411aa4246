// SPDX-License-Identifier: Apache-2.0
/// @file
/// Reference: the name of an image, as users write it.
#pragma once

#include <algorithm>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include <arpa/inet.h>
#include <netinet/in.h>

#include <erofs_oci/core/result.hpp>
#include <erofs_oci/core/text.hpp>
#include <erofs_oci/digest/digest.hpp>

namespace erofs_oci {

/// `[registry/]repository[:tag][@digest]`, with every default filled in.
///
/// parse() is total and does no I/O; what it accepts can be put into a URL as it stands.
struct Reference {
  /// The host that serves Docker Hub's API.
  static constexpr std::string_view docker_hub = "registry-1.docker.io";

  std::string registry;          ///< `host[:port]`, lower case; IPv6 in brackets
  std::string repository;        ///< with "library/" where Docker Hub means it
  std::string tag;               ///< empty exactly if there is a digest
  std::optional<Digest> digest;  ///< of the manifest or index

  /// Reads what a user wrote. With a digest the tag is ignored, though it must be one.
  /// @error{Errc::invalid_argument, not a reference}
  /// @error{Errc::unsupported, the digest's algorithm is unknown}
  [[nodiscard]] static Result<Reference> parse(std::string_view text);

  [[nodiscard]] bool is_docker_hub() const noexcept { return registry == docker_hub; }

  /// What stands behind "/manifests/": the digest, else the tag.
  [[nodiscard]] std::string target() const { return digest ? digest->to_string() : tag; }

  /// The repository with its registry, as the canonical text begins: "docker.io/library/debian".
  [[nodiscard]] std::string repository_name() const {
    auto const host = is_docker_hub() ? std::string_view("docker.io") : std::string_view(registry);
    return std::string(host) + "/" + repository;
  }

  /// The canonical text: parse() of it is this reference again.
  [[nodiscard]] std::string to_string() const {
    return repository_name() + (digest ? "@" + digest->to_string() : ":" + tag);
  }

  friend bool operator==(Reference const&, Reference const&) = default;
};

namespace detail {

/// For messages: what a user typed or a peer sent, cut and without control characters.
inline std::string quote(std::string_view text) {
  std::string out = "\"";
  out += text.substr(0, 300);
  std::ranges::replace_if(out, [](char c) { return c < ' ' || c > '~'; }, '?');
  return out + (text.size() > 300 ? "…\"" : "\"");
}

/// One part between slashes. Walks runs of letters and digits and the separators between them.
inline bool is_path_component(std::string_view text) noexcept {
  for (;;) {
    auto const word = std::ranges::find_if_not(text, is_lower_or_digit);
    if (word == text.begin()) return false;
    text.remove_prefix(static_cast<std::size_t>(word - text.begin()));
    if (text.empty()) return true;
    auto const rest = std::ranges::find_if(text, is_lower_or_digit);
    auto const separator = text.substr(0, static_cast<std::size_t>(rest - text.begin()));
    auto const dashes = separator.find_first_not_of('-') == separator.npos;
    if (!dashes && separator != "." && separator != "_" && separator != "__") return false;
    text.remove_prefix(separator.size());
  }
}

/// A name as in DNS, or an IPv4 address, which looks like one.
inline bool is_host_name(std::string_view text) noexcept {
  return text.size() <= 253 && are_parts_good(text, '.', [](std::string_view label) {
           return !label.empty() && label.size() <= 63 && !label.starts_with('-') &&
                  !label.ends_with('-') && is_made_of(label, "-");
         });
}

/// 1 to 65535 in decimal.
inline bool is_port(std::string_view text) noexcept {
  if (text.empty() || text.size() > 5 || !std::ranges::all_of(text, is_digit)) return false;
  unsigned value = 0;
  for (auto const c : text) value = value * 10 + static_cast<unsigned>(c - '0');
  return value >= 1 && value <= 65535;
}

}  // namespace detail

/// @name The parts of a reference
/// Whether a text is one, by the distribution specification's grammar.
/// @{

/// `[A-Za-z0-9_][A-Za-z0-9._-]{0,127}`
[[nodiscard]] inline bool is_tag(std::string_view text) noexcept {
  return !text.empty() && text.size() <= 128 && is_made_of(text.substr(0, 1), "_") &&
         is_made_of(text, "_.-");
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`, one or more, joined by "/".
[[nodiscard]] inline bool is_repository(std::string_view text) noexcept {
  return are_parts_good(text, '/', detail::is_path_component);
}

/// A DNS name, an IPv4 address or a bracketed IPv6 address, then perhaps ":" and a port.
[[nodiscard]] inline bool is_registry(std::string_view text) noexcept {
  auto host = text;
  if (text.starts_with('[')) {
    auto const end = text.find(']');
    if (end == std::string_view::npos) return false;
    host = text.substr(1, end - 1);
    in6_addr address{};
    if (host.size() > 45 || ::inet_pton(AF_INET6, std::string(host).c_str(), &address) != 1) {
      return false;
    }
    text.remove_prefix(end + 1);
  } else {
    host = text.substr(0, text.find(':'));
    if (!detail::is_host_name(host)) return false;
    text.remove_prefix(host.size());
  }
  return text.empty() || (text.front() == ':' && detail::is_port(text.substr(1)));
}
/// @}

inline Result<Reference> Reference::parse(std::string_view text) {
  auto const refuse = [text](std::string_view why) {
    return fail(Errc::invalid_argument,
                "image reference " + detail::quote(text) + ": " + std::string(why));
  };
  Reference out;
  auto rest = text;

  if (auto const at = rest.find('@'); at != std::string_view::npos) {
    EROFS_OCI_TRY_ASSIGN(out.digest, Digest::parse(rest.substr(at + 1)),
                         "image reference " + detail::quote(text));
    rest = rest.substr(0, at);
  }

  std::string_view registry = docker_hub;
  if (auto const slash = rest.find('/'); slash != std::string_view::npos) {
    auto const first = rest.substr(0, slash);
    if (first.find_first_of(".:") != std::string_view::npos || first == "localhost") {
      registry = first;
      rest.remove_prefix(slash + 1);
    }
  }
  if (!is_registry(registry)) return refuse("bad registry host");
  out.registry = ascii_lower(registry);
  if (out.registry == "docker.io" || out.registry == "index.docker.io") out.registry = docker_hub;

  if (auto const colon = rest.find(':'); colon != std::string_view::npos) {
    out.tag = rest.substr(colon + 1);
    if (!is_tag(out.tag)) return refuse("bad tag");
    rest = rest.substr(0, colon);
  } else if (!out.digest) {
    out.tag = "latest";
  }
  if (out.digest) out.tag.clear();

  if (!is_repository(rest)) return refuse("bad repository name");
  out.repository = rest;
  if (out.is_docker_hub() && rest.find('/') == std::string_view::npos) {
    out.repository.insert(0, "library/");
  }
  if (out.registry.size() + 1 + out.repository.size() > 255) return refuse("longer than 255 bytes");
  return out;
}

}  // namespace erofs_oci
