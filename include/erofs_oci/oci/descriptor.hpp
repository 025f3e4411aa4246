// SPDX-License-Identifier: Apache-2.0
/// @file
/// MediaType, Platform, Descriptor: what manifests are made of.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <erofs_oci/core/result.hpp>
#include <erofs_oci/core/text.hpp>
#include <erofs_oci/digest/digest.hpp>
#include <erofs_oci/oci/reference.hpp>

namespace erofs_oci {

/// The media types that this library knows, and what they mean.
namespace media_type {

inline constexpr std::string_view oci_index = "application/vnd.oci.image.index.v1+json";
inline constexpr std::string_view oci_manifest = "application/vnd.oci.image.manifest.v1+json";
inline constexpr std::string_view docker_list =
    "application/vnd.docker.distribution.manifest.list.v2+json";
inline constexpr std::string_view docker_manifest =
    "application/vnd.docker.distribution.manifest.v2+json";
inline constexpr std::string_view soci_v1 = "application/vnd.amazon.soci.index.v1+json";
inline constexpr std::string_view soci_v2 = "application/vnd.amazon.soci.index.v2+json";
inline constexpr std::string_view index_artifact = "application/vnd.erofs-oci.index.v1";
inline constexpr std::string_view cosign_signatures =
    "application/vnd.dev.cosign.artifact.sig.v1+json";

/// Whether it is a list of manifests.
[[nodiscard]] constexpr bool is_index(std::string_view type) noexcept {
  return type == oci_index || type == docker_list;
}

/// Whether it is one image's manifest.
[[nodiscard]] constexpr bool is_manifest(std::string_view type) noexcept {
  return type == oci_manifest || type == docker_manifest;
}

/// Whether it is one of Docker's old manifests, which name no digests of layers' metadata.
[[nodiscard]] constexpr bool is_schema1(std::string_view type) noexcept {
  return type == "application/vnd.docker.distribution.manifest.v1+json" ||
         type == "application/vnd.docker.distribution.manifest.v1+prettyjws";
}

/// The type alone, without the parameters that a Content-Type may carry.
[[nodiscard]] constexpr std::string_view without_parameters(std::string_view type) noexcept {
  type = type.substr(0, type.find(';'));
  while (!type.empty() && (type.back() == ' ' || type.back() == '\t')) type.remove_suffix(1);
  while (!type.empty() && (type.front() == ' ' || type.front() == '\t')) type.remove_prefix(1);
  return type;
}

}  // namespace media_type

/// How a layer is packed.
enum class LayerFormat : std::uint8_t {
  tar,      ///< a plain tar
  gzip,     ///< a tar in gzip
  zstd,     ///< a tar in Zstandard
  erofs,    ///< an EROFS image
  unknown,  ///< the media type does not say
};

/// What a layer's media type says about it. The blob's first bytes decide in doubt.
[[nodiscard]] constexpr LayerFormat layer_format(std::string_view type) noexcept {
  constexpr std::string_view oci = "application/vnd.oci.image.layer.";
  if (type.ends_with(".erofs")) return LayerFormat::erofs;
  if (type == "application/vnd.docker.image.rootfs.diff.tar.gzip" ||
      type == "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip") {
    return LayerFormat::gzip;
  }
  if (type == "application/vnd.docker.image.rootfs.diff.tar") return LayerFormat::tar;
  if (!type.starts_with(oci)) return LayerFormat::unknown;
  type.remove_prefix(oci.size());
  if (type.starts_with("nondistributable.")) type.remove_prefix(17);
  if (type == "v1.tar") return LayerFormat::tar;
  if (type == "v1.tar+gzip") return LayerFormat::gzip;
  if (type == "v1.tar+zstd") return LayerFormat::zstd;
  return LayerFormat::unknown;
}

/// What a program runs on.
struct Platform {
  std::string os;            ///< "linux"
  std::string architecture;  ///< as Go names it: "amd64", "arm64", "arm"
  std::string variant;       ///< "v7"; empty where normalised() leaves none

  /// Reads `OS/ARCH[/VARIANT]` and normalises it.
  /// @error{Errc::invalid_argument, another number of parts\, or characters that no part has}
  [[nodiscard]] static Result<Platform> parse(std::string_view text) {
    std::vector<std::string> parts;
    auto const take = [&parts](std::string_view part) {
      parts.emplace_back(part);
      return !part.empty() && is_made_of(part, "_-.") && parts.size() <= 3;
    };
    if (!are_parts_good(text, '/', take) || parts.size() < 2) {
      return fail(Errc::invalid_argument,
                  "platform " + detail::quote(text) + ": not OS/ARCHITECTURE[/VARIANT]");
    }
    parts.resize(3);
    return Platform{parts[0], parts[1], parts[2]}.normalised();
  }

  /// The machine that this was compiled for, on Linux.
  [[nodiscard]] static Platform host() {
#if defined(__x86_64__)
    return {"linux", "amd64", ""};
#elif defined(__aarch64__)
    return {"linux", "arm64", ""};
#elif defined(__arm__)
    return {"linux", "arm", "v7"};
#elif defined(__i386__)
    return {"linux", "386", ""};
#elif defined(__riscv) && __riscv_xlen == 64
    return {"linux", "riscv64", ""};
#elif defined(__powerpc64__) && defined(__LITTLE_ENDIAN__)
    return {"linux", "ppc64le", ""};
#elif defined(__s390x__)
    return {"linux", "s390x", ""};
#elif defined(__loongarch64)
    return {"linux", "loong64", ""};
#else
    return {"linux", "unknown", ""};
#endif
  }

  /// One spelling for each platform: x86_64 is amd64, aarch64 is arm64, arm64/v8 is arm64,
  /// amd64/v1 is amd64, arm is arm/v7; lower case.
  [[nodiscard]] Platform normalised() const {
    Platform out{ascii_lower(os), ascii_lower(architecture), ascii_lower(variant)};
    if (!out.variant.empty() && is_digit(out.variant.front())) out.variant.insert(0, "v");
    if (out.os == "macos") out.os = "darwin";
    if (out.architecture == "x86_64" || out.architecture == "x86-64") out.architecture = "amd64";
    if (out.architecture == "i386" || out.architecture == "i686") out.architecture = "386";
    if (out.architecture == "aarch64") out.architecture = "arm64";
    if (out.architecture == "armhf") out = {out.os, "arm", "v7"};
    if (out.architecture == "armel") out = {out.os, "arm", "v6"};
    if (out.architecture == "amd64" && out.variant == "v1") out.variant.clear();
    if (out.architecture == "arm64" && out.variant == "v8") out.variant.clear();
    if (out.architecture == "arm" && out.variant.empty()) out.variant = "v7";
    return out;
  }

  /// `os/architecture[/variant]`
  [[nodiscard]] std::string to_string() const {
    return os + "/" + architecture + (variant.empty() ? "" : "/" + variant);
  }

  friend bool operator==(Platform const&, Platform const&) = default;
};

namespace detail {

/// The number in "v7", or what an empty variant stands for.
inline std::optional<unsigned> variant_number(Platform const& platform) {
  if (platform.variant.empty()) return platform.architecture == "arm64" ? 8U : 1U;
  if (platform.variant.size() != 2 || platform.variant.front() != 'v' ||
      !is_digit(platform.variant.back())) {
    return std::nullopt;
  }
  return static_cast<unsigned>(platform.variant.back() - '0');
}

}  // namespace detail

/// How well something made for `offered` runs on `wanted`: 0 is exact, higher is worse, empty is
/// not at all. arm/v7 runs v6 and v5; amd64/v3 runs v2 and v1; arm64/v9 runs v8.
[[nodiscard]] inline std::optional<unsigned> platform_distance(Platform const& wanted,
                                                               Platform const& offered) {
  auto const a = wanted.normalised();
  auto const b = offered.normalised();
  if (a == b) return 0;
  if (a.os != b.os || a.architecture != b.architecture) return std::nullopt;
  if (a.architecture != "arm" && a.architecture != "arm64" && a.architecture != "amd64") {
    return std::nullopt;
  }
  auto const most = detail::variant_number(a);
  auto const has = detail::variant_number(b);
  if (!most || !has || *has > *most) return std::nullopt;
  auto const least = a.architecture == "arm" ? 5U : a.architecture == "arm64" ? 8U : 1U;
  if (*has < least) return std::nullopt;
  return *most - *has;
}

/// Points at a blob or a manifest. @spec{OCI image-spec 1.1, descriptor.md}
struct Descriptor {
  std::string media_type;
  Digest digest;
  std::uint64_t size = 0;  ///< bytes
  std::string artifact_type;
  std::optional<Platform> platform;  ///< as written, not normalised
  std::map<std::string, std::string> annotations;
  std::vector<std::string> urls;  ///< other places of a foreign layer

  /// An annotation's value, or nothing.
  [[nodiscard]] std::optional<std::string_view> annotation(std::string const& key) const {
    auto const found = annotations.find(key);
    if (found == annotations.end()) return std::nullopt;
    return found->second;
  }

  friend bool operator==(Descriptor const&, Descriptor const&) = default;
};

}  // namespace erofs_oci
