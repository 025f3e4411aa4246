// SPDX-License-Identifier: Apache-2.0
#include "image_config.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/digest/sha256.hpp>
#include <erofs_oci/oci/json.hpp>
#include <erofs_oci/oci/manifest.hpp>

namespace mount_oci {

Result<std::optional<erofs_oci::json::Value>> read_config_of(FoundImage const& found) {
  if (!found.config || !found.config_at) return std::optional<erofs_oci::json::Value>();
  erofs_oci::Bytes bytes(static_cast<std::size_t>(
      std::min<std::uint64_t>(found.config->size(), erofs_oci::max_document_size)));
  EROFS_OCI_TRY(read_exact(*found.config, 0, bytes));
  auto const digest = erofs_oci::digest_of(bytes, found.config_at->digest.algorithm());
  if (digest != found.config_at->digest) {
    return erofs_oci::fail(Errc::digest_mismatch, found.config_at->digest.to_string());
  }
  EROFS_OCI_TRY_ASSIGN(auto config, erofs_oci::json::parse(bytes, "configuration"));
  return std::optional(std::move(config));
}

Result<std::vector<std::string>> diff_ids_of(FoundImage const& found) {
  EROFS_OCI_TRY_ASSIGN(auto const config, read_config_of(found));
  auto const* const rootfs = config ? erofs_oci::json::find(*config, "rootfs") : nullptr;
  if (rootfs == nullptr) return std::vector<std::string>();
  return erofs_oci::json::text_list(*rootfs, "diff_ids");
}

}  // namespace mount_oci
