// SPDX-License-Identifier: Apache-2.0
/// @file
/// What oci/layout_writer.hpp only declares.
#pragma once

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/clock.hpp>
#include <erofs_oci/core/config.hpp>
#include <erofs_oci/core/fd.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/oci/layout_writer.hpp>
#include <erofs_oci/oci/manifest.hpp>
#include <erofs_oci/posix/replace_file.hpp>

namespace erofs_oci {
namespace detail {

/// A directory in another one, made if it is not there.
[[nodiscard]] inline Result<UniqueFd> open_below(int directory, char const* name) {
  if (::mkdirat(directory, name, 0777) != 0 && errno != EEXIST) return fail_errno(errno, name);
  UniqueFd fd(::openat(directory, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!fd) return fail_errno(errno, name);
  return fd;
}

[[nodiscard]] inline bool is_file_in(int directory, std::string const& name) {
  struct stat status{};
  return ::fstatat(directory, name.c_str(), &status, AT_SYMLINK_NOFOLLOW) == 0 &&
         S_ISREG(status.st_mode);
}

[[nodiscard]] inline Result<void> write_file_in(int directory, std::string const& name,
                                                std::span<std::byte const> bytes) {
  return replace_file_at(directory, name, name + ".part", 0666,
                         [&](int fd) { return write_full(fd, bytes); });
}

/// Takes the only lock of a directory, which lasts until what is returned is closed.
[[nodiscard]] inline Result<UniqueFd> lock_directory(int directory) {
  constexpr std::chrono::milliseconds pause{50};
  constexpr unsigned most = 200;
  UniqueFd fd(::openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd) return fail_errno(errno, "lock");
  for (unsigned n = 0; ::flock(fd.get(), LOCK_EX | LOCK_NB) != 0; ++n) {
    if (errno != EWOULDBLOCK && errno != EINTR) return fail_errno(errno, "lock");
    if (n == most) return fail(Errc::unavailable, "another process writes there");
    SteadyClock{}.sleep(pause);
  }
  return fd;
}

}  // namespace detail

EROFS_OCI_BODY Result<LayoutWriter> LayoutWriter::open(std::string directory) {
  EROFS_OCI_TRY_ASSIGN(auto top, open_read(directory, O_DIRECTORY));
  {
    EROFS_OCI_TRY_ASSIGN(auto const lock, detail::lock_directory(top.get()), directory);
    constexpr std::string_view mark = R"({"imageLayoutVersion":"1.0.0"})";
    Index empty;
    empty.media_type = media_type::oci_index;
    auto const index = encode(empty);
    for (auto const& [name, text] :
         {std::pair(std::string("oci-layout"), mark), {"index.json", std::string_view(index)}}) {
      if (detail::is_file_in(top.get(), name)) continue;
      EROFS_OCI_TRY(detail::write_file_in(top.get(), name, as_bytes(text)), directory);
    }
  }
  EROFS_OCI_TRY_ASSIGN(auto const blobs, detail::open_below(top.get(), "blobs"), directory);
  EROFS_OCI_TRY_ASSIGN(auto sha256, detail::open_below(blobs.get(), "sha256"), directory);
  EROFS_OCI_TRY(Layout::open(directory));
  return LayoutWriter(std::move(directory), std::move(top), std::move(sha256));
}

EROFS_OCI_BODY Result<BlobPush> LayoutWriter::put_blob(Digest const& digest,
                                                       std::span<std::byte const> bytes) const {
  if (digest.algorithm() != DigestAlgorithm::sha256) {
    return fail(Errc::unsupported, directory_ + ": " + digest.to_string());
  }
  if (detail::is_file_in(blobs_.get(), digest.hex())) return BlobPush::was_there;
  EROFS_OCI_TRY_ASSIGN(auto const lock, detail::lock_directory(top_.get()), directory_);
  EROFS_OCI_TRY(detail::write_file_in(blobs_.get(), digest.hex(), bytes), directory_);
  return BlobPush::uploaded;
}

EROFS_OCI_BODY Result<void> LayoutWriter::name(Descriptor const& entry) const {
  EROFS_OCI_TRY_ASSIGN(auto const lock, detail::lock_directory(top_.get()), directory_);
  EROFS_OCI_TRY_ASSIGN(auto const layout, Layout::open(directory_));
  auto index = layout.index();
  auto const tag = entry.annotation(Layout::ref_name);
  std::erase_if(index.manifests, [&](Descriptor const& one) {
    auto const other = one.annotation(Layout::ref_name);
    return tag ? other == tag : !other && one.digest == entry.digest;
  });
  index.manifests.push_back(entry);
  return detail::write_file_in(top_.get(), "index.json", as_bytes(encode(index)));
}

EROFS_OCI_BODY Result<void> LayoutWriter::put_manifest(std::string const& tag_or_digest,
                                                       std::string_view type,
                                                       std::string const& text) const {
  auto entry = descriptor_of(type, as_bytes(text));
  if (!Digest::parse(tag_or_digest)) entry.annotations[Layout::ref_name] = tag_or_digest;
  // A reader may not take signatures, which cosign has under such tags, for an image.
  if (tag_or_digest.ends_with(".sig")) entry.artifact_type = media_type::cosign_signatures;
  EROFS_OCI_TRY(put_blob(entry.digest, as_bytes(text)));
  return name(entry);
}

EROFS_OCI_BODY Result<Descriptor> LayoutWriter::attach(Manifest const& artifact) const {
  auto const text = encode(artifact);
  auto entry = descriptor_of(artifact.media_type, as_bytes(text));
  entry.artifact_type = artifact.artifact_type;
  EROFS_OCI_TRY(put_blob(entry.digest, as_bytes(text)));
  EROFS_OCI_TRY(name(entry));
  return entry;
}

EROFS_OCI_BODY Result<FoundDocument> LayoutWriter::document(
    std::string const& tag_or_digest) const {
  EROFS_OCI_TRY_ASSIGN(auto const layout, Layout::open(directory_));
  return layout.document(tag_or_digest);
}

}  // namespace erofs_oci
