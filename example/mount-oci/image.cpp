// SPDX-License-Identifier: Apache-2.0
#include "image.hpp"

#include <optional>
#include <utility>

#include <erofs_oci/core/any_source.hpp>
#include <erofs_oci/image/open_layers.hpp>
#include <erofs_oci/source/local.hpp>

#include "indexing.hpp"

namespace mount_oci {
namespace {

using erofs_oci::AnySource;
using erofs_oci::DeviceImage;
using erofs_oci::fail;
using erofs_oci::LayerSources;
using erofs_oci::Local;

Result<std::optional<AnySource>> open_part(std::string const& path, char const* word) {
  if (path.empty()) return std::optional<AnySource>();
  auto file = Local::open(path);
  if (!file) return fail(std::move(file).error(), word);
  return std::optional(AnySource(*std::move(file)));
}

/// One layer, with the index that the user gives.
Result<DeviceImage> open_with_index(ImageOptions const& options, Log const& log) {
  // The files first: they cost no request.
  auto tarindex = open_part(options.tarindex, "oci.tarindex");
  if (!tarindex) return fail(std::move(tarindex).error());
  auto zinfo = open_part(options.zinfo, "oci.zinfo");
  if (!zinfo) return fail(std::move(zinfo).error());
  auto const found = find_image(options, log);
  if (!found) return fail(found.error());
  if (found->layers.size() != 1) {
    return fail(Errc::invalid_argument,
                options.image + ": the image has " + std::to_string(found->layers.size()) +
                    " layers (0.." + std::to_string(found->layers.size() - 1) +
                    "), and an index is of one: name it with oci.layer or oci.blob");
  }
  auto const& layer = found->layers.front();
  auto image = erofs_oci::open_image(
      {AnySource(layer.blob), *std::move(tarindex), *std::move(zinfo), layer.descriptor.media_type},
      read_options(options));
  if (!image) return fail(std::move(image).error(), options.image);
  return image;
}

}  // namespace

Result<bool> is_native(FoundImage const& found) {
  if (found.layers.size() != 1) return false;
  auto const& layer = found.layers.front();
  auto native = erofs_oci::is_erofs_layer(layer.layer());
  if (!native) return fail(std::move(native).error(), found.name);
  return native;
}

Result<DeviceImage> open_source(ImageOptions const& options, Log const& log,
                                ExitOnSignal const* guard) {
  if (has_own_index(options)) return open_with_index(options, log);
  auto found = find_image(options, log);
  if (!found) return fail(found.error());
  auto const native = is_native(*found);
  if (!native) return fail(native.error());
  if (*native) {
    auto const& layer = found->layers.front();
    auto image = erofs_oci::open_image({AnySource(layer.blob), {}, {}, layer.descriptor.media_type},
                                       read_options(options));
    if (!image) return fail(std::move(image).error(), options.image);
    return image;
  }
  auto indexed = index_image(*found, options, log, guard);
  if (!indexed) return fail(std::move(indexed).error(), options.image);
  auto merged = erofs_oci::open_layers(found->image_layers(), indexed->indexes,
                                       read_options(options), indexed->options(log));
  if (!merged) return fail(std::move(merged).error(), options.image);
  return std::move(merged->device);
}

Result<ImageReader> open_reader(ImageOptions const& options, Log const& log,
                                ExitOnSignal const* guard) {
  auto image = open_source(options, log, guard);
  if (!image) return fail(std::move(image).error());
  auto reader = ImageReader::open(std::move(image->source));
  if (!reader) return fail(std::move(reader).error(), options.image);
  return reader;
}

}  // namespace mount_oci
