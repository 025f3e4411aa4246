// SPDX-License-Identifier: Apache-2.0
/// @file
/// What image/found_image.hpp only declares.
#pragma once

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include <erofs_oci/combinator/ref.hpp>
#include <erofs_oci/core/any_source.hpp>
#include <erofs_oci/core/config.hpp>
#include <erofs_oci/core/function_ref.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/digest/digest.hpp>
#include <erofs_oci/digest/source_digest.hpp>
#include <erofs_oci/image/found_image.hpp>
#include <erofs_oci/image/image_name.hpp>
#include <erofs_oci/image/index_layers.hpp>
#include <erofs_oci/oci/descriptor.hpp>
#include <erofs_oci/oci/layout.hpp>
#include <erofs_oci/oci/reference.hpp>
#include <erofs_oci/oci/registry.hpp>
#include <erofs_oci/source/http_transport.hpp>
#include <erofs_oci/source/local.hpp>

namespace erofs_oci {

EROFS_OCI_BODY std::vector<ImageLayer> FoundImage::image_layers() const {
  std::vector<ImageLayer> result;
  for (auto const& layer : layers) result.push_back(layer.layer());
  return result;
}

EROFS_OCI_BODY Result<std::vector<std::size_t>> choose_layers(std::vector<Descriptor> const& layers,
                                                              LayerChoice const& choice) {
  if (choice.digest) {
    auto const found = std::ranges::find(layers, *choice.digest, &Descriptor::digest);
    if (found == layers.end()) {
      return fail(Errc::not_found,
                  "layer digest " + choice.digest->to_string() + " not found in image layers");
    }
    return std::vector{static_cast<std::size_t>(found - layers.begin())};
  }
  if (choice.number) {
    if (*choice.number < layers.size()) return std::vector{std::size_t{*choice.number}};
    auto const last = std::to_string(layers.empty() ? 0 : layers.size() - 1);
    return fail(Errc::invalid_argument, "layer index " + std::to_string(*choice.number) +
                                            " out of range (0.." + last + ")");
  }
  if (choice.first && (*choice.first == 0 || *choice.first > layers.size())) {
    return fail(Errc::invalid_argument, "the first " + std::to_string(*choice.first) +
                                            " layers of " + std::to_string(layers.size()));
  }
  std::vector<std::size_t> all(choice.first ? *choice.first : layers.size());
  std::iota(all.begin(), all.end(), std::size_t{0});
  return all;
}

EROFS_OCI_BODY Result<FoundImage> find_in_layout(ImageName const& name, Platform const& platform,
                                                 LayerChoice const& choice) {
  EROFS_OCI_TRY_ASSIGN(auto const layout, Layout::open(name.path));
  EROFS_OCI_TRY_ASSIGN(auto const image, layout.resolve(name.wanted, platform));
  return detail::found_image(image, choice, [&](Descriptor const& at) -> Result<AnySource> {
    EROFS_OCI_TRY_ASSIGN(auto blob, layout.blob(at));
    return AnySource(std::move(blob));
  });
}

EROFS_OCI_BODY Result<FoundImage> find_file(std::string const& path) {
  EROFS_OCI_TRY_ASSIGN(auto file, Local::open(path));
  FoundImage found;
  Descriptor descriptor;
  descriptor.size = file.size();
  found.layers.push_back({0, std::move(descriptor), Shared(AnySource(std::move(file)))});
  return found;
}

EROFS_OCI_BODY Result<FoundImage> find_named(
    std::string const& name, LayerChoice const& choice, std::string const& platform,
    FunctionRef<Result<FoundImage>(Reference reference, Platform const& platform)> in_registry) {
  auto const parsed = ImageName::parse(name);
  if (parsed.place == ImagePlace::file) {
    if (choice.digest || choice.number || choice.first) {
      return fail(
          Errc::invalid_argument,
          "a file is one layer: oci.blob, oci.layer and oci.first_layers cannot choose in it");
    }
    return find_file(parsed.path);
  }
  EROFS_OCI_TRY_ASSIGN(auto const wanted,
                       platform.empty() ? Platform::host() : Platform::parse(platform));
  if (parsed.place == ImagePlace::layout) return find_in_layout(parsed, wanted, choice);
  EROFS_OCI_TRY_ASSIGN(auto reference, Reference::parse(parsed.path));
  return in_registry(std::move(reference), wanted);
}

EROFS_OCI_BODY Result<void> find_digests(FoundImage& found) {
  for (auto& layer : found.layers) {
    if (layer.descriptor.digest != Digest()) continue;
    EROFS_OCI_TRY_ASSIGN(layer.descriptor.digest, digest_of_source(layer.blob));
  }
  return {};
}

}  // namespace erofs_oci
