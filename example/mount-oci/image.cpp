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
using erofs_oci::Local;

Result<std::optional<AnySource>> open_part(std::string const& path, char const* word) {
  if (path.empty()) return std::optional<AnySource>();
  auto file = Local::open(path);
  if (!file) return fail(std::move(file).error(), word);
  return std::optional(AnySource(*std::move(file)));
}

/// One layer, as the bytes of a device.
Result<OpenedImage> open_layer(FoundImage const& found, OwnIndex index,
                               ImageOptions const& options) {
  auto const& layer = found.layers.front();
  auto const metadata = index.tarindex ? index.tarindex->size() : 0;
  auto image = erofs_oci::open_image({AnySource(layer.blob), std::move(index.tarindex),
                                      std::move(index.zinfo), layer.descriptor.media_type},
                                     read_options(options));
  if (!image) return fail(std::move(image).error(), options.image);
  return OpenedImage{*std::move(image), metadata};
}

Result<void> check_one_layer(FoundImage const& found, ImageOptions const& options) {
  if (found.layers.size() == 1) return {};
  return fail(Errc::invalid_argument,
              options.image + ": the image has " + std::to_string(found.layers.size()) +
                  " layers (0.." + std::to_string(found.layers.size() - 1) +
                  "), and an index is of one: name it with oci.layer or oci.blob");
}

}  // namespace

Result<bool> is_native(FoundImage const& found) {
  if (found.layers.size() != 1) return false;
  auto const& layer = found.layers.front();
  auto native = erofs_oci::is_erofs_layer(layer.layer());
  if (!native) return fail(std::move(native).error(), found.name);
  return native;
}

Result<OwnIndex> open_own_index(ImageOptions const& options) {
  auto tarindex = open_part(options.tarindex, "oci.tarindex");
  if (!tarindex) return fail(std::move(tarindex).error());
  auto zinfo = open_part(options.zinfo, "oci.zinfo");
  if (!zinfo) return fail(std::move(zinfo).error());
  return OwnIndex{*std::move(tarindex), *std::move(zinfo)};
}

Result<OpenedImage> open_found(FoundImage& found, OwnIndex index, ImageOptions const& options,
                               Log const& log, ExitOnSignal const* guard) {
  if (!index.empty()) {
    if (auto const ok = check_one_layer(found, options); !ok) return fail(ok.error());
    return open_layer(found, std::move(index), options);
  }
  auto const native = is_native(found);
  if (!native) return fail(native.error());
  if (*native) return open_layer(found, {}, options);
  auto indexed = index_image(found, options, log, guard);
  if (!indexed) return fail(std::move(indexed).error(), options.image);
  auto merged = erofs_oci::open_layers(found.image_layers(), indexed->indexes,
                                       read_options(options), indexed->options(log));
  if (!merged) return fail(std::move(merged).error(), options.image);
  return OpenedImage{std::move(merged->device), merged->metadata_size};
}

Result<DeviceImage> open_source(ImageOptions const& options, Log const& log,
                                ExitOnSignal const* guard) {
  auto index = open_own_index(options);  // the files first: they cost no request
  if (!index) return fail(std::move(index).error());
  auto found = find_image(options, log);
  if (!found) return fail(found.error());
  auto opened = open_found(*found, *std::move(index), options, log, guard);
  if (!opened) return fail(std::move(opened).error());
  return std::move(opened->device);
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
