// SPDX-License-Identifier: Apache-2.0
// Fixtures and manifests for the tests of erofs/.
#pragma once

#include <cstdio>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>
#include <zlib.h>

#include <erofs_oci/core/any_source.hpp>
#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/digest/sha256.hpp>
#include <erofs_oci/erofs/reader.hpp>
#include <erofs_oci/erofs/walk.hpp>
#include <erofs_oci/source/memory.hpp>
#include <erofs_oci/testing/sparse.hpp>

#include "data_path.hpp"

namespace erofs_oci::erofs::test {

inline std::string const data_dir = test_data("/tarindex/");

/// A file, gunzipped if it is gzip.
inline Bytes load(std::string const& path) {
  auto* const file = ::gzopen(path.c_str(), "rb");
  if (file == nullptr) throw std::runtime_error("cannot open " + path);
  Bytes bytes;
  Bytes buffer(1 << 16);
  for (;;) {
    auto const n = ::gzread(file, buffer.data(), static_cast<unsigned>(buffer.size()));
    if (n <= 0) break;
    bytes.insert(bytes.end(), buffer.begin(), buffer.begin() + n);
  }
  ::gzclose(file);
  return bytes;
}

inline nlohmann::json load_json(std::string const& path) {
  return nlohmann::json::parse(as_text(load(path)));
}

inline Bytes base64(std::string const& text) {
  static std::string const digits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  Bytes bytes;
  std::uint32_t bits = 0;
  int count = 0;
  for (auto const c : text) {
    auto const value = digits.find(c);
    if (value == std::string::npos) continue;
    bits = (bits << 6) | static_cast<std::uint32_t>(value);
    count += 6;
    if (count >= 8) bytes.push_back(static_cast<std::byte>(bits >> (count -= 8)));
  }
  return bytes;
}

/// A string of a manifest: plain, or in base64.
inline std::string text_of(nlohmann::json const& value) {
  if (value.is_string()) return value.get<std::string>();
  return std::string(as_text(base64(value.at("b64").get<std::string>())));
}

/// What a manifest says of one file.
struct Line {
  std::string path;
  std::string type;
  std::string mode;
  std::uint64_t uid = 0, gid = 0;
  std::int64_t mtime = 0;
  std::uint32_t nsec = 0;
  std::uint64_t size = 0, nlink = 0, ino = 0;
  std::string rdev, target, sha256;
  std::map<std::string, std::string> xattrs;
  std::vector<std::pair<std::uint64_t, std::string>> spots;

  friend bool operator==(Line const&, Line const&) = default;

  friend std::ostream& operator<<(std::ostream& out, Line const& l) {
    out << l.path << ' ' << l.type << ' ' << l.mode << ' ' << l.uid << ':' << l.gid << ' '
        << l.mtime << '.' << l.nsec << " size " << l.size << " nlink " << l.nlink << " ino "
        << l.ino << ' ' << l.rdev << ' ' << l.target << ' ' << l.sha256;
    for (auto const& [name, value] : l.xattrs) out << ' ' << name << '=' << value;
    return out;
  }
};

using Lines = std::map<std::string, Line>;

inline Line line_of(nlohmann::json const& json) {
  Line l;
  l.path = text_of(json.at("path"));
  l.type = json.at("type").get<std::string>();
  l.mode = json.at("mode").get<std::string>();
  l.uid = json.at("uid").get<std::uint64_t>();
  l.gid = json.at("gid").get<std::uint64_t>();
  l.mtime = json.at("mtime").get<std::int64_t>();
  l.nsec = json.at("mtime_nsec").get<std::uint32_t>();
  l.size = json.at("size").get<std::uint64_t>();
  l.nlink = json.at("nlink").get<std::uint64_t>();
  l.ino = json.value("ino", std::uint64_t{0});
  l.rdev = json.value("rdev", std::string());
  l.sha256 = json.value("sha256", std::string());
  if (json.contains("target")) l.target = text_of(json.at("target"));
  if (json.contains("xattrs")) {
    for (auto const& [name, value] : json.at("xattrs").items()) l.xattrs[name] = text_of(value);
  }
  if (json.contains("spot")) {
    for (auto const& spot : json.at("spot")) {
      l.spots.emplace_back(spot.at("offset").get<std::uint64_t>(),
                           spot.at("text").get<std::string>());
    }
  }
  return l;
}

inline Lines manifest(std::string const& path) {
  auto const bytes = load(path);
  std::istringstream stream{std::string(as_text(bytes))};
  Lines lines;
  for (std::string text; std::getline(stream, text);) {
    auto line = line_of(nlohmann::json::parse(text));
    auto key = line.path;
    lines.emplace(std::move(key), std::move(line));
  }
  return lines;
}

inline std::string type_name(FileType type) {
  switch (type) {
    case FileType::regular: return "reg";
    case FileType::directory: return "dir";
    case FileType::char_device: return "chr";
    case FileType::block_device: return "blk";
    case FileType::fifo: return "fifo";
    case FileType::socket: return "sock";
    case FileType::symlink: return "lnk";
    case FileType::unknown: break;
  }
  return "?";
}

/// The same of an inode of an image; `expected` says how its content is to be looked at.
template <class S>
Line line_of(Reader<S> const& reader, std::string const& path, Inode const& inode,
             Line const* expected) {
  Line l;
  l.path = path;
  l.type = type_name(file_type(inode.mode()));
  char mode[8];
  std::snprintf(mode, sizeof mode, "%04o", inode.mode() & 07777u);
  l.mode = mode;
  l.uid = inode.record.uid;
  l.gid = inode.record.gid;
  l.mtime = inode.mtime.seconds;
  l.nsec = inode.mtime.nanoseconds;
  l.size = inode.size();
  l.nlink = inode.record.links;
  if (expected != nullptr && expected->ino != 0) l.ino = inode.nid;
  if (inode.is_device()) {
    l.rdev = std::to_string(inode.device().major) + ":" + std::to_string(inode.device().minor);
  }
  if (inode.is_symlink()) l.target = reader.read_link(inode).value();
  auto const xattrs = reader.xattrs(inode).value();
  for (auto const& xattr : xattrs) {
    l.xattrs[xattr.name] = as_text(xattr.value);
  }
  if (expected != nullptr && !expected->sha256.empty()) {
    Sha256 hash;
    auto const ok = reader.stream_file(inode, 0, inode.size(), [&](auto bytes) {
      hash.update(bytes);
      return true;
    });
    l.sha256 = ok ? hash.finish().hex() : ok.error().message();
  }
  if (expected != nullptr) {
    for (auto const& [offset, text] : expected->spots) {
      std::string found(text.size(), '\0');
      auto const n = reader.read(inode, offset, std::as_writable_bytes(std::span(found)));
      l.spots.emplace_back(offset, n && *n == found.size() ? found : "unreadable");
    }
  }
  return l;
}

/// All files of an image as manifest lines; an error is a line of its own.
template <class S>
Lines lines_of(Reader<S> const& reader, Lines const& expected) {
  Lines lines;
  auto const ok = walk(reader, [&](Visit const& at) {
    auto const known = expected.find(at.path);
    if (at.error != nullptr) {
      lines[at.path + "!"].path = at.error->message();
    } else {
      lines[at.path] =
          line_of(reader, at.path, *at.inode, known == expected.end() ? nullptr : &known->second);
    }
    return Step::enter;
  });
  if (!ok) lines["!"].path = ok.error().message();
  return lines;
}

/// A tar of the fixtures: a file, or a description of a sparse one.
inline testing::Sparse tar_of(std::string const& path) {
  if (!path.ends_with(".sparse.json")) {
    auto bytes = load(path);
    auto const size = bytes.size();
    return testing::Sparse(size, {{0, std::move(bytes)}});
  }
  auto const json = load_json(path);
  std::map<std::uint64_t, Bytes> extents;
  for (auto const& extent : json.at("extents")) {
    extents.emplace(extent.at("offset").get<std::uint64_t>(),
                    base64(extent.at("base64").get<std::string>()));
  }
  return testing::Sparse(json.at("size").get<std::uint64_t>(), std::move(extents));
}

/// The image followed by devices, each cut to what its slot says: as a flat image is put together.
class Flat {
 public:
  Flat(Bytes image, std::vector<std::pair<std::uint64_t, testing::Sparse>> parts)
      : image_(std::move(image)), parts_(std::move(parts)) {}

  [[nodiscard]] std::uint64_t size() const noexcept {
    auto total = std::uint64_t{image_.size()};
    for (auto const& part : parts_) total += part.first;
    return total;
  }

  [[nodiscard]] Result<std::size_t> read_at(std::uint64_t offset, std::span<std::byte> out) const {
    auto const n = readable(size(), offset, out.size());
    std::size_t done = 0;
    auto begin = std::uint64_t{0};
    auto const take = [&](auto const& source, std::uint64_t length) {
      auto const at = offset + done;
      if (done < n && at >= begin && at < begin + length) {
        auto const part = out.subspan(
            done, static_cast<std::size_t>(std::min<std::uint64_t>(n - done, begin + length - at)));
        std::ranges::fill(part, std::byte{0});  // a device shorter than its slot
        if (!source.read_at(at - begin, part)) return;
        done += part.size();
      }
      begin += length;
    };
    take(Memory(image_), image_.size());
    for (auto const& part : parts_) take(part.second, part.first);
    return n;
  }

 private:
  Bytes image_;
  std::vector<std::pair<std::uint64_t, testing::Sparse>> parts_;
};

static_assert(RandomAccessSource<Flat>);

}  // namespace erofs_oci::erofs::test
