// SPDX-License-Identifier: Apache-2.0
/// @file
/// Ztocs, made in the dullest way.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/endian.hpp>
#include <erofs_oci/digest/sha256.hpp>
#include <erofs_oci/gzip/zinfo.hpp>
#include <erofs_oci/gzip/ztoc.hpp>
#include <erofs_oci/oci/encoding.hpp>
#include <erofs_oci/source/memory.hpp>
#include <erofs_oci/tar/reader.hpp>
#include <erofs_oci/testing/flat_writer.hpp>

namespace erofs_oci::testing {

/// The tree of a ztoc's FlatBuffer.
[[nodiscard]] inline FlatValue flat_ztoc(Ztoc const& ztoc) {
  using V = FlatValue;
  auto const number = [](std::uint64_t n) { return V::of(static_cast<std::int64_t>(n)); };
  std::vector<V> files;
  for (auto const& file : ztoc.files) {
    std::vector<V> records;
    for (auto const& [key, value] : file.records) {
      records.push_back(V::table({V::text(key), V::text(value)}));
    }
    files.push_back(
        V::table({V::text(file.name), V::text(file.type), number(file.offset), number(file.size),
                  V::text(file.link), V::of(file.mode), V::of(file.uid), V::of(file.gid),
                  V::text(file.user), V::text(file.group), V::text(file.time),
                  V::of(file.dev_major), V::of(file.dev_minor), V::list(std::move(records))}));
  }
  std::vector<V> digests;
  for (auto const& digest : ztoc.span_digests) digests.push_back(V::text(digest.to_string()));
  auto const last = static_cast<std::int32_t>(digests.size()) - 1;
  auto const algorithm = ztoc.encoding == BlobEncoding::gzip ? V{} : V::of(std::int8_t{2});
  return V::table({V::text(ztoc.version), V::text(ztoc.build_tool), number(ztoc.blob_size),
                   number(ztoc.tar_size), V::table({V::list(std::move(files))}),
                   V::table({algorithm, V::of(last), V::list(std::move(digests)),
                             V::bytes(ztoc.checkpoints)})});
}

/// The bytes of a ztoc.
[[nodiscard]] inline Bytes encode_ztoc(Ztoc const& ztoc) {
  return FlatWriter::write(flat_ztoc(ztoc));
}

/// As Go's time.MarshalText, in UTC.
[[nodiscard]] inline std::string rfc3339(std::int64_t seconds, std::uint32_t nanoseconds) {
  using namespace std::chrono;
  sys_seconds const time{std::chrono::seconds(seconds)};
  auto const day = floor<days>(time);
  year_month_day const ymd(day);
  hh_mm_ss const clock(time - day);
  char text[64];
  std::snprintf(text, sizeof text, "%04d-%02u-%02uT%02d:%02d:%02d", int{ymd.year()},
                unsigned{ymd.month()}, unsigned{ymd.day()}, static_cast<int>(clock.hours().count()),
                static_cast<int>(clock.minutes().count()),
                static_cast<int>(clock.seconds().count()));
  std::string out = text;
  if (nanoseconds > 0) {
    std::snprintf(text, sizeof text, ".%09u", nanoseconds);
    out += text;
    while (out.ends_with('0')) out.pop_back();
  }
  return out + "Z";
}

namespace detail {

/// A record's key ends at its first `=`: a name that holds one has to be wrapped up.
[[nodiscard]] inline ZtocRecord xattr_record(tar::Xattr const& xattr) {
  auto name = xattr.name;
  if (name.find('=') == std::string::npos) {
    return {"SCHILY.xattr." + name, std::string(as_text(xattr.value))};
  }
  for (auto at = name.find('='); at != std::string::npos; at = name.find('=')) {
    name.replace(at, 1, "%3D");
  }
  return {"LIBARCHIVE.xattr." + name, base64_encode(as_text(xattr.value))};
}

}  // namespace detail

/// What SOCI would list of an archive, as far as our own reader of archives knows it.
[[nodiscard]] inline std::vector<ZtocFile> ztoc_files(Bytes const& archive) {
  std::vector<ZtocFile> files;
  auto const add = [&](tar::Entry&& entry) -> Result<void> {
    constexpr std::string_view types[] = {"reg",   "hardlink", "symlink", "char",
                                          "block", "dir",      "fifo"};
    ZtocFile file;
    file.name = entry.path;
    file.type = types[static_cast<std::size_t>(entry.type)];
    file.offset = entry.extents.empty() ? entry.header_offset + 512 : entry.extents[0].tar_offset;
    file.size = entry.size;
    file.link = entry.link;
    file.mode = entry.mode;
    file.uid = entry.uid;
    file.gid = entry.gid;
    file.time = rfc3339(entry.mtime.seconds, entry.mtime.nanoseconds);
    file.dev_major = entry.dev_major;
    file.dev_minor = entry.dev_minor;
    if (entry.sparse) file.records.push_back({"GNU.sparse.major", "1"});
    for (auto const& xattr : entry.xattrs) file.records.push_back(detail::xattr_record(xattr));
    files.push_back(std::move(file));
    return {};
  };
  if (auto const ok = tar::for_each_entry(Memory(archive), add); !ok) {
    throw std::runtime_error(ok.error().message());
  }
  return files;
}

/// The ztoc of a gzip layer with the given index, but for its files.
[[nodiscard]] inline Ztoc gzip_ztoc(Bytes const& blob, std::uint64_t tar_size,
                                    GzipIndex const& index, std::uint64_t span_size) {
  Ztoc ztoc{"0.9", "ztoc_maker", blob.size(), tar_size, BlobEncoding::gzip, {}, {}, {}};
  auto const written = write_zinfo(index, span_size, [&](std::span<std::byte const> piece) {
    ztoc.checkpoints.insert(ztoc.checkpoints.end(), piece.begin(), piece.end());
    return true;
  });
  if (!written) throw std::runtime_error(written.error().message());
  for (std::size_t i = 0; i < index.checkpoints.size(); ++i) {
    auto const begin = static_cast<std::size_t>(index.checkpoints[i].first_byte());
    auto const end = i + 1 < index.checkpoints.size()
                         ? static_cast<std::size_t>(index.checkpoints[i + 1].in)
                         : blob.size();
    ztoc.span_digests.push_back(digest_of(std::span(blob).subspan(begin, end - begin)));
  }
  return ztoc;
}

/// The ztoc of a plain layer, but for its files. Checkpoints are 20 bytes, as SOCI writes them now.
[[nodiscard]] inline Ztoc plain_ztoc(Bytes const& blob, std::uint64_t span_size) {
  Ztoc ztoc{"0.9", "ztoc_maker", blob.size(), blob.size(), BlobEncoding::plain, {}, Bytes(20), {}};
  auto const raw = std::span(ztoc.checkpoints);
  store_le(std::uint32_t{2}, raw.first<4>());
  store_le(span_size, raw.subspan<4, 8>());
  store_le(std::uint64_t{blob.size()}, raw.subspan<12, 8>());
  for (std::size_t at = 0; at < blob.size(); at += static_cast<std::size_t>(span_size)) {
    auto const n = std::min(static_cast<std::size_t>(span_size), blob.size() - at);
    ztoc.span_digests.push_back(digest_of(std::span(blob).subspan(at, n)));
  }
  return ztoc;
}

}  // namespace erofs_oci::testing
