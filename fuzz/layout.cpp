// SPDX-License-Identifier: Apache-2.0
/// @file
/// An OCI layout: any index.json and manifest are refused, or give an image whose manifest is the
/// one that the digest names; a tag leads to no other one. Input: a tag, two bytes with the
/// length of index.json, index.json, the manifest. `@` in index.json stands for the manifest's
/// digest, `0` as a size for its size.
#include <cstdint>
#include <fstream>
#include <string>
#include <string_view>
#include <utility>

#include <sys/stat.h>
#include <unistd.h>

#include <erofs_oci/digest/sha256.hpp>
#include <erofs_oci/oci/layout.hpp>

#include "input.hpp"

using namespace erofs_oci;

namespace {

void write(std::string const& path, std::string_view text) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << text;
}

void replace_all(std::string& text, std::string_view what, std::string const& by) {
  constexpr std::size_t most = 1 << 20;
  for (auto at = text.find(what); at != text.npos && text.size() < most;
       at = text.find(what, at + by.size())) {
    text.replace(at, what.size(), by);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  static fuzz::Scratch const directory;
  auto const& root = directory.path();
  for (auto const* const part : {"/blobs", "/blobs/sha256"}) ::mkdir((root + part).c_str(), 0700);

  fuzz::Input input(data, size);
  auto const tag = input.text();
  auto index = std::string(as_text(input.bytes(input.number<std::uint16_t>())));
  auto const manifest = input.rest_as_text();
  auto const digest = digest_of(as_bytes(manifest));
  replace_all(index, "@", digest.to_string());
  replace_all(index, "\"size\":0", "\"size\":" + std::to_string(manifest.size()));
  write(root + "/oci-layout", R"({"imageLayoutVersion":"1.0.0"})");
  write(root + "/index.json", index);
  auto const blob = root + "/blobs/sha256/" + digest.hex();
  write(blob, manifest);

  if (auto const layout = Layout::open(root)) {
    auto const document = layout->document(tag);
    fuzz::require(!document || document->digest == digest);
    auto const referrers = layout->referrers(digest, media_type::index_artifact);
    fuzz::require(referrers && referrers->size() <= layout->index().manifests.size());
    auto const image = layout->resolve(tag, Platform::host());
    if (image) {
      fuzz::require(image->digest == digest);
      for (auto const& layer : image->manifest.layers) {
        auto const found = layout->blob(layer);
        fuzz::require(!found || (layer.digest == digest && found->size() == manifest.size()));
      }
    }
  }
  ::unlink(blob.c_str());
  return 0;
}
