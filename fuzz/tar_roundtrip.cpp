// SPDX-License-Identifier: Apache-2.0
/// @file
/// Tar to index and back: what an image of a layer says of each regular file is what the last
/// member of that name said when the tar was read front to back. Any bytes; what is no tar has no
/// index.
///
/// The first byte chooses: bit 0 puts right checksums into all blocks; bit 1 leaves the layer
/// unpacked, else bits 2 to 5 are gzip's level and bit 6 asks for many small blocks.
///
/// The second reading is simple: names are keys, a file goes with its directory. Where symbolic
/// links lead a name elsewhere, or a whiteout or a link to a later member comes in, it looks no
/// further.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <erofs_oci/combinator/ref.hpp>
#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/memory_budget.hpp>
#include <erofs_oci/digest/sha256.hpp>
#include <erofs_oci/erofs/reader.hpp>
#include <erofs_oci/erofs/walk.hpp>
#include <erofs_oci/erofs/xattr.hpp>
#include <erofs_oci/image/open_layers.hpp>
#include <erofs_oci/source/memory.hpp>
#include <erofs_oci/tar/decoder.hpp>
#include <erofs_oci/tarindex/build.hpp>
#include <erofs_oci/testing/gzip_streams.hpp>
#include <erofs_oci/testing/tar_maker.hpp>

using namespace erofs_oci;

namespace {

void require(bool condition) {
  if (!condition) std::abort();
}

void seal_all(Bytes& archive) {
  for (std::size_t at = 0; at + 512 <= archive.size(); at += 512) {
    auto const begin = archive.begin() + static_cast<std::ptrdiff_t>(at);
    Bytes block(begin, begin + 512);
    if (tar::is_zero(block)) continue;
    testing::seal(block);
    std::ranges::copy(block, begin);
  }
}

/// The members in their order; nothing if it is no tar.
std::optional<std::vector<tar::Entry>> decode(Bytes const& archive) {
  std::vector<tar::Entry> entries;
  tar::Decoder decoder;
  auto const keep = [&](tar::Entry&& entry) -> Result<void> {
    entries.push_back(std::move(entry));
    return {};
  };
  if (!decoder.push(archive, keep) || !decoder.finish(keep)) return std::nullopt;
  return entries;
}

/// What is where once all members were extracted.
class Extracted {
 public:
  using Files = std::map<std::string, tar::Entry const*>;  // null: a directory without a member

  /// Empty where it would take more than names to tell.
  static std::optional<Files> of(std::vector<tar::Entry> const& entries) {
    Extracted extracted;
    for (auto const& entry : entries) {
      if (!extracted.apply(entry)) return std::nullopt;
    }
    return std::move(extracted.files_);
  }

 private:
  [[nodiscard]] bool apply(tar::Entry const& entry) {
    if (entry.dev_major > 0xfff || entry.dev_minor > 0xfffff) return false;
    auto const path = place(entry.path, true);
    if (!path) return false;
    if (path->empty()) return true;
    auto const* what = &entry;
    if (entry.type == tar::Type::hard_link) {
      auto const target = place(entry.link, false);
      auto const found = target ? files_.find(*target) : files_.end();
      if (found == files_.end() || is_directory(found->second)) return false;
      what = found->second;
    }
    auto const old = files_.find(*path);
    bool const both = old != files_.end() && is_directory(old->second) && is_directory(what);
    if (!both)
      std::erase_if(files_, [&](auto const& f) { return f.first.starts_with(*path + "/"); });
    files_[*path] = what;
    return true;
  }

  /// The name that a path means, with its directories made if they are missing; empty if one of
  /// them is something else.
  [[nodiscard]] std::optional<std::string> place(std::string_view text, bool make) {
    auto const parts = tarindex::normalised(text);
    std::string path;
    for (auto const& part : parts) {
      if (part.starts_with(".wh.") || part.size() > 255) return std::nullopt;
      if (!path.empty()) {
        auto const [at, fresh] = files_.try_emplace(path, nullptr);
        if (fresh && !make) files_.erase(at);
        if (fresh ? !make : !is_directory(at->second)) return std::nullopt;
      }
      path += "/" + std::string(part);
    }
    return path;
  }

  [[nodiscard]] static bool is_directory(tar::Entry const* entry) {
    return entry == nullptr || entry->type == tar::Type::directory;
  }

  Files files_;
};

using Reader = erofs::Reader<Ref<AnySource>>;
using Xattrs = std::map<std::string, Bytes>;

void check_xattrs(Reader const& reader, erofs::Inode const& inode, tar::Entry const& entry) {
  Xattrs expected;
  std::size_t bytes = 0;
  for (auto const& [name, value] : entry.xattrs) {
    if (erofs::split_name(name)) expected.emplace(name, value);
    bytes += name.size() + value.size();
    if (name.size() > 255 || value.size() > erofs::max_xattr_value) return;
  }
  if (bytes > erofs::max_xattr_area / 2) return;  // some may be left out
  auto const list = reader.xattrs(inode);
  require(list.has_value());
  Xattrs found;
  for (auto const& [name, value] : *list) found.emplace(name, value);
  require(found == expected && found.size() == list->size());
}

/// The file's first and last bytes, and those around each border of a hole.
void check_content(Reader const& reader, erofs::Inode const& inode, tar::Entry const& entry,
                   Bytes const& archive) {
  constexpr std::uint64_t most = 1 << 17;
  std::vector<std::uint64_t> starts{0};
  for (auto const& extent : entry.extents) starts.push_back(extent.file_offset);
  for (auto const start : starts) {
    auto const begin = start - std::min<std::uint64_t>(start, 600);
    Bytes expected(static_cast<std::size_t>(std::min(most, entry.size - begin)));
    for (auto const& [file_offset, tar_offset, length] : entry.extents) {
      auto const from = std::max(begin, file_offset);
      auto const to = std::min(begin + expected.size(), file_offset + length);
      if (from >= to) continue;
      auto const source =
          archive.begin() + static_cast<std::ptrdiff_t>(tar_offset + from - file_offset);
      std::copy_n(source, static_cast<std::ptrdiff_t>(to - from),
                  expected.begin() + static_cast<std::ptrdiff_t>(from - begin));
    }
    Bytes found(expected.size());
    auto const n = reader.read(inode, begin, found);
    require(n.has_value() && *n == found.size() && found == expected);
  }
}

void check_image(AnySource const& device, Extracted::Files const& files, Bytes const& archive,
                 bool all_xattrs) {
  auto const reader = Reader::open(Ref(device));
  require(reader.has_value());
  std::size_t regular = 0;
  auto const visit = [&](erofs::Visit const& at) {
    require(at.inode != nullptr && at.error == nullptr);
    if (!at.inode->is_regular()) return erofs::Step::enter;
    ++regular;
    auto const found = files.find(at.path);
    require(found != files.end() && found->second != nullptr);
    auto const& entry = *found->second;
    require(entry.type == tar::Type::regular);
    require((at.inode->mode() & 07777U) == entry.mode && at.inode->size() == entry.size);
    require(at.inode->record.uid == entry.uid && at.inode->record.gid == entry.gid);
    require(at.inode->mtime.seconds == entry.mtime.seconds &&
            at.inode->mtime.nanoseconds == entry.mtime.nanoseconds);
    if (all_xattrs) check_xattrs(*reader, *at.inode, entry);
    check_content(*reader, *at.inode, entry, archive);
    return erofs::Step::enter;
  };
  require(erofs::walk(*reader, visit).has_value());
  auto const wanted = std::ranges::count_if(files, [](auto const& file) {
    return file.second != nullptr && file.second->type == tar::Type::regular;
  });
  require(regular == static_cast<std::size_t>(wanted));
}

Bytes packed(Bytes const& archive, std::uint8_t choice) {
  if ((choice & 2) != 0) return archive;
  testing::MemberRecipe recipe{archive, std::min(choice >> 2 & 15, 9)};
  if ((choice & 64) != 0) recipe.flush_every = 700;
  return testing::gzip_member(recipe);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  if (size == 0) return 0;
  auto archive = to_bytes(std::as_bytes(std::span(data, size)).subspan(1));
  if ((data[0] & 1) != 0) seal_all(archive);
  auto const blob = packed(archive, data[0]);
  auto const encoding = tarindex::detail::encoding_of(blob);
  bool const gzip = encoding && *encoding == BlobEncoding::gzip;
  if (!encoding || gzip == ((data[0] & 2) != 0)) return 0;  // a tar that looks like something else

  tarindex::BuildOptions options;
  options.span_size = 64 << 10;
  options.layer.memory =
      std::make_shared<ImageMemory>(MemoryBudget{64 << 20}, std::uint64_t{1} << 40);
  auto built = tarindex::build_layer(Memory(blob), options);
  if (!built) return 0;
  auto const entries = decode(archive);
  require(entries.has_value());
  bool const all_xattrs = built->dropped_xattrs == 0;

  std::vector<StoredLayer> indexes;
  auto opened = opened_layer(*std::move(built));
  require(opened.has_value());
  indexes.push_back(*std::move(opened));
  std::vector<ImageLayer> layers;
  Descriptor descriptor;
  descriptor.digest = digest_of(blob);
  descriptor.size = blob.size();
  layers.push_back({std::move(descriptor), AnySource(Memory(blob))});
  auto const image = open_layers(std::move(layers), indexes);
  require(image.has_value());
  if (auto const files = Extracted::of(*entries)) {
    check_image(image->device.source, *files, archive, all_xattrs);
  }
  return 0;
}
