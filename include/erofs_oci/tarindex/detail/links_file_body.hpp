// SPDX-License-Identifier: Apache-2.0
/// @file
/// What tarindex/links_file.hpp only declares.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/config.hpp>
#include <erofs_oci/core/endian.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/tarindex/layer.hpp>
#include <erofs_oci/tarindex/links_file.hpp>

namespace erofs_oci::tarindex {

EROFS_OCI_BODY Bytes encode_links(std::span<DanglingLink const> links) {
  Bytes file;
  if (links.empty()) return file;
  append_le(file, links.size(), 8);
  for (auto const& link : links) {
    append_le(file, link.header_offset, 8);
    append_le(file, link.path.size(), 4);
    append_le(file, link.target.size(), 4);
    for (auto const* const text : {&link.path, &link.target}) {
      auto const bytes = as_bytes(*text);
      file.insert(file.end(), bytes.begin(), bytes.end());
    }
  }
  return file;
}

EROFS_OCI_BODY Result<std::vector<DanglingLink>> decode_links(std::span<std::byte const> file) {
  std::vector<DanglingLink> links;
  if (file.empty()) return links;
  auto const whole = file.size();
  auto const bad = [&] {
    return fail(Errc::corrupt, "links file, offset " + std::to_string(whole - file.size()));
  };
  if (file.size() < 8) return bad();
  auto const count = load_le<std::uint64_t>(file.first<8>());
  file = file.subspan(8);
  for (std::uint64_t i = 0; i < count; ++i) {
    if (file.size() < 16) return bad();
    auto const offset = load_le<std::uint64_t>(file.first<8>());
    std::uint64_t const path = load_le<std::uint32_t>(file.subspan<8, 4>());
    std::uint64_t const target = load_le<std::uint32_t>(file.subspan<12, 4>());
    if (path + target > file.size() - 16) return bad();
    auto const texts = as_text(file.subspan(16, static_cast<std::size_t>(path + target)));
    links.push_back({std::string(texts.substr(0, static_cast<std::size_t>(path))),
                     std::string(texts.substr(static_cast<std::size_t>(path))), offset});
    file = file.subspan(16 + texts.size());
  }
  if (!file.empty() || count == 0) return bad();
  return links;
}

}  // namespace erofs_oci::tarindex
