// SPDX-License-Identifier: Apache-2.0
/// @file
/// DocumentStore: manifests and indexes of images on the local disk, and what tags led to.
#pragma once

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <unistd.h>

#include <erofs_oci/cache/blob_files.hpp>
#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/fd.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/digest/sha256.hpp>
#include <erofs_oci/posix/private_directory.hpp>
#include <erofs_oci/posix/replace_file.hpp>

namespace erofs_oci {

/// A manifest or index as a registry sent it.
struct KeptDocument {
  std::string media_type;  ///< as the registry said; may be empty
  Bytes body;
};

/// A directory of small files that are replaced as a whole:
/// ```
/// documents-1/sha256-HEX   a media type, a newline, a document with that digest
/// tags-1/HEX               "REGISTRY/REPOSITORY:TAG", a newline, a digest, a newline;
///                          HEX is the SHA-256 of the first line
/// absent-1/HEX             a line that names what a registry did not have, a newline; HEX is the
///                          SHA-256 of the line. Counts for an hour after the file was written
/// ```
/// What has not the digest of its name counts as not there.
///
/// @par Thread safety
/// All const members, from any thread and any number of processes.
class DocumentStore {
 public:
  static constexpr std::size_t largest = 4 << 20;          ///< bytes of a document
  static constexpr std::chrono::seconds absent_for{3600};  ///< how long put_absent() counts

  /// Opens the store below `root`, or makes it, for its owner alone.
  /// @error{an errno, as open_private_directory()}
  [[nodiscard]] static Result<std::shared_ptr<DocumentStore const>> open(
      std::string const& root, uid_t owner = ::geteuid()) {
    EROFS_OCI_TRY(make_parents(root));
    EROFS_OCI_TRY(open_private_directory(root, owner));
    EROFS_OCI_TRY_ASSIGN(auto documents, open_private_directory(root + "/documents-1", owner));
    EROFS_OCI_TRY_ASSIGN(auto tags, open_private_directory(root + "/tags-1", owner));
    EROFS_OCI_TRY_ASSIGN(auto absent, open_private_directory(root + "/absent-1", owner));
    auto const store = std::shared_ptr<DocumentStore const>(
        new DocumentStore(std::move(documents), std::move(tags), std::move(absent), owner));
    for (auto const* const part : store->parts()) store->trim(*part);
    return store;
  }

  /// A document, if it is there and whole.
  [[nodiscard]] std::optional<KeptDocument> find(Digest const& digest) const {
    auto const bytes = read(documents_, file_name(digest), largest + most_line);
    if (!bytes) return std::nullopt;
    auto text = as_text(*bytes);
    auto const line = text.find('\n');
    if (line == text.npos || line > most_line) return std::nullopt;
    KeptDocument found{std::string(text.substr(0, line)), to_bytes(text.substr(line + 1))};
    if (digest_of(found.body, digest.algorithm()) != digest) return std::nullopt;
    return found;
  }

  /// Keeps a document.
  /// @error{Errc::digest_mismatch, it has another digest}
  /// @error{an errno, as replace_file_at()}
  [[nodiscard]] Result<void> put(Digest const& digest, std::string_view media_type,
                                 std::span<std::byte const> body) const {
    if (digest_of(body, digest.algorithm()) != digest) {
      return fail(Errc::digest_mismatch, digest.to_string());
    }
    if (media_type.size() > most_line || media_type.find('\n') != media_type.npos) media_type = {};
    auto bytes = to_bytes(std::string(media_type) + '\n');
    bytes.insert(bytes.end(), body.begin(), body.end());
    return write(documents_, file_name(digest), bytes);
  }

  /// What a tag led to when it was looked up last.
  /// @param reference  "REGISTRY/REPOSITORY:TAG"
  [[nodiscard]] std::optional<Digest> find_tag(std::string_view reference) const {
    auto const bytes = read(tags_, line_name(reference), 2 * most_line);
    if (!bytes) return std::nullopt;
    auto text = as_text(*bytes);
    auto const first = std::string(reference) + '\n';
    if (!text.starts_with(first) || !text.ends_with('\n')) return std::nullopt;
    text.remove_prefix(first.size());
    text.remove_suffix(text.empty() ? 0 : 1);
    auto digest = Digest::parse(text);
    return digest ? std::optional(*digest) : std::nullopt;
  }

  /// Notes what a tag leads to now.
  /// @error{Errc::invalid_argument, no such reference can be}
  /// @error{an errno, as replace_file_at()}
  [[nodiscard]] Result<void> put_tag(std::string_view reference, Digest const& digest) const {
    EROFS_OCI_TRY_ASSIGN(auto const line, line_of(reference), "tag");
    return write(tags_, line_name(reference), as_bytes(line + digest.to_string() + '\n'));
  }

  /// Whether put_absent() was called for it in the last hour. A file of the future counts as none.
  [[nodiscard]] bool is_absent(std::string_view what) const {
    auto const line = std::string(what) + '\n';
    auto const name = line_name(what);
    auto const facts = SystemFiles{}.facts_at(absent_.get(), name);
    if (!facts || read(absent_, name, most_line + 1) != to_bytes(line)) return false;
    auto const now = std::chrono::system_clock::now().time_since_epoch();
    auto const age = now - std::chrono::nanoseconds(facts->changed);
    return age >= std::chrono::nanoseconds(0) && age < absent_for;
  }

  /// Notes that a registry does not have something now.
  /// @param what  "REGISTRY/REPOSITORY ...", at most 1024 bytes
  /// @error{Errc::invalid_argument, it is longer or has two lines}
  /// @error{an errno, as replace_file_at()}
  [[nodiscard]] Result<void> put_absent(std::string_view what) const {
    EROFS_OCI_TRY_ASSIGN(auto const line, line_of(what), "what is absent");
    return write(absent_, line_name(what), as_bytes(line));
  }

  /// Takes put_absent() back.
  void forget_absent(std::string_view what) const {
    static_cast<void>(SystemFiles{}.remove(absent_.get(), line_name(what)));
  }

  /// Removes all documents and tags, and what is absent.
  void clear() const {
    SystemFiles const files;
    for (auto const* const part : parts()) {
      for (auto const& name : files.list(part->get()).value_or(std::vector<std::string>())) {
        static_cast<void>(files.remove(part->get(), name));
      }
    }
  }

 private:
  static constexpr std::size_t most_line = 1024;   // bytes
  static constexpr std::size_t most_files = 4096;  // of a directory; twice as many as stay

  DocumentStore(UniqueFd documents, UniqueFd tags, UniqueFd absent, uid_t owner)
      : documents_(std::move(documents)),
        tags_(std::move(tags)),
        absent_(std::move(absent)),
        owner_(owner) {}

  [[nodiscard]] std::array<UniqueFd const*, 3> parts() const {
    return {&documents_, &tags_, &absent_};
  }

  [[nodiscard]] static std::string file_name(Digest const& digest) {
    return std::string(to_string(digest.algorithm())) + '-' + digest.hex();
  }
  /// Of a file whose first line is `text`.
  [[nodiscard]] static std::string line_name(std::string_view text) {
    return digest_of(as_bytes(text)).hex();
  }

  /// That line, with its end.
  [[nodiscard]] static Result<std::string> line_of(std::string_view text) {
    if (text.size() > most_line) return fail(Errc::invalid_argument, "longer than 1024 bytes");
    if (text.find('\n') != text.npos) return fail(Errc::invalid_argument, "two lines");
    return std::string(text) + '\n';
  }

  [[nodiscard]] std::optional<Bytes> read(UniqueFd const& directory, std::string const& name,
                                          std::size_t most) const {
    SystemFiles const files;
    auto const fd = files.open(directory.get(), name, O_RDONLY);
    if (!fd) return std::nullopt;
    auto const facts = files.facts(fd->get());
    if (!facts || !facts->is_regular || facts->owner != owner_ || facts->size > most) {
      return std::nullopt;
    }
    Bytes bytes(static_cast<std::size_t>(facts->size));
    auto const n = files.read(fd->get(), 0, bytes);
    if (!n || *n != bytes.size()) return std::nullopt;
    return bytes;
  }

  /// Removes what was written longest ago of too many files. A temporary file that a killed process
  /// has left is one of them.
  void trim(UniqueFd const& directory) const {
    SystemFiles const files;
    auto const names = files.list(directory.get());
    if (!names || names->size() <= most_files) return;
    std::vector<std::pair<std::int64_t, std::string>> aged;
    for (auto const& name : *names) {
      auto const facts = files.facts_at(directory.get(), name);
      if (facts) aged.emplace_back(facts->changed, name);
    }
    std::ranges::sort(aged);
    for (std::size_t i = 0; i + most_files / 2 < aged.size(); ++i) {
      static_cast<void>(files.remove(directory.get(), aged[i].second));
    }
  }

  /// Each process has a temporary file of its own.
  [[nodiscard]] Result<void> write(UniqueFd const& directory, std::string const& name,
                                   std::span<std::byte const> bytes) const {
    auto const temporary = name + '.' + std::to_string(::getpid()) + ".part";
    auto const fill = [&](int fd) -> Result<void> {
      if (owner_ != ::geteuid()) EROFS_OCI_TRY(SystemFiles{}.give(fd, owner_));
      return write_full(fd, bytes);
    };
    return replace_file_at(directory.get(), name, temporary, 0600, fill);
  }

  UniqueFd documents_;
  UniqueFd tags_;
  UniqueFd absent_;
  uid_t owner_;
};

}  // namespace erofs_oci
