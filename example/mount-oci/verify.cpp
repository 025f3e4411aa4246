// SPDX-License-Identifier: Apache-2.0
#include "verify.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <vector>

#include <erofs_oci/combinator/ref.hpp>
#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/digest/sha256.hpp>
#include <erofs_oci/erofs/load.hpp>
#include <erofs_oci/erofs/reader.hpp>
#include <erofs_oci/gzip/decoder.hpp>
#include <erofs_oci/image/open_layers.hpp>
#include <erofs_oci/tar/decoder.hpp>
#include <erofs_oci/tarindex/layer.hpp>

#include "image.hpp"

namespace mount_oci {
namespace {

namespace erofs = erofs_oci::erofs;
using erofs_oci::AnySource;
using erofs_oci::Bytes;
using erofs_oci::fail;

// ---------------------------------------------------------------- trees

/// Extents that continue each other are one.
std::vector<erofs::Extent> joined(erofs::Regular const& file) {
  std::vector<erofs::Extent> result;
  for (auto const& extent : file.extents) {
    auto* const last = result.empty() ? nullptr : &result.back();
    if (last != nullptr && last->device == extent.device &&
        last->file_offset + last->length == extent.file_offset &&
        last->device_offset + last->length == extent.device_offset) {
      last->length += extent.length;
    } else {
      result.push_back(extent);
    }
  }
  return result;
}

/// The attributes that the image can hold, by name.
std::vector<erofs::Xattr> stored(std::vector<erofs::Xattr> xattrs) {
  std::erase_if(xattrs, [](auto const& xattr) { return !erofs::split_name(xattr.name); });
  std::ranges::sort(xattrs, {}, &erofs::Xattr::name);
  return xattrs;
}

/// Walks two trees side by side.
class TreeComparer {
 public:
  TreeComparer(erofs::Tree const& image, erofs::Tree const& tar) : image_(image), tar_(tar) {}

  /// What differs first, or nothing.
  [[nodiscard]] std::optional<std::string> run() {
    std::vector<Pair> todo{{"", erofs::root_id, erofs::root_id}};
    while (!todo.empty()) {
      auto const pair = std::move(todo.back());
      todo.pop_back();
      auto const [known, is_new] = partners_.try_emplace(pair.image, pair.tar);
      if (known->second != pair.tar) return pair.path + ": other hard links";
      if (!is_new) continue;
      if (auto what = compare(pair); !what.empty()) {
        return (pair.path.empty() ? "/" : pair.path) + ": " + what;
      }
      if (!queue_children(pair, todo)) return pair.path + ": other names in this directory";
    }
    return std::nullopt;
  }

 private:
  struct Pair {
    std::string path;
    erofs::NodeId image;
    erofs::NodeId tar;
  };

  std::string compare(Pair const& pair) const {
    auto const& a = image_[pair.image];
    auto const& b = tar_[pair.tar];
    if (a.kind != b.kind) return "another type";
    if (a.permissions != b.permissions) return "another mode";
    if (a.uid != b.uid || a.gid != b.gid) return "another owner";
    if (a.mtime != b.mtime) return "another time";
    if (stored(a.xattrs) != stored(b.xattrs)) return "other attributes";
    if (auto const* const file = a.regular()) {
      if (file->size != b.regular()->size) return "another size";
      if (joined(*file) != joined(*b.regular())) return "content from another place";
      if (file->stored != b.regular()->stored) return "other bytes in the index";
    } else if (auto const* const directory = a.directory()) {
      if (directory->opaque != b.directory()->opaque) return "another opaque mark";
    } else if (a.content != b.content) {
      return "another target or device number";
    }
    return {};
  }

  bool queue_children(Pair const& pair, std::vector<Pair>& todo) const {
    auto const* const a = image_[pair.image].directory();
    auto const* const b = tar_[pair.tar].directory();
    if (a == nullptr) return true;
    if (!std::ranges::equal(a->children, b->children, {}, &erofs::Children::value_type::first,
                            &erofs::Children::value_type::first)) {
      return false;
    }
    for (auto i = a->children.begin(), j = b->children.begin(); i != a->children.end(); ++i, ++j) {
      todo.push_back({pair.path + "/" + i->first, i->second, j->second});
    }
    return true;
  }

  erofs::Tree const& image_;
  erofs::Tree const& tar_;
  std::unordered_map<erofs::NodeId, erofs::NodeId> partners_;
};

// ---------------------------------------------------------------- bytes

/// Whether an error says that bytes are wrong, not that they cannot be had.
bool blames_bytes(Error const& error) {
  return error.code == Errc::corrupt || error.code == Errc::digest_mismatch ||
         error.code == Errc::truncated || error.code == Errc::mismatch;
}

/// Gets the decoded stream, builds the tree from it and compares the bytes.
class StreamComparer {
 public:
  /// @param packed  bytes of the blob
  StreamComparer(IndexToVerify const& index, std::uint64_t packed)
      : contents_(index.contents),
        builder_({.memory = std::make_shared<erofs_oci::ImageMemory>(index.budget, packed)}) {}

  Result<void> push(std::span<std::byte const> bytes) {
    auto const apply = [this](auto&& entry) { return builder_.apply(std::move(entry)); };
    hash_.update(bytes);
    EROFS_OCI_TRY(tar_.push(bytes, apply));
    while (!bytes.empty()) {
      auto const part = bytes.first(std::min(bytes.size(), buffer_.size()));
      if (!difference_) EROFS_OCI_TRY(compare(part));
      offset_ += part.size();
      bytes = bytes.subspan(part.size());
    }
    return {};
  }

  Result<erofs_oci::tarindex::Layer> finish() {
    auto const apply = [this](auto&& entry) { return builder_.apply(std::move(entry)); };
    EROFS_OCI_TRY(tar_.finish(apply));
    if (!difference_ && offset_ < contents_.size()) {
      difference_ = "the tar has " + std::to_string(offset_) + " bytes, by the index " +
                    std::to_string(contents_.size());
    }
    return std::move(builder_).finish();
  }

  [[nodiscard]] std::optional<std::string> const& difference() const noexcept {
    return difference_;
  }
  [[nodiscard]] erofs_oci::Digest digest() { return hash_.finish(); }

 private:
  /// An index of a ztoc ends with the last file; what follows, nobody reads.
  Result<void> compare(std::span<std::byte const> part) {
    auto const left = contents_.size() - std::min(contents_.size(), offset_);
    part = part.first(static_cast<std::size_t>(std::min<std::uint64_t>(part.size(), left)));
    auto const out = std::span(buffer_).first(part.size());
    auto const n = contents_.read_at(offset_, out);
    if (!n && !blames_bytes(n.error())) return fail(n.error());
    if (!n || *n < part.size() || !std::ranges::equal(part, out)) {
      difference_ = "other bytes in the tar from offset " + std::to_string(offset_) + " on" +
                    (n ? "" : ": " + n.error().message());
    }
    return {};
  }

  AnySource const& contents_;
  erofs_oci::tarindex::LayerBuilder builder_;
  erofs_oci::tar::Decoder tar_;
  erofs_oci::Sha256 hash_;
  std::uint64_t offset_ = 0;
  Bytes buffer_ = Bytes(256 * 1024);
  std::optional<std::string> difference_;
};

/// Decodes the blob for the comparer; passes a blob that is no gzip on as it is.
class Unpacker {
 public:
  explicit Unpacker(StreamComparer& comparer) : comparer_(comparer) {}

  Result<void> push(std::span<std::byte const> bytes) {
    if (start_.size() < magic.size()) {
      auto const n = std::min(bytes.size(), magic.size() - start_.size());
      start_.insert(start_.end(), bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(n));
      bytes = bytes.subspan(n);
      if (start_.size() < magic.size()) return {};
      packed_ = std::ranges::equal(start_, magic);
      EROFS_OCI_TRY(decode(start_));
    }
    return decode(bytes);
  }

  Result<void> finish() const {
    if (packed_ && !decoder_.may_end()) return fail(Errc::truncated, "gzip");
    return {};
  }

 private:
  static constexpr std::array magic{std::byte{0x1f}, std::byte{0x8b}};

  Result<void> decode(std::span<std::byte const> bytes) {
    if (!packed_) return comparer_.push(bytes);
    for (;;) {
      EROFS_OCI_TRY_ASSIGN(auto const step, decoder_.decode(bytes, out_));
      bytes = bytes.subspan(step.consumed);
      if (step.produced == 0 && bytes.empty()) return {};
      EROFS_OCI_TRY(comparer_.push(std::span(out_).first(step.produced)));
    }
  }

  StreamComparer& comparer_;
  Bytes start_;
  bool packed_ = false;
  erofs_oci::GzipDecoder<> decoder_;
  Bytes out_ = Bytes(256 * 1024);
};

/// Compares the pieces of a blob that comes front to back with their digests.
class PieceComparer {
 public:
  /// @param pieces  in the order of the blob; the first byte of one may be the last one of the one
  ///                before
  explicit PieceComparer(std::vector<erofs_oci::VerifiedChunk> const& pieces) : pieces_(pieces) {}

  void push(std::span<std::byte const> bytes) {
    if (bytes.empty()) return;
    auto const begin = offset_;
    offset_ += bytes.size();
    while (!wrong_ && next_ < pieces_.size() && pieces_[next_].begin < offset_) {
      auto const& piece = pieces_[next_];
      auto from = std::max(piece.begin, hashed_);
      if (from < begin) {  // the byte before, which was the end of another piece
        hash_.update({&last_, 1});
        from = begin;
      }
      hashed_ = std::max(from, std::min(piece.end, offset_));
      hash_.update(bytes.subspan(static_cast<std::size_t>(from - begin),
                                 static_cast<std::size_t>(hashed_ - from)));
      if (piece.end > offset_) break;
      hashed_ = 0;
      compare(piece);
      ++next_;
    }
    last_ = bytes.back();
  }

  [[nodiscard]] std::optional<std::string> finish() const {
    if (!wrong_ && next_ < pieces_.size()) return "pieces behind the end of the blob";
    return wrong_;
  }

 private:
  void compare(erofs_oci::VerifiedChunk const& piece) {
    if (hash_.finish() != piece.digest) {
      wrong_ = "another digest of bytes " + std::to_string(piece.begin) + " to " +
               std::to_string(piece.end) + " of the blob";
    }
    hash_ = erofs_oci::Sha256();
  }

  std::vector<erofs_oci::VerifiedChunk> const& pieces_;
  std::size_t next_ = 0;
  std::uint64_t offset_ = 0;
  std::uint64_t hashed_ = 0;  // the end of what was hashed of the next piece; 0: nothing was
  std::byte last_{};          // before `offset_`
  erofs_oci::Sha256 hash_;
  std::optional<std::string> wrong_;
};

/// Compares the files by the index with those of the tar.
Result<std::optional<std::string>> compare_files(IndexToVerify const& index,
                                                 erofs_oci::tarindex::Layer const& tar) {
  using erofs_oci::Ref;
  auto const image = [&]() -> Result<erofs::Tree> {
    EROFS_OCI_TRY_ASSIGN(auto const reader,
                         erofs::Reader<Ref<AnySource>>::open(Ref(index.tarindex)));
    return erofs::load_tree(reader, erofs::Marks::trusted, index.budget.trees());
  }();
  if (!image && blames_bytes(image.error())) return "tarindex: " + image.error().message();
  if (!image) return fail(image.error(), "tarindex");
  auto found = TreeComparer(*image, tar.tree).run();
  auto const size = index.contents.size();
  for (erofs::NodeId id = 0; !found && id < tar.tree.size(); ++id) {
    auto const* const file = tar.tree[id].regular();
    auto const is_beyond = [&](erofs::Extent const& extent) {
      return extent.device != 0 && extent.device_offset + extent.length > size;
    };
    if (file != nullptr && std::ranges::any_of(file->extents, is_beyond)) {
      found = "data of files behind the " + std::to_string(size) + " bytes that the index is of";
    }
  }
  using erofs_oci::tarindex::DanglingLink;
  auto const names = [](DanglingLink const& link) { return std::tie(link.path, link.target); };
  if (!found && index.links && !std::ranges::equal(*index.links, tar.dangling, {}, names, names)) {
    found = "other hard links to files of lower layers";
  }
  return found;
}

}  // namespace

Result<IndexToVerify> index_to_verify(FoundLayer const& layer, erofs_oci::StoredLayer const& index,
                                      ImageOptions const& options) {
  EROFS_OCI_TRY_ASSIGN(auto contents,
                       erofs_oci::open_contents(layer.layer(), index, read_options(options)));
  return IndexToVerify{AnySource(erofs_oci::Ref(index.tarindex)), std::move(contents),
                       index.dangling, index.index.index.chunks(), options.budget()};
}

Result<LayerComparison> compare_layer(AnySource const& blob, erofs_oci::DigestAlgorithm algorithm,
                                      IndexToVerify const& index, std::stop_token const& stop) {
  LayerComparison result;
  StreamComparer comparer(index, blob.size());
  Unpacker unpacker(comparer);
  erofs_oci::Hasher hash(algorithm);
  PieceComparer pieces(index.pieces);
  Result<void> inside;
  EROFS_OCI_TRY(blob.stream(0, blob.size(), [&](std::span<std::byte const> piece) {
    if (stop.stop_requested()) return false;
    hash.update(piece);
    pieces.push(piece);
    if (inside && !comparer.difference()) inside = unpacker.push(piece);
    return inside || blames_bytes(inside.error());  // the digest is wanted in any case
  }));
  if (stop.stop_requested()) return fail(Errc::stopping, "verify");
  result.blob = hash.finish();
  result.wrong_piece = pieces.finish();
  auto const compare_rest = [&]() -> Result<std::optional<std::string>> {
    EROFS_OCI_TRY(inside);
    if (comparer.difference()) return comparer.difference();
    EROFS_OCI_TRY(unpacker.finish());
    EROFS_OCI_TRY_ASSIGN(auto const tar, comparer.finish());
    if (comparer.difference()) return comparer.difference();
    return compare_files(index, tar);
  };
  auto difference = compare_rest();
  if (!difference && !blames_bytes(difference.error())) return fail(std::move(difference).error());
  result.difference = difference ? *std::move(difference)
                                 : "the layer cannot be unpacked: " + difference.error().message();
  if (!result.difference) result.contents = comparer.digest();
  return result;
}

}  // namespace mount_oci
