// SPDX-License-Identifier: Apache-2.0
/// @file
/// Files of the layer cache: whatever they hold, and whatever they are called, what is read are the
/// blob's bytes, or bytes whose digests are right.
#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <erofs_oci/cache/disk_cached.hpp>
#include <erofs_oci/cache/document_store.hpp>
#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/endian.hpp>
#include <erofs_oci/digest/sha256.hpp>
#include <erofs_oci/source/memory.hpp>

#include "input.hpp"

using namespace erofs_oci;

namespace {

void put_file(std::string const& path, std::span<std::byte const> bytes) {
  UniqueFd const fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  fuzz::require(fd && write_full(fd.get(), bytes).has_value());
}

/// The table and the chunks of a file as the input has them. The fuzzer cannot guess SHA-256: the
/// digests of the chunks in `mended` are put right.
void put_blob(std::string const& path, BlobName const& name, BlobLayout const& layout,
              std::span<std::byte const> bytes, std::uint8_t mended) {
  Bytes file(static_cast<std::size_t>(layout.data_at(layout.chunks())));
  auto const table = std::span(file).subspan(
      BlobLayout::page, static_cast<std::size_t>(layout.chunks() * BlobLayout::entry));
  auto const first = bytes.first(std::min(bytes.size(), table.size()));
  std::ranges::copy(first, table.begin());
  auto const rest = bytes.subspan(first.size());
  auto const data = std::span(file).subspan(static_cast<std::size_t>(layout.data_at(0)));
  std::ranges::copy(rest.first(std::min(rest.size(), data.size())), data.begin());
  for (std::uint64_t i = 0; i < layout.chunks(); ++i) {
    if ((mended >> (i % 8) & 1) == 0) continue;
    std::array<std::byte, 8> number{};
    store_le(i, std::span(number));
    Sha256 hash;
    hash.update(name.digest.bytes());
    hash.update(number);
    hash.update(
        std::span(file).subspan(static_cast<std::size_t>(layout.data_at(i)), layout.bytes_in(i)));
    std::ranges::copy(hash.finish().bytes(),
                      file.begin() + static_cast<std::ptrdiff_t>(BlobLayout::entry_at(i)));
  }
  file.resize(std::min(file.size(), static_cast<std::size_t>(layout.data_at(0)) + rest.size()));
  put_file(path, file);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  static fuzz::Scratch const scratch;
  static auto const root = scratch.path() + "/cache";
  static auto const cache = BlobCache::open(root, {.limit = 1 << 20, .chunk = 64});
  static auto const documents = DocumentStore::open(root);
  fuzz::require(cache && documents);
  fuzz::Input input(data, size);

  auto const text = input.text();
  auto const parsed = BlobName::parse(text);
  fuzz::require(!parsed || parsed->text() == text);

  auto const mended = input.byte();
  Bytes blob(input.number<std::uint16_t>() % 1024, std::byte{7});
  BlobName const name{digest_of(blob), blob.size()};
  auto const rest = to_bytes(input.rest());
  BlobLayout const layout{blob.size(), 64};
  put_blob((*cache)->path() + '/' + name.text(), name, layout, rest, mended);
  static_cast<void>((*cache)->look_at(name));
  DiskCached<Memory> const source(Memory(blob), {*cache, name});
  for (std::uint64_t i = 0; i < layout.chunks(); ++i) {
    Bytes out(layout.bytes_in(i));
    auto const n = source.read_at(i * 64, out);
    fuzz::require(n && *n == out.size());
    if ((mended >> (i % 8) & 1) == 0)
      fuzz::require(std::ranges::all_of(out, [](auto b) { return b == std::byte{7}; }));
  }
  static_cast<void>((*cache)->verify(name));
  (*cache)->remove(name);

  auto const digest = digest_of(blob);
  put_file(root + "/documents-1/sha256-" + digest.hex(), rest);
  auto const document = (*documents)->find(digest);
  fuzz::require(!document || digest_of(document->body) == digest);
  auto const tag = digest_of(as_bytes("host/app:v1"));
  put_file(root + "/tags-1/" + tag.hex(), rest);
  auto const found = (*documents)->find_tag("host/app:v1");
  if (found) fuzz::require(as_text(rest) == "host/app:v1\n" + found->to_string() + "\n");
  return 0;
}
