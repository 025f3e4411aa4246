// SPDX-License-Identifier: Apache-2.0
#include "image_config.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/digest/sha256.hpp>
#include <erofs_oci/oci/json.hpp>
#include <erofs_oci/oci/manifest.hpp>

namespace mount_oci {

Result<std::vector<std::string>> diff_ids_of(FoundImage const& found) {
  std::vector<std::string> result;
  if (!found.config || !found.config_at) return result;
  erofs_oci::Bytes bytes(static_cast<std::size_t>(
      std::min<std::uint64_t>(found.config->size(), erofs_oci::max_document_size)));
  EROFS_OCI_TRY(read_exact(*found.config, 0, bytes));
  auto const digest = erofs_oci::digest_of(bytes, found.config_at->digest.algorithm());
  if (digest != found.config_at->digest) {
    return erofs_oci::fail(Errc::digest_mismatch, found.config_at->digest.to_string());
  }
  EROFS_OCI_TRY_ASSIGN(auto const config, erofs_oci::json::parse(bytes, "configuration"));
  auto const* const rootfs = erofs_oci::json::find(config, "rootfs");
  if (rootfs == nullptr) return result;
  return erofs_oci::json::text_list(*rootfs, "diff_ids");
}

}  // namespace mount_oci
