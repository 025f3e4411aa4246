// SPDX-License-Identifier: Apache-2.0
/// @file
/// Finds the layers of an image by its name, in a registry, a layout or a file.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include <erofs_oci/combinator/ref.hpp>
#include <erofs_oci/core/any_source.hpp>
#include <erofs_oci/http/transport.hpp>
#include <erofs_oci/image/found_image.hpp>
#include <erofs_oci/image/remote_index.hpp>
#include <erofs_oci/oci/auth.hpp>
#include <erofs_oci/oci/hosts_toml.hpp>
#include <erofs_oci/oci/registry.hpp>
#include <erofs_oci/recovery/record.hpp>

#include "options.hpp"
#include "process.hpp"

namespace mount_oci {

using erofs_oci::FoundImage;
using erofs_oci::FoundLayer;
using erofs_oci::SociLayer;
using erofs_oci::SociLookup;

/// The credentials: for `registry` from the options, else, and for its mirrors, from docker's and
/// podman's files; or by `options.access`, if that says how. Reads oci.password_file, and else
/// nothing before it is asked.
/// @error{as erofs_oci::read_password_file(), as there}
[[nodiscard]] Result<erofs_oci::CredentialLookup> credentials_of(std::string const& registry,
                                                                 ImageOptions const& options);

/// The first file of docker's and podman's that this process can read, absolute; empty: none.
[[nodiscard]] std::string find_config(ImageOptions const& options);

/// The hosts that are asked for images of a registry: in `mirrors`, in order, those of oci.mirror
/// and of hosts.toml, then `server`, which is always set; or `options.access.hosts`, if that is
/// set.
/// @param log  is told what hosts.toml says
/// @error{as erofs_oci::find_hosts() and erofs_oci::RegistryHost::parse(), as they say}
[[nodiscard]] Result<erofs_oci::HostsFile> hosts_of(std::string const& registry,
                                                    ImageOptions const& options, Log const& log);

/// How a registry is spoken to.
struct RegistryAccess {
  erofs_oci::RegistryOptions settings;
  std::function<Result<erofs_oci::HttplibTransport>(erofs_oci::RegistryHost const&)> transport_of;
};

/// What the options and hosts.toml say of a registry. Makes no request.
/// @error{as credentials_of() and hosts_of(), as they say}
[[nodiscard]] Result<RegistryAccess> registry_access(std::string const& registry,
                                                     ImageOptions const& options, Log const& log);

/// Whose indexes of layers the options take.
[[nodiscard]] erofs_oci::IndexTrust index_trust(ImageOptions const& options);

/// Finds the image that the options name, with the layer that they name, or with all layers.
/// @error{Errc::invalid_argument, a reference\, path or choice of layer that means nothing}
/// @error{as the sources say}
[[nodiscard]] Result<FoundImage> find_image(ImageOptions const& options, Log const& log);

/// The platforms of an image in a registry, each once, in the order of its index; one that is empty
/// if there is no index.
/// @error{as erofs_oci::BasicRegistry::document(), as there}
[[nodiscard]] Result<std::vector<std::string>> platforms_of(ImageOptions const& options,
                                                            Log const& log);

/// Opens a file that a record names.
/// @error{Errc::mismatch, it is another file than it was}
/// @error{as open_unchanged(), as there}
[[nodiscard]] Result<erofs_oci::AnySource> open_recorded_file(erofs_oci::LocalFile const& file);

/// Finds the layers of a record, without a tag or a manifest and, in a registry, without a request.
/// @param options  how to reach them
/// @error{Errc::mismatch, a file is another one than it was}
/// @error{as the sources say}
[[nodiscard]] Result<FoundImage> find_again(erofs_oci::RecordImage const& image,
                                            ImageOptions const& options, Log const& log);

}  // namespace mount_oci
