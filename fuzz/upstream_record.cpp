// SPDX-License-Identifier: Apache-2.0
/// @file
/// upstream_record: any bytes are one of mount.erofs's records or an error, and what is accepted
/// holds nothing that could end a field, a line or a directory.
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string>

#include <erofs_oci/core/bytes.hpp>

#include "../example/mount-oci/upstream_record.hpp"

using namespace mount_oci;

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  auto const input = erofs_oci::as_text(std::as_bytes(std::span(data, size)));
  auto const record = parse_upstream_record(input);
  if (!record) {
    if (!record.error().code) std::abort();  // an error must not look like a success
    return 0;
  }
  if (input.back() != '\n') std::abort();
  for (auto const* path : {&record->path, &record->tarindex, &record->zinfo}) {
    if (!path->empty() && (path->front() != '/' || path->find('\n') != std::string::npos)) {
      std::abort();
    }
    if ((*path + "/").find("/../") != std::string::npos) std::abort();
  }
  for (auto const* text : {&record->image, &record->platform, &record->endpoint}) {
    if (text->find_first_of(" \n\r\t\"'\\") != std::string::npos) std::abort();
  }
  using Kind = UpstreamRecord::Kind;
  if (record->kind == Kind::oci_layer && !record->layer) std::abort();
  if ((record->kind == Kind::native_blob || record->kind == Kind::tarindex_blob) && !record->blob) {
    std::abort();
  }
  return 0;
}
