// SPDX-License-Identifier: Apache-2.0
/// @file
/// IndexStore: indexes of layers and images on the local disk, named by the content they are of.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/types.h>
#include <unistd.h>

#include <erofs_oci/core/any_source.hpp>
#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/digest/digest.hpp>
#include <erofs_oci/gzip/extra_checkpoints.hpp>
#include <erofs_oci/image/start_list.hpp>
#include <erofs_oci/source/local.hpp>
#include <erofs_oci/tarindex/build.hpp>
#include <erofs_oci/tarindex/index_file.hpp>

namespace erofs_oci {

/// A layer's indexes, opened and checked.
struct StoredLayer {
  OpenedIndex index;
  AnySource tarindex;  ///< EROFS image of the layer's tree
  std::vector<tarindex::DanglingLink> dangling;
  ExtraCheckpoints extra{};  ///< where reads have begun before
  std::string entry{};       ///< names it in its store: "read/sha256-HEX"; empty: it is in none
  /// Of an index that nobody has compared with the layer: SHA-256 of its index file, by which it is
  /// remembered. Empty: it was made by reading the layer, or was proved.
  std::optional<Digest> unproved{};
};

/// The indexes of a layer as files.
struct IndexFiles {
  Bytes index;     ///< see tarindex/index_file.hpp; names the other two by their digests
  Bytes tarindex;  ///< EROFS image of the layer's tree
  Bytes links;     ///< see tarindex/links_file.hpp; empty: there are none
};

/// What was built, as files.
[[nodiscard]] Result<IndexFiles> index_files(tarindex::BuiltLayer const& built);

/// The files of indexes that are open. The same indexes give the same bytes, as long as zlib is the
/// same.
/// @error{as the sources of `layer`, as they say}
[[nodiscard]] Result<IndexFiles> index_files(StoredLayer const& layer);

namespace detail {

/// A file of an entry.
struct StoreFile {
  char const* name;
  std::span<std::byte const> bytes;
};

}  // namespace detail

/// How large a store gets.
struct StoreLimit {
  /// What happens to an entry that would make the store larger than `bytes`.
  enum class Full : std::uint8_t {
    prune,   ///< those that were unused longest make room
    refuse,  ///< it is refused
  };
  std::uint64_t bytes = std::uint64_t{16} << 30;
  Full full = Full::prune;
};

/// What becomes of an image's claim that was refuted.
enum class Refuted : std::uint8_t {
  skipped,  ///< it counts as not there
  taken,    ///< it is found: for a mount that began with it, whose reads fail
};

/// What IndexStore::prune() keeps.
struct StoreKeep {
  std::optional<std::uint64_t> bytes{};        ///< at most so many; empty: any number
  std::optional<std::chrono::seconds> used{};  ///< what was used within that time; empty: any time
};

/// An entry that was removed.
struct PrunedEntry {
  std::string name;         ///< "read/sha256-HEX"
  std::uint64_t bytes = 0;  ///< of its files
};

/// A directory of indexes:
/// ```
/// read/sha256-HEX/{index,tarindex[,links][,checkpoints]}
///                                            made by reading the blob, whose digest was right
/// claimed/sha256-IMAGE.sha256-HEX/{...[,proved]}
///                                            the same by the word of the image with that manifest
/// refuted/sha256-HEX.sha256-INDEX/reason     that index file was compared with the blob, and lies
/// images/KEY/{image,digest[,verity]}         merged, of the trees that KEY is made from
/// starts/KEY/list                            what mounts of the layers that KEY names needed first
/// tmp/                                       what is being written
/// ```
/// A claim counts for the image that makes it and for no other: nobody has compared it with the
/// layer, which other images may share. Once somebody has, it is either put under read/, too, or
/// refuted. prune() removes what was refuted by its age alone. An entry is written under tmp/,
/// synced, and put in place by one rename: at any instant it is whole or not there. A second writer
/// of the same entry finds the first one's and drops its own. An entry whose bytes are not those
/// that were written is removed and counts as not there. The time of an entry's directory is that
/// of its last use; its files are locked (flock(2), shared) while they are open.
///
/// @par Thread safety
/// All const members, from any thread and any number of processes.
class IndexStore {
 public:
  /// Opens the store, or makes it, for its owner alone (0700). What was left half written more than
  /// a day ago goes, and so do layers/, whose entries did not tell claims from what was read.
  /// @param owner  whose it is, and will be all that is kept there; of another user than this one,
  ///               only root can open it. Default: this user's
  /// @error{an errno, as mkdir(2); EPERM if another user owns the directory or may write to it}
  [[nodiscard]] static Result<IndexStore> open(std::string root, StoreLimit limit = {},
                                               uid_t owner = ::geteuid());

  /// Where a user's store is unless something else is asked for: /var/lib/erofs_oci for root, else
  /// `$XDG_CACHE_HOME/erofs_oci` or `$HOME/.cache/erofs_oci`.
  /// @error{Errc::invalid_argument, no root\, and neither variable is an absolute path}
  [[nodiscard]] static Result<std::string> default_path();

  /// StoredLayer::entry of what find_layer() finds with these arguments.
  [[nodiscard]] static std::string entry_of(Digest const& blob,
                                            std::optional<Digest> const& image = std::nullopt) {
    return (image ? "claimed/" + name_of(*image) + "." : "read/") + name_of(blob);
  }

  /// The directory.
  [[nodiscard]] std::string const& root() const noexcept { return root_; }

  /// Whether find_layer() has something to look at. It may turn out to be damaged.
  [[nodiscard]] bool holds_layer(Digest const& blob,
                                 std::optional<Digest> const& image = std::nullopt) const {
    return (image && is_there(layer_path(blob, image))) || is_there(layer_path(blob, std::nullopt));
  }

  /// The indexes of the blob with this digest, if they are there and whole.
  /// @param image    whose claim counts before what was made by reading: a mount that began with a
  ///                 claim must go on with it. Empty: nobody's
  /// @param refuted  what becomes of a claim that put_refutation() was told of
  /// @error{an errno, as open(2)\, other than that there is no such entry}
  [[nodiscard]] Result<std::optional<StoredLayer>> find_layer(
      Digest const& blob, std::optional<Digest> const& image = std::nullopt,
      Refuted refuted = Refuted::skipped) const;

  /// Keeps what was built, under the digest that the blob goes by.
  /// @param image  who claims it; empty: it was made by reading a blob whose digest was right
  /// @error{an errno, as write(2); ENOSPC on a full disk, or where StoreLimit refuses it. Nothing
  /// of the entry stays}
  [[nodiscard]] Result<void> put_layer(Digest const& blob, tarindex::BuiltLayer const& built,
                                       std::optional<Digest> const& image = std::nullopt) const;
  [[nodiscard]] Result<void> put_layer(Digest const& blob, IndexFiles const& files,
                                       std::optional<Digest> const& image = std::nullopt) const;

  /// Remembers that a claim says what the layer holds. It stays a claim: put_layer() makes it count
  /// for other images.
  /// @param entry  as StoredLayer::entry
  /// @param index  SHA-256 of the index file that was compared: of another one, it is no proof
  /// @error{as put_layer(), as there; ENOENT: the entry has gone}
  [[nodiscard]] Result<void> put_proof(std::string const& entry, Digest const& index) const;

  /// Remembers that an index lies, also for other images. A claim that is it stays for those who
  /// began with it, until there is another one.
  /// @param index   SHA-256 of the index file
  /// @param reason  how it lies; of a longer text, 1000 bytes
  /// @error{as put_layer(), as there}
  [[nodiscard]] Result<void> put_refutation(Digest const& blob, Digest const& index,
                                            std::string const& reason) const;

  /// How an index lies; empty: it is not known to.
  [[nodiscard]] std::optional<std::string> find_refutation(Digest const& blob,
                                                           Digest const& index) const;

  /// Removes what find_layer() finds: an image's claim, or what was made by reading if there is no
  /// claim. Who has it open goes on with it.
  /// @error{Errc::unavailable, it cannot be removed}
  [[nodiscard]] Result<void> remove_layer(Digest const& blob,
                                          std::optional<Digest> const& image = std::nullopt) const;

  /// A merged image, if it is there and whole.
  /// @param key  plain characters; names all that the image was made from
  /// @error{an errno, as open(2)\, other than that there is no such entry}
  [[nodiscard]] Result<std::optional<AnySource>> find_image(std::string const& key) const;

  /// Keeps a merged image.
  /// @error{an errno, as write(2)}
  [[nodiscard]] Result<void> put_image(std::string const& key,
                                       std::span<std::byte const> image) const;

  /// The file of the Merkle tree over the device that begins with a merged image, if it is there.
  /// Nothing of it is read: who uses it checks it by its root hash.
  /// @param key  as for find_image()
  /// @error{an errno, as open(2)\, other than that there is no such file}
  [[nodiscard]] Result<std::optional<Local>> find_verity(std::string const& key) const;

  /// Keeps such a file beside the merged image, in place of one that was there.
  /// @param bytes  of the file
  /// @param fill   writes it to a descriptor, at any offsets
  /// @error{as put_layer() and `fill`, as there; ENOENT: the merged image is not there}
  [[nodiscard]] Result<void> put_verity(std::string const& key, std::uint64_t bytes,
                                        std::function<Result<void>(int fd)> const& fill) const;

  /// Keeps checkpoints beside a layer's index, in place of those that were there; they go with it.
  /// As put_start_list() otherwise.
  /// @param entry  as StoredLayer::entry
  /// @error{as put_layer(), as there; ENOENT: the entry has gone}
  [[nodiscard]] Result<void> put_checkpoints(std::string const& entry,
                                             ExtraCheckpoints const& extra) const;

  /// The start list of the image that consists of these layers, if there is one.
  /// @param layers  digests of the blobs, from the bottom up
  /// @error{an errno, as open(2)\, other than that there is no such entry}
  /// @error{as StartList::decode(), as there}
  [[nodiscard]] Result<std::optional<StartList>> find_start_list(
      std::span<Digest const> layers) const;

  /// Keeps a start list in place of the one that was there. A reader finds one or the other, also
  /// after a crash. Nothing is synced: a list that a loss of power has torn is an error of
  /// find_start_list().
  /// @error{as put_layer(), as there}
  [[nodiscard]] Result<void> put_start_list(std::span<Digest const> layers,
                                            StartList const& list) const;

  /// Removes what was unused longest, until the rest is what `keep` says. What some process has
  /// open stays, and counts. Reads no file.
  /// @return what is gone, in the order of their last use
  /// @error{an errno, as opendir(3)}
  [[nodiscard]] Result<std::vector<PrunedEntry>> prune(StoreKeep const& keep) const;

 private:
  IndexStore(std::string root, StoreLimit limit, uid_t owner)
      : root_(std::move(root)), limit_(limit), owner_(owner) {}

  [[nodiscard]] static bool is_there(std::string const& path) {
    return ::faccessat(AT_FDCWD, path.c_str(), F_OK, AT_EACCESS) == 0;
  }

  /// "sha256-HEX".
  [[nodiscard]] static std::string name_of(Digest const& digest) {
    return std::string(to_string(digest.algorithm())) + "-" + digest.hex();
  }

  [[nodiscard]] std::string layer_path(Digest const& blob,
                                       std::optional<Digest> const& image) const {
    return root_ + "/" + entry_of(blob, image);
  }

  [[nodiscard]] std::string refutation_path(Digest const& blob, Digest const& index) const;

  [[nodiscard]] Result<void> put(std::string const& path,
                                 std::vector<detail::StoreFile> const& files) const;

  /// Puts a file into an entry in place of the one that is there.
  [[nodiscard]] Result<void> replace(std::string const& path, detail::StoreFile const& file) const;
  [[nodiscard]] Result<void> replace(std::string const& path, std::string const& name,
                                     std::uint64_t bytes,
                                     std::function<Result<void>(int fd)> const& fill) const;

  std::string root_;
  StoreLimit limit_;
  uid_t owner_;
};

}  // namespace erofs_oci

#ifndef EROFS_OCI_COMPILED
#include <erofs_oci/image/detail/index_store_body.hpp>
#endif
