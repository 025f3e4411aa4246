// SPDX-License-Identifier: Apache-2.0
/// @file
/// IndexStore: indexes of layers and images on the local disk, named by the content they are of.
#pragma once

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <erofs_oci/core/any_source.hpp>
#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/fd.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/digest/digest.hpp>
#include <erofs_oci/digest/sha256.hpp>
#include <erofs_oci/gzip/index_file.hpp>
#include <erofs_oci/source/local.hpp>
#include <erofs_oci/tarindex/build.hpp>
#include <erofs_oci/tarindex/links_file.hpp>

namespace erofs_oci {

/// A layer's indexes, opened and checked.
struct StoredLayer {
  OpenedIndex index;
  AnySource tarindex;  ///< EROFS image of the layer's tree
  std::vector<tarindex::DanglingLink> dangling;
};

/// A directory of indexes:
/// ```
/// layers/sha256-HEX/{index,tarindex[,links]}   of the blob with that digest
/// images/KEY/{image,digest}                    merged, of the layers that KEY is made from
/// tmp/                                         what is being written
/// ```
/// An entry is written under tmp/, synced, and put in place by one rename: at any instant it is
/// whole or not there. Whoever comes second with the same entry finds the first one's and drops his
/// own. An entry whose bytes are not those that were written is removed and counts as not there.
///
/// @par Thread safety
/// All const members, from any thread and any number of processes.
class IndexStore {
 public:
  /// Opens the store, or makes it, for this user alone (0700). What was left half written more than
  /// a day ago goes.
  /// @error{an errno, as mkdir(2)}
  [[nodiscard]] static Result<IndexStore> open(std::string root) {
    IndexStore store(std::move(root));
    for (auto const* part : {"", "/layers", "/images", "/tmp"}) {
      std::error_code error;
      auto const path = store.root_ + part;
      if (*part == '\0') std::filesystem::create_directories(path, error);
      if (error) return fail(error, path);
      if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) return fail_errno(errno, path);
      if (::access(path.c_str(), W_OK | X_OK) != 0) return fail_errno(errno, path);
    }
    store.remove_leftovers();
    return store;
  }

  /// Where a user's store is unless something else is asked for: /var/lib/erofs_oci for root, else
  /// `$XDG_CACHE_HOME/erofs_oci` or `$HOME/.cache/erofs_oci`.
  /// @error{Errc::invalid_argument, no root\, and neither variable is an absolute path}
  [[nodiscard]] static Result<std::string> default_path() {
    if (::geteuid() == 0) return std::string("/var/lib/erofs_oci");
    if (auto const* const cache = std::getenv("XDG_CACHE_HOME");
        cache != nullptr && *cache == '/') {
      return std::string(cache) + "/erofs_oci";
    }
    if (auto const* const home = std::getenv("HOME"); home != nullptr && *home == '/') {
      return std::string(home) + "/.cache/erofs_oci";
    }
    return fail(Errc::invalid_argument, "index store: neither XDG_CACHE_HOME nor HOME is set");
  }

  /// The directory.
  [[nodiscard]] std::string const& root() const noexcept { return root_; }

  /// Whether there is an entry for the blob with this digest. It may turn out to be damaged.
  [[nodiscard]] bool holds_layer(Digest const& blob) const {
    return ::access(layer_path(blob).c_str(), F_OK) == 0;
  }

  /// The indexes of the blob with this digest, if they are there and whole.
  /// @error{an errno, as open(2)\, other than that there is no such entry}
  [[nodiscard]] Result<std::optional<StoredLayer>> find_layer(Digest const& blob) const {
    auto const path = layer_path(blob);
    auto found = load_layer(path, blob);
    if (found) return std::optional<StoredLayer>(*std::move(found));
    return not_there<StoredLayer>(std::move(found).error(), path);
  }

  /// Keeps what was built, under the digest that the blob goes by.
  /// @error{an errno, as write(2); ENOSPC on a full disk. Nothing of the entry stays}
  [[nodiscard]] Result<void> put_layer(Digest const& blob,
                                       tarindex::BuiltLayer const& built) const {
    auto index = built.index;
    std::vector<File> files;
    auto const links = tarindex::encode_links(built.layer.dangling);
    if (!links.empty()) {
      index.links = digest_of(links);
      files.push_back({"links", links});
    }
    Bytes bytes;
    auto const ok = write_index_file<Sha256>(index, [&](std::span<std::byte const> piece) {
      bytes.insert(bytes.end(), piece.begin(), piece.end());
      return true;
    });
    if (!ok) return ok;
    files.push_back({"tarindex", built.tarindex});
    files.push_back({"index", bytes});
    return put(layer_path(blob), files);
  }

  /// A merged image, if it is there and whole.
  /// @param key  plain characters; names all that the image was made from
  /// @error{an errno, as open(2)\, other than that there is no such entry}
  [[nodiscard]] Result<std::optional<AnySource>> find_image(std::string const& key) const {
    auto const path = root_ + "/images/" + key;
    auto found = load_image(path);
    if (found) return std::optional<AnySource>(*std::move(found));
    return not_there<AnySource>(std::move(found).error(), path);
  }

  /// Keeps a merged image.
  /// @error{an errno, as write(2)}
  [[nodiscard]] Result<void> put_image(std::string const& key,
                                       std::span<std::byte const> image) const {
    auto const digest = digest_of(image).to_string();
    return put(root_ + "/images/" + key, {{"image", image}, {"digest", as_bytes(digest)}});
  }

 private:
  struct File {
    char const* name;
    std::span<std::byte const> bytes;
  };

  explicit IndexStore(std::string root) : root_(std::move(root)) {}

  [[nodiscard]] std::string layer_path(Digest const& blob) const {
    return root_ + "/layers/" + std::string(to_string(blob.algorithm())) + "-" + blob.hex();
  }

  [[nodiscard]] static Result<Bytes> read_all(std::string const& path, std::uint64_t most) {
    auto const file = Local::open(path);
    if (!file) return fail(file.error());
    if (file->size() > most) {
      return fail(Errc::corrupt, path + ": " + std::to_string(file->size()) + " bytes");
    }
    Bytes bytes(static_cast<std::size_t>(file->size()));
    if (auto const ok = read_exact(*file, 0, bytes); !ok) return fail(ok.error());
    return bytes;
  }

  // Opens a file and reads it once, to see that it is what was written.
  [[nodiscard]] static Result<AnySource> open_checked(std::string const& path,
                                                      Digest const& digest) {
    auto file = Local::open(path);
    if (!file) return fail(file.error());
    Hasher hash(digest.algorithm());
    auto const ok = stream(*file, 0, file->size(), [&](std::span<std::byte const> piece) {
      hash.update(piece);
      return true;
    });
    if (!ok) return fail(ok.error());
    if (hash.finish() != digest) return fail(Errc::digest_mismatch, path);
    return AnySource(*std::move(file));
  }

  [[nodiscard]] static Result<StoredLayer> load_layer(std::string const& path, Digest const& blob) {
    auto file = Local::open(path + "/index");
    if (!file) return fail(file.error());
    auto index = read_index_file<Sha256>(AnySource(*std::move(file)));
    if (!index) return fail(index.error());
    bool const same_kind = blob.algorithm() == DigestAlgorithm::sha256;
    if (same_kind && index->index.blob != blob)
      return fail(Errc::mismatch, path + ": of another blob");
    auto tree = open_checked(path + "/tarindex", index->index.tarindex);
    if (!tree) return fail(tree.error());
    std::vector<tarindex::DanglingLink> dangling;
    if (index->index.links != Digest()) {
      auto const bytes = read_all(path + "/links", std::uint64_t{1} << 30);
      if (!bytes) return fail(bytes.error());
      if (digest_of(*bytes) != index->index.links) {
        return fail(Errc::digest_mismatch, path + "/links");
      }
      auto links = tarindex::decode_links(*bytes);
      if (!links) return fail(links.error(), path + "/links");
      dangling = *std::move(links);
    }
    return StoredLayer{*std::move(index), *std::move(tree), std::move(dangling)};
  }

  [[nodiscard]] static Result<AnySource> load_image(std::string const& path) {
    auto const text = read_all(path + "/digest", 256);
    if (!text) return fail(text.error());
    auto const digest = Digest::parse(as_text(*text));
    if (!digest) return fail(Errc::corrupt, path + "/digest");
    return open_checked(path + "/image", *digest);
  }

  // Sorts errors of loading: no entry, a bad entry (which goes), or a real failure.
  template <class T>
  [[nodiscard]] Result<std::optional<T>> not_there(Error error, std::string const& path) const {
    if (error.code.category() != errc_category()) {
      bool const missing = error.code == std::errc::no_such_file_or_directory;
      if (!missing) return fail(std::move(error), "index store");
      if (::access(path.c_str(), F_OK) != 0) return std::optional<T>{};
      // A file of the entry is missing: damage.
    }
    std::error_code ignored;  // if it cannot be removed, it is not looked at either
    auto const away = fresh_path();
    std::filesystem::rename(path, away, ignored);
    std::filesystem::remove_all(away, ignored);
    return std::optional<T>{};
  }

  [[nodiscard]] std::string fresh_path() const {
    static std::atomic<unsigned> count{0};
    auto const now = std::chrono::steady_clock::now().time_since_epoch().count();
    return root_ + "/tmp/" + std::to_string(::getpid()) + "-" + std::to_string(now) + "-" +
           std::to_string(count++);
  }

  [[nodiscard]] static Result<void> sync_directory(std::string const& path) {
    auto const fd = open_read(path, O_DIRECTORY);
    if (!fd) return fail(fd.error());
    if (::fsync(fd->get()) != 0) return fail_errno(errno, path);
    return {};
  }

  [[nodiscard]] static Result<void> write_file(std::string const& path,
                                               std::span<std::byte const> bytes) {
    UniqueFd const fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    if (!fd) return fail_errno(errno, path);
    if (auto const ok = write_full(fd.get(), bytes); !ok) return fail(ok.error(), path);
    if (::fsync(fd.get()) != 0) return fail_errno(errno, path);
    return {};
  }

  [[nodiscard]] static Result<void> write_entry(std::string const& path,
                                                std::vector<File> const& files) {
    if (::mkdir(path.c_str(), 0700) != 0) return fail_errno(errno, path);
    for (auto const& file : files) {
      if (auto const ok = write_file(path + "/" + file.name, file.bytes); !ok) return ok;
    }
    return sync_directory(path);
  }

  [[nodiscard]] Result<void> put(std::string const& path, std::vector<File> const& files) const {
    auto const fresh = fresh_path();
    auto ok = write_entry(fresh, files);
    if (ok && ::rename(fresh.c_str(), path.c_str()) != 0) {
      bool const first = errno != EEXIST && errno != ENOTEMPTY;
      if (first) ok = fail_errno(errno, path);
      // Else someone was faster with the same content.
    } else if (ok) {
      return sync_directory(root_ +
                            (path.find("/layers/") != std::string::npos ? "/layers" : "/images"));
    }
    std::error_code ignored;
    std::filesystem::remove_all(fresh, ignored);
    return ok ? ok : Result<void>(fail(ok.error(), "index store"));
  }

  void remove_leftovers() const {
    std::error_code error;
    auto const old = std::filesystem::file_time_type::clock::now() - std::chrono::hours(24);
    for (std::filesystem::directory_iterator it(root_ + "/tmp", error), end; !error && it != end;
         it.increment(error)) {
      std::error_code ignored;
      if (std::filesystem::last_write_time(it->path(), ignored) < old && !ignored) {
        std::filesystem::remove_all(it->path(), ignored);
      }
    }
  }

  std::string root_;
};

}  // namespace erofs_oci
