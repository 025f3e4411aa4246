// SPDX-License-Identifier: Apache-2.0
/// @file
/// What image/index_store.hpp only declares.
#pragma once

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <erofs_oci/core/any_source.hpp>
#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/config.hpp>
#include <erofs_oci/core/fd.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/digest/digest.hpp>
#include <erofs_oci/digest/sha256.hpp>
#include <erofs_oci/digest/source_digest.hpp>
#include <erofs_oci/gzip/checkpoint.hpp>
#include <erofs_oci/gzip/layer_index.hpp>
#include <erofs_oci/gzip/window.hpp>
#include <erofs_oci/image/checkpoints_file.hpp>
#include <erofs_oci/image/index_store.hpp>
#include <erofs_oci/image/start_list.hpp>
#include <erofs_oci/posix/private_directory.hpp>
#include <erofs_oci/source/local.hpp>
#include <erofs_oci/tarindex/build.hpp>
#include <erofs_oci/tarindex/index_file.hpp>
#include <erofs_oci/tarindex/links_file.hpp>

namespace erofs_oci {
namespace detail {

/// Opens a file of an entry, which stays in the store as long as that file is open.
[[nodiscard]] inline Result<Local> open_used(std::string const& path) {
  EROFS_OCI_TRY_ASSIGN(auto fd, open_read(path));
  ::flock(fd.get(), LOCK_SH | LOCK_NB);  // a file system without locks: prune() may remove it
  return Local::of_fd(std::move(fd), path);
}

[[nodiscard]] inline Result<Bytes> read_stored(std::string const& path, std::uint64_t most) {
  EROFS_OCI_TRY_ASSIGN(auto const file, Local::open(path));
  if (file.size() > most) {
    return fail(Errc::corrupt, path + ": " + std::to_string(file.size()) + " bytes");
  }
  Bytes bytes(static_cast<std::size_t>(file.size()));
  EROFS_OCI_TRY(read_exact(file, 0, bytes));
  return bytes;
}

[[nodiscard]] inline Result<Bytes> index_file_bytes(LayerIndex const& index) {
  Bytes bytes;
  EROFS_OCI_TRY(write_index_file(index, [&](std::span<std::byte const> piece) {
    bytes.insert(bytes.end(), piece.begin(), piece.end());
    return true;
  }));
  return bytes;
}

/// Opens a file and reads it once, to see that it is what was written.
[[nodiscard]] inline Result<AnySource> open_stored(std::string const& path, Digest const& digest) {
  EROFS_OCI_TRY_ASSIGN(auto file, open_used(path));
  EROFS_OCI_TRY_ASSIGN(auto const found, digest_of_source(file, digest.algorithm()));
  if (found != digest) return fail(Errc::digest_mismatch, path);
  return AnySource(std::move(file));
}

inline constexpr auto* checkpoints_name = "checkpoints";
inline constexpr auto* proved_name = "proved";
inline constexpr auto* reason_name = "reason";
inline constexpr std::size_t most_reason = 1000;  // bytes

/// The extra checkpoints of an entry. Those that are damaged are none: the index does without.
[[nodiscard]] inline ExtraCheckpoints read_checkpoints(std::string const& path) {
  auto const file = read_stored(path + "/" + checkpoints_name, max_checkpoints_file_size);
  auto extra = file.and_then([](Bytes const& bytes) { return decode_checkpoints(bytes); });
  return extra ? *std::move(extra) : ExtraCheckpoints();
}

/// Of the index file of a claim: its digest, unless it was proved.
[[nodiscard]] inline Result<std::optional<Digest>> unproved_index(Local const& file,
                                                                  std::string const& path) {
  EROFS_OCI_TRY_ASSIGN(auto const index, digest_of_source(file, DigestAlgorithm::sha256));
  auto const proved = read_stored(path + "/" + proved_name, 256);
  if (proved && as_text(*proved) == index.to_string()) return std::optional<Digest>();
  return std::optional(index);
}

/// @param claimed  whether it is a claim, so that StoredLayer::unproved is to be looked for
[[nodiscard]] inline Result<StoredLayer> open_stored_layer(std::string const& path,
                                                           Digest const& blob, bool claimed) {
  EROFS_OCI_TRY_ASSIGN(auto file, open_used(path + "/index"));
  std::optional<Digest> unproved;
  if (claimed) {
    EROFS_OCI_TRY_ASSIGN(unproved, unproved_index(file, path));
  }
  EROFS_OCI_TRY_ASSIGN(auto index, read_index_file(AnySource(std::move(file))));
  bool const same_kind = blob.algorithm() == DigestAlgorithm::sha256;
  if (same_kind && index.index.blob != blob) {
    return fail(Errc::mismatch, path + ": of another blob");
  }
  EROFS_OCI_TRY_ASSIGN(auto tree, open_stored(path + "/tarindex", index.index.tarindex));
  std::vector<tarindex::DanglingLink> dangling;
  if (index.index.links != Digest()) {
    EROFS_OCI_TRY_ASSIGN(auto const bytes, read_stored(path + "/links", std::uint64_t{1} << 30));
    if (digest_of(bytes) != index.index.links) return fail(Errc::digest_mismatch, path + "/links");
    EROFS_OCI_TRY_ASSIGN(dangling, tarindex::decode_links(bytes), path + "/links");
  }
  return StoredLayer{
      std::move(index), std::move(tree), std::move(dangling), read_checkpoints(path), {}, unproved};
}

[[nodiscard]] inline Result<AnySource> open_stored_image(std::string const& path) {
  EROFS_OCI_TRY_ASSIGN(auto const text, read_stored(path + "/digest", 256));
  auto const digest = Digest::parse(as_text(text));
  if (!digest) return fail(Errc::corrupt, path + "/digest");
  return open_stored(path + "/image", *digest);
}

[[nodiscard]] inline std::string fresh_path(std::string const& root) {
  static std::atomic<unsigned> count{0};
  auto const now = std::chrono::steady_clock::now().time_since_epoch().count();
  return root + "/tmp/" + std::to_string(::getpid()) + "-" + std::to_string(now) + "-" +
         std::to_string(count++);
}

inline void remove_entry(std::string const& root, std::string const& path) {
  std::error_code ignored;
  auto const away = fresh_path(root);
  std::filesystem::rename(path, away, ignored);
  std::filesystem::remove_all(away, ignored);
}

/// Sorts what loading the entry at `path` gave: it, no entry, a bad one (which goes), or a failure.
template <class T>
[[nodiscard]] Result<std::optional<T>> found_entry(Result<T> loaded, std::string const& path,
                                                   std::string const& root) {
  if (loaded) {
    ::utimensat(AT_FDCWD, path.c_str(), nullptr, 0);  // a store that is read-only is never pruned
    return std::optional<T>(*std::move(loaded));
  }
  auto& error = loaded.error();
  if (error.code.category() != errc_category()) {
    bool const missing = error.code == std::errc::no_such_file_or_directory;
    if (!missing) return fail(std::move(error), "index store");
    auto const there = ::faccessat(AT_FDCWD, path.c_str(), F_OK, AT_EACCESS) == 0;
    if (!there) return std::optional<T>{};
    // A file of the entry is missing: damage.
  }
  remove_entry(root, path);  // if it cannot be removed, it is not looked at either
  return std::optional<T>{};
}

[[nodiscard]] inline Result<void> sync_directory(std::string const& path) {
  EROFS_OCI_TRY_ASSIGN(auto const fd, open_read(path, O_DIRECTORY));
  if (::fsync(fd.get()) != 0) return fail_errno(errno, path);
  return {};
}

/// Gives what this process has just made to the store's owner.
[[nodiscard]] inline Result<void> give_stored(UniqueFd const& fd, std::string const& path,
                                              uid_t owner) {
  auto const same = owner == ::geteuid();
  if (!same && ::fchown(fd.get(), owner, static_cast<gid_t>(-1)) != 0)
    return fail_errno(errno, path);
  return {};
}

[[nodiscard]] inline Result<void> write_stored(std::string const& path,
                                               std::span<std::byte const> bytes, uid_t owner) {
  UniqueFd const fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!fd) return fail_errno(errno, path);
  EROFS_OCI_TRY(give_stored(fd, path, owner));
  EROFS_OCI_TRY(write_full(fd.get(), bytes), path);
  if (::fsync(fd.get()) != 0) return fail_errno(errno, path);
  return {};
}

[[nodiscard]] inline Result<void> write_entry(std::string const& path,
                                              std::vector<StoreFile> const& files, uid_t owner) {
  if (::mkdir(path.c_str(), 0700) != 0) return fail_errno(errno, path);
  EROFS_OCI_TRY_ASSIGN(auto const fd, open_read(path, O_DIRECTORY | O_NOFOLLOW));
  EROFS_OCI_TRY(give_stored(fd, path, owner));
  for (auto const& file : files) {
    EROFS_OCI_TRY(write_stored(path + "/" + file.name, file.bytes, owner));
  }
  return sync_directory(path);
}

/// An entry that may go.
struct StoredEntry {
  std::string name;  ///< below the root
  std::uint64_t bytes = 0;
  std::filesystem::file_time_type used{};
};

[[nodiscard]] inline std::uint64_t bytes_in(std::filesystem::path const& entry) {
  std::uint64_t bytes = 0;
  std::error_code error;
  for (std::filesystem::directory_iterator file(entry, error), end; !error && file != end;
       file.increment(error)) {
    std::error_code gone;
    auto const size = file->file_size(gone);
    if (!gone) bytes += size;
  }
  return bytes;
}

/// All entries, the one that was unused longest first. One that another process removes meanwhile
/// may be missing. What was refuted counts no byte: room is made by others.
[[nodiscard]] inline Result<std::vector<StoredEntry>> entries_of(std::string const& root) {
  namespace fs = std::filesystem;
  std::vector<StoredEntry> list;
  for (std::string const part : {"read/", "claimed/", "images/", "starts/", "refuted/"}) {
    std::error_code error;
    for (fs::directory_iterator it(root + '/' + part, error), end; !error && it != end;
         it.increment(error)) {
      std::error_code ignored;
      list.push_back({part + it->path().filename().string(),
                      part == "refuted/" ? 0 : bytes_in(it->path()),
                      fs::last_write_time(it->path(), ignored)});
    }
    if (error) return fail(error, "index store " + root);
  }
  std::ranges::sort(list, {}, &StoredEntry::used);
  return list;
}

[[nodiscard]] inline std::uint64_t bytes_of(std::vector<StoredEntry> const& list) {
  std::uint64_t bytes = 0;
  for (auto const& entry : list) bytes += entry.bytes;
  return bytes;
}

/// Whether a process has a file of the entry open.
[[nodiscard]] inline bool is_in_use(std::string const& path) {
  std::error_code error;
  for (std::filesystem::directory_iterator file(path, error), end; !error && file != end;
       file.increment(error)) {
    auto const fd = open_read(file->path().string());
    if (fd && ::flock(fd->get(), LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) return true;
  }
  return false;
}

/// Whether there is room for files of an entry, in a store that prunes nothing.
[[nodiscard]] inline Result<void> check_room(std::string const& root, StoreLimit const& limit,
                                             std::uint64_t more) {
  if (limit.full == StoreLimit::Full::prune) return {};
  EROFS_OCI_TRY_ASSIGN(auto const list, entries_of(root));
  if (bytes_of(list) + more <= limit.bytes) return {};
  return fail_errno(ENOSPC, root + ": more than " + std::to_string(limit.bytes >> 20) +
                                " MiB of indexes, which belong into a store on a disk: oci.store");
}

[[nodiscard]] inline Result<void> check_room(std::string const& root, StoreLimit const& limit,
                                             std::vector<StoreFile> const& files) {
  std::uint64_t bytes = 0;
  for (auto const& file : files) bytes += file.bytes.size();
  return check_room(root, limit, bytes);
}

/// Writes the entry at `path`, which is below `root`, as a whole or not at all.
[[nodiscard]] inline Result<void> put_entry(std::string const& root, std::string const& path,
                                            std::vector<StoreFile> const& files, uid_t owner) {
  auto const fresh = fresh_path(root);
  auto ok = write_entry(fresh, files, owner);
  if (ok && ::rename(fresh.c_str(), path.c_str()) == 0) {
    return sync_directory(path.substr(0, path.rfind('/')));
  }
  // If the directory is there, someone was faster with the same content.
  if (ok && errno != EEXIST && errno != ENOTEMPTY) ok = fail_errno(errno, path);
  std::error_code ignored;
  std::filesystem::remove_all(fresh, ignored);
  return ok ? ok : Result<void>(fail(ok.error(), "index store"));
}

/// Makes the directory for its owner alone; one that is there must be so, too, and writable.
[[nodiscard]] inline Result<void> make_private_directory(std::string const& path, uid_t owner) {
  EROFS_OCI_TRY(open_private_directory(path, owner));
  if (::faccessat(AT_FDCWD, path.c_str(), W_OK | X_OK, AT_EACCESS) != 0) {
    return fail_errno(errno, path);
  }
  return {};
}

/// Names the image that consists of these layers.
[[nodiscard]] inline std::string start_list_key(std::span<Digest const> layers) {
  constexpr std::string_view format = "start list 1\n";
  Sha256 hash;
  hash.update(as_bytes(format));
  for (auto const& layer : layers) hash.update(as_bytes(layer.to_string() + "\n"));
  return hash.finish().hex();
}

/// Has `fresh` written and puts it in place of the file of that name in `path`, a directory.
[[nodiscard]] inline Result<void> replace_file(std::string const& fresh, std::string const& path,
                                               std::string const& name,
                                               std::function<Result<void>(int fd)> const& fill,
                                               uid_t owner) {
  UniqueFd const fd(::open(fresh.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!fd) return fail_errno(errno, fresh);
  EROFS_OCI_TRY(give_stored(fd, fresh, owner));
  EROFS_OCI_TRY(fill(fd.get()), fresh);
  if (::rename(fresh.c_str(), (path + "/" + name).c_str()) != 0) return fail_errno(errno, path);
  ::utimensat(AT_FDCWD, path.c_str(), nullptr, 0);
  return {};
}

inline void remove_leftovers(std::string const& root) {
  std::error_code error;
  auto const old = std::filesystem::file_time_type::clock::now() - std::chrono::hours(24);
  for (std::filesystem::directory_iterator it(root + "/tmp", error), end; !error && it != end;
       it.increment(error)) {
    std::error_code ignored;
    if (std::filesystem::last_write_time(it->path(), ignored) < old && !ignored) {
      std::filesystem::remove_all(it->path(), ignored);
    }
  }
}

}  // namespace detail

EROFS_OCI_BODY Result<IndexStore> IndexStore::open(std::string root, StoreLimit limit,
                                                   uid_t owner) {
  IndexStore store(std::move(root), limit, owner);
  EROFS_OCI_TRY(make_parents(store.root_));
  for (auto const* part : {"", "/read", "/claimed", "/refuted", "/images", "/starts", "/tmp"}) {
    EROFS_OCI_TRY(detail::make_private_directory(store.root_ + part, owner));
  }
  detail::remove_entry(store.root_, store.root_ + "/layers");
  detail::remove_leftovers(store.root_);
  return store;
}

EROFS_OCI_BODY Result<std::string> IndexStore::default_path() {
  if (::geteuid() == 0) return std::string("/var/lib/erofs_oci");
  if (auto const* const cache = std::getenv("XDG_CACHE_HOME"); cache != nullptr && *cache == '/') {
    return std::string(cache) + "/erofs_oci";
  }
  if (auto const* const home = std::getenv("HOME"); home != nullptr && *home == '/') {
    return std::string(home) + "/.cache/erofs_oci";
  }
  return fail(Errc::invalid_argument, "index store: neither XDG_CACHE_HOME nor HOME is set");
}

EROFS_OCI_BODY Result<std::optional<StoredLayer>> IndexStore::find_layer(
    Digest const& blob, std::optional<Digest> const& image, Refuted refuted) const {
  auto const load = [&](std::optional<Digest> const& who) {
    auto const path = layer_path(blob, who);
    auto loaded = detail::open_stored_layer(path, blob, who.has_value());
    auto found = detail::found_entry(std::move(loaded), path, root_);
    if (found && *found) (*found)->entry = entry_of(blob, who);
    return found;
  };
  if (image) {
    EROFS_OCI_TRY_ASSIGN(auto claimed, load(image));
    if (claimed) {
      auto const counts = refuted == Refuted::taken || !claimed->unproved ||
                          !find_refutation(blob, *claimed->unproved);
      if (counts) return claimed;
    }
  }
  return load(std::nullopt);
}

EROFS_OCI_BODY std::string IndexStore::refutation_path(Digest const& blob,
                                                       Digest const& index) const {
  return root_ + "/refuted/" + name_of(blob) + "." + name_of(index);
}

EROFS_OCI_BODY Result<void> IndexStore::put_proof(std::string const& entry,
                                                  Digest const& index) const {
  auto const text = index.to_string();
  return replace(root_ + "/" + entry, {detail::proved_name, as_bytes(text)});
}

EROFS_OCI_BODY Result<void> IndexStore::put_refutation(Digest const& blob, Digest const& index,
                                                       std::string const& reason) const {
  auto const kept = as_bytes(reason).first(std::min(reason.size(), detail::most_reason));
  return put(refutation_path(blob, index), {{detail::reason_name, kept}});
}

EROFS_OCI_BODY std::optional<std::string> IndexStore::find_refutation(Digest const& blob,
                                                                      Digest const& index) const {
  auto const path = refutation_path(blob, index);
  if (!is_there(path)) return std::nullopt;
  ::utimensat(AT_FDCWD, path.c_str(), nullptr, 0);
  auto const text = detail::read_stored(path + "/" + detail::reason_name, detail::most_reason);
  return text ? std::string(as_text(*text)) : std::string("it was found to be wrong");
}

EROFS_OCI_BODY Result<IndexFiles> index_files(tarindex::BuiltLayer const& built) {
  auto index = built.index;
  IndexFiles files{{}, built.tarindex, tarindex::encode_links(built.layer.dangling)};
  index.links = files.links.empty() ? Digest() : digest_of(files.links);
  EROFS_OCI_TRY_ASSIGN(files.index, detail::index_file_bytes(index));
  return files;
}

EROFS_OCI_BODY Result<IndexFiles> index_files(StoredLayer const& layer) {
  auto index = layer.index.index;
  Bytes window(gzip_window_size);
  for (std::size_t i = 0; index.encoding == BlobEncoding::gzip && i < index.spans.size(); ++i) {
    auto const part = std::span(window).first<gzip_window_size>();
    EROFS_OCI_TRY(layer.index.window(i, part));
    // The unused bytes are zero already.
    auto const used = std::ranges::any_of(window, [](auto b) { return b != std::byte{0}; });
    index.spans[i].packed_window = pack_window(part, used ? WindowUse().set() : WindowUse());
  }
  IndexFiles files{{},
                   Bytes(static_cast<std::size_t>(layer.tarindex.size())),
                   tarindex::encode_links(layer.dangling)};
  index.links = files.links.empty() ? Digest() : digest_of(files.links);
  EROFS_OCI_TRY(read_exact(layer.tarindex, 0, files.tarindex));
  EROFS_OCI_TRY_ASSIGN(files.index, detail::index_file_bytes(index));
  return files;
}

EROFS_OCI_BODY Result<void> IndexStore::put_layer(Digest const& blob,
                                                  tarindex::BuiltLayer const& built,
                                                  std::optional<Digest> const& image) const {
  EROFS_OCI_TRY_ASSIGN(auto const files, index_files(built));
  return put_layer(blob, files, image);
}

EROFS_OCI_BODY Result<void> IndexStore::put_layer(Digest const& blob, IndexFiles const& files,
                                                  std::optional<Digest> const& image) const {
  std::vector<detail::StoreFile> list;
  if (!files.links.empty()) list.push_back({"links", files.links});
  list.push_back({"tarindex", files.tarindex});
  list.push_back({"index", files.index});
  auto const path = layer_path(blob, image);
  if (image && is_there(path)) {
    auto const known = Local::open(path + "/index").and_then([&](Local const& file) {
      return detail::unproved_index(file, path);
    });
    if (!known || (*known && find_refutation(blob, **known))) detail::remove_entry(root_, path);
  }
  return put(path, list);
}

EROFS_OCI_BODY Result<void> IndexStore::remove_layer(Digest const& blob,
                                                     std::optional<Digest> const& image) const {
  auto path = layer_path(blob, image);
  if (image && !is_there(path)) path = layer_path(blob, std::nullopt);
  detail::remove_entry(root_, path);
  if (is_there(path)) return fail(Errc::unavailable, "index store: " + path + " stays");
  return {};
}

EROFS_OCI_BODY Result<std::optional<AnySource>> IndexStore::find_image(
    std::string const& key) const {
  auto const path = root_ + "/images/" + key;
  return detail::found_entry(detail::open_stored_image(path), path, root_);
}

EROFS_OCI_BODY Result<void> IndexStore::put_image(std::string const& key,
                                                  std::span<std::byte const> image) const {
  auto const digest = digest_of(image).to_string();
  return put(root_ + "/images/" + key, {{"image", image}, {"digest", as_bytes(digest)}});
}

EROFS_OCI_BODY Result<std::optional<StartList>> IndexStore::find_start_list(
    std::span<Digest const> layers) const {
  auto const path = root_ + "/starts/" + detail::start_list_key(layers);
  auto const file = detail::read_stored(path + "/list", StartList::most_file_bytes);
  if (!file && file.error().code == std::errc::no_such_file_or_directory) {
    return std::optional<StartList>();
  }
  if (!file) return fail(file.error(), "index store");
  EROFS_OCI_TRY_ASSIGN(auto list, StartList::decode(*file), path);
  ::utimensat(AT_FDCWD, path.c_str(), nullptr, 0);
  return std::optional(std::move(list));
}

EROFS_OCI_BODY Result<void> IndexStore::put_start_list(std::span<Digest const> layers,
                                                       StartList const& list) const {
  auto const path = root_ + "/starts/" + detail::start_list_key(layers);
  EROFS_OCI_TRY(detail::make_private_directory(path, owner_), "index store");
  return replace(path, {"list", list.encode()});
}

EROFS_OCI_BODY Result<void> IndexStore::put_checkpoints(std::string const& entry,
                                                        ExtraCheckpoints const& extra) const {
  return replace(root_ + "/" + entry, {detail::checkpoints_name, encode_checkpoints(extra)});
}

EROFS_OCI_BODY Result<std::optional<Local>> IndexStore::find_verity(std::string const& key) const {
  auto const path = root_ + "/images/" + key;
  auto file = detail::open_used(path + "/verity");
  if (!file && file.error().code == std::errc::no_such_file_or_directory) {
    return std::optional<Local>();
  }
  if (!file) return fail(std::move(file).error(), "index store");
  ::utimensat(AT_FDCWD, path.c_str(), nullptr, 0);
  return std::optional(*std::move(file));
}

EROFS_OCI_BODY Result<void> IndexStore::put_verity(
    std::string const& key, std::uint64_t bytes,
    std::function<Result<void>(int fd)> const& fill) const {
  return replace(root_ + "/images/" + key, "verity", bytes, fill);
}

EROFS_OCI_BODY Result<void> IndexStore::replace(std::string const& path,
                                                detail::StoreFile const& file) const {
  return replace(path, file.name, file.bytes.size(),
                 [&](int fd) { return write_full(fd, file.bytes); });
}

EROFS_OCI_BODY Result<void> IndexStore::replace(
    std::string const& path, std::string const& name, std::uint64_t bytes,
    std::function<Result<void>(int fd)> const& fill) const {
  EROFS_OCI_TRY(detail::check_room(root_, limit_, bytes));
  auto const fresh = detail::fresh_path(root_);
  auto done = detail::replace_file(fresh, path, name, fill, owner_);
  if (!done) {
    ::unlink(fresh.c_str());
    return fail(std::move(done).error(), "index store");
  }
  if (limit_.full == StoreLimit::Full::prune) static_cast<void>(prune({.bytes = limit_.bytes}));
  return {};
}

EROFS_OCI_BODY Result<void> IndexStore::put(std::string const& path,
                                            std::vector<detail::StoreFile> const& files) const {
  EROFS_OCI_TRY(detail::check_room(root_, limit_, files));
  EROFS_OCI_TRY(detail::put_entry(root_, path, files, owner_));
  // What cannot be removed now can be later.
  if (limit_.full == StoreLimit::Full::prune) static_cast<void>(prune({.bytes = limit_.bytes}));
  return {};
}

EROFS_OCI_BODY Result<std::vector<PrunedEntry>> IndexStore::prune(StoreKeep const& keep) const {
  EROFS_OCI_TRY_ASSIGN(auto list, detail::entries_of(root_));
  auto const now = std::filesystem::file_time_type::clock::now();
  auto bytes = detail::bytes_of(list);
  std::vector<PrunedEntry> removed;
  for (auto& entry : list) {
    auto const is_too_much = keep.bytes && bytes > *keep.bytes && entry.bytes != 0;
    auto const is_old = keep.used && entry.used < now - *keep.used;
    auto const path = root_ + '/' + entry.name;
    if ((!is_too_much && !is_old) || detail::is_in_use(path)) continue;
    detail::remove_entry(root_, path);
    if (std::error_code ignored; std::filesystem::exists(path, ignored)) continue;
    bytes -= entry.bytes;
    removed.push_back({std::move(entry.name), entry.bytes});
  }
  return removed;
}

}  // namespace erofs_oci
