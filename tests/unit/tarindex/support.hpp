// SPDX-License-Identifier: Apache-2.0
/// @file
/// What the tarindex tests share: a tree as a list of files, and the manifests to compare it with.
#pragma once

#include <catch.hpp>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/digest/sha256.hpp>
#include <erofs_oci/erofs/tree.hpp>
#include <erofs_oci/gzip/decoder.hpp>
#include <erofs_oci/source/memory.hpp>
#include <erofs_oci/tar/reader.hpp>
#include <erofs_oci/tarindex/layer.hpp>
#include <erofs_oci/testing/tar_maker.hpp>

#include "data_path.hpp"

namespace erofs_oci::tarindex {

/// A file as a manifest describes it.
struct Row {
  std::string type;
  unsigned mode = 0;
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  std::int64_t mtime = 0;
  std::uint32_t nsec = 0;
  std::uint64_t size = 0;   // 0 for directories
  std::uint32_t nlink = 0;  // 0 for directories
  std::string rdev;
  std::string target;
  std::map<std::string, std::string> xattrs;
  std::string sha256;  // of regular files; empty if too big to hash

  friend bool operator==(Row const&, Row const&) = default;

  friend std::ostream& operator<<(std::ostream& out, Row const& row) {
    out << row.type << " " << std::oct << row.mode << std::dec << " " << row.uid << ":" << row.gid
        << " " << row.mtime << "." << row.nsec << " size " << row.size << " nlink " << row.nlink
        << " rdev " << row.rdev << " -> " << row.target << " " << row.sha256;
    for (auto const& [name, value] : row.xattrs) {
      out << " [" << name << "=" << hex(as_bytes(value)) << "]";
    }
    return out;
  }
};

/// By path.
using Rows = std::map<std::string, Row>;

[[nodiscard]] inline Bytes read_file(std::filesystem::path const& path) {
  INFO(path);
  std::ifstream in(path, std::ios::binary);
  REQUIRE(in.good());
  std::string const text{std::istreambuf_iterator<char>(in), {}};
  return to_bytes(text);
}

[[nodiscard]] inline Bytes gunzip(std::span<std::byte const> packed) {
  GzipDecoder<> decoder;
  Bytes out;
  Bytes buffer(1 << 16);
  for (;;) {
    auto const step = decoder.decode(packed, buffer);
    REQUIRE(step);
    if (step->consumed == 0 && step->produced == 0) return out;
    out.insert(out.end(), buffer.begin(),
               buffer.begin() + static_cast<std::ptrdiff_t>(step->produced));
    packed = packed.subspan(step->consumed);
  }
}

[[nodiscard]] inline Bytes read_data(std::string const& name) {
  auto bytes = read_file(test_data("/tarindex/") + name);
  return name.ends_with(".gz") ? gunzip(bytes) : bytes;
}

namespace detail {

/// A string of a manifest: text, or raw bytes in base64.
[[nodiscard]] inline std::string raw_text(nlohmann::json const& value) {
  if (value.is_string()) return value.get<std::string>();
  auto const bytes = tar::detail::base64_decoded(value.at("b64").get<std::string>());
  REQUIRE(bytes);
  return std::string(as_text(*bytes));
}

[[nodiscard]] inline Row row_of(nlohmann::json const& object) {
  Row row;
  row.type = object.at("type");
  row.mode = static_cast<unsigned>(std::stoul(object.at("mode").get<std::string>(), nullptr, 8));
  row.uid = object.at("uid");
  row.gid = object.at("gid");
  row.mtime = object.at("mtime");
  row.nsec = object.at("mtime_nsec");
  if (row.type != "dir") {
    row.size = object.at("size");
    row.nlink = object.at("nlink");
  }
  row.rdev = object.value("rdev", "");
  if (object.contains("target")) row.target = raw_text(object["target"]);
  if (object.contains("xattrs")) {
    for (auto const& [name, value] : object["xattrs"].items()) row.xattrs[name] = raw_text(value);
  }
  row.sha256 = object.value("sha256", "");
  return row;
}

}  // namespace detail

/// A manifest of tests/data/tarindex/manifest.
[[nodiscard]] inline Rows read_manifest(std::string const& name) {
  std::istringstream in{std::string(as_text(read_data("manifest/" + name)))};
  Rows rows;
  for (std::string line; std::getline(in, line);) {
    auto const object = nlohmann::json::parse(line);
    rows.emplace(detail::raw_text(object.at("path")), detail::row_of(object));
  }
  REQUIRE_FALSE(rows.empty());
  return rows;
}

/// How removals show in rows.
enum class Show : std::uint8_t {
  nothing,  ///< not at all
  overlay,  ///< as overlayfs wants them: devices 0:0, trusted.overlay attributes
};

/// Turns a tree into rows; reads data of device i from `archives[i - 1]`.
class Lister {
 public:
  Lister(erofs::Tree const& tree, std::vector<Bytes> const& archives, Show show)
      : tree_(tree), archives_(archives), show_(show) {
    list(erofs::root_id, "");
    for (auto& [path, id] : ids_) {
      auto& row = rows_.at(path);
      if (row.type != "dir") row.nlink = links_[id];
    }
  }

  [[nodiscard]] Rows const& rows() const { return rows_; }

  /// Paths of directories that nothing described.
  [[nodiscard]] std::vector<std::string> const& implied() const { return implied_; }

 private:
  void list(erofs::NodeId id, std::string const& path) {
    auto const& node = tree_[id];
    add(id, path.empty() ? "/" : path);
    auto const* const directory = node.directory();
    if (directory == nullptr) return;
    if (directory->implied) implied_.push_back(path.empty() ? "/" : path);
    for (auto const& [name, child] : directory->children) {
      if (tree_[child].kind == erofs::Kind::whiteout && show_ == Show::nothing) continue;
      list(child, path + "/" + name);
    }
  }

  void add(erofs::NodeId id, std::string const& path) {
    auto const& node = tree_[id];
    ids_[path] = id;
    ++links_[id];
    auto& row = rows_[path];
    row.type = type(node.kind);
    row.mode = node.permissions;
    row.uid = node.uid;
    row.gid = node.gid;
    row.mtime = node.mtime.seconds;
    row.nsec = node.mtime.nanoseconds;
    for (auto const& [name, value] : node.xattrs) row.xattrs[name] = as_text(value);
    if (auto const* const file = node.regular()) {
      row.size = file->size;
      if (file->size < (1 << 24)) row.sha256 = digest_of(content(*file)).hex();
    }
    if (auto const* const link = node.symlink()) {
      row.target = link->target;
      row.size = link->target.size();
    }
    if (auto const* const device = node.device()) {
      row.rdev = std::to_string(device->major) + ":" + std::to_string(device->minor);
    }
    if (node.kind == erofs::Kind::whiteout) row.rdev = "0:0";
    if (node.directory() != nullptr && show_ == Show::overlay) mark(*node.directory(), row);
  }

  void mark(erofs::Directory const& directory, Row& row) const {
    auto const hides = std::ranges::any_of(directory.children, [&](auto const& child) {
      return tree_[child.second].kind == erofs::Kind::whiteout;
    });
    if (directory.opaque) row.xattrs["trusted.overlay.opaque"] = "y";
    if (hides) row.xattrs["trusted.overlay.origin"] = "";
  }

  [[nodiscard]] Bytes content(erofs::Regular const& file) const {
    Bytes bytes(static_cast<std::size_t>(file.size));
    for (auto const& extent : file.extents) {
      auto const& archive = extent.device == 0 ? file.stored : archives_.at(extent.device - 1);
      REQUIRE(extent.device_offset + extent.length <= archive.size());
      REQUIRE(extent.file_offset + extent.length <= file.size);
      std::copy_n(archive.begin() + static_cast<std::ptrdiff_t>(extent.device_offset),
                  extent.length, bytes.begin() + static_cast<std::ptrdiff_t>(extent.file_offset));
    }
    return bytes;
  }

  [[nodiscard]] static std::string type(erofs::Kind kind) {
    switch (kind) {
      case erofs::Kind::regular: return "reg";
      case erofs::Kind::directory: return "dir";
      case erofs::Kind::symlink: return "lnk";
      case erofs::Kind::char_device:
      case erofs::Kind::whiteout: return "chr";
      case erofs::Kind::block_device: return "blk";
      case erofs::Kind::fifo: return "fifo";
      case erofs::Kind::socket: return "sock";
    }
    return "?";
  }

  erofs::Tree const& tree_;
  std::vector<Bytes> const& archives_;
  Show show_;
  Rows rows_;
  std::vector<std::string> implied_;
  std::map<std::string, erofs::NodeId> ids_;
  std::map<erofs::NodeId, std::uint32_t> links_;
};

/// The layer of an archive, or why there is none.
[[nodiscard]] inline Result<Layer> layer_of(Bytes archive, LayerOptions options = {}) {
  LayerBuilder builder(options);
  auto const reports = tar::for_each_entry(Memory(std::move(archive)), [&](tar::Entry&& entry) {
    return builder.apply(std::move(entry));
  });
  if (!reports) return fail(reports.error());
  return std::move(builder).finish();
}

/// Its rows, without data.
[[nodiscard]] inline Rows rows_of(testing::TarMaker const& maker, Show show = Show::overlay) {
  auto const layer = layer_of(maker.bytes());
  if (!layer) FAIL(layer.error().message());
  return Lister(layer->tree, {maker.bytes()}, show).rows();
}

/// Both as lists of lines, so that a failure shows what differs.
inline void check_rows(Rows const& ours, Rows const& expected) {
  for (auto const& [path, row] : expected) {
    INFO("path " << path);
    auto const found = ours.find(path);
    if (found == ours.end()) {
      FAIL_CHECK("missing");
    } else {
      CHECK(found->second == row);
    }
  }
  for (auto const& [path, row] : ours) {
    INFO("path " << path << " " << row);
    CHECK(expected.contains(path));
  }
}

}  // namespace erofs_oci::tarindex
