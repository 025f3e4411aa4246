// SPDX-License-Identifier: Apache-2.0
/// @file
/// Archives of sparse files in each of their forms.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/tar/sparse.hpp>
#include <erofs_oci/testing/tar_maker.hpp>

namespace erofs_oci::tarindex {

enum class SparseForm : std::uint8_t { gnu, pax00, pax01, pax10 };

/// A sparse file: its segments, and all of its bytes.
struct SparseFile {
  std::vector<tar::Segment> segments;
  Bytes content;

  [[nodiscard]] Bytes packed() const {
    Bytes bytes;
    for (auto const& [offset, length] : segments) {
      auto const from = content.begin() + static_cast<std::ptrdiff_t>(offset);
      bytes.insert(bytes.end(), from, from + static_cast<std::ptrdiff_t>(length));
    }
    return bytes;
  }
};

/// A member with an old GNU map, in its header and extension blocks.
inline void add_gnu(testing::TarMaker& maker, std::string const& name, SparseFile const& file) {
  auto const data = file.packed();
  auto header = testing::header_block(
      {.name = name, .typeflag = 'S', .magic = testing::TarMaker::gnu_magic()}, data.size());
  std::vector<Bytes> extensions;
  for (std::size_t i = 0; i < file.segments.size(); ++i) {
    if (i >= 4 && (i - 4) % 21 == 0) extensions.emplace_back(512);
    auto& block = i < 4 ? header : extensions.back();
    auto const at = i < 4 ? 386 + 24 * i : 24 * ((i - 4) % 21);
    testing::put_number(block, at, 11, file.segments[i].offset);
    testing::put_number(block, at + 12, 11, file.segments[i].length);
  }
  testing::put_number(header, 483, 11, file.content.size());
  if (!extensions.empty()) header[482] = std::byte{1};
  for (std::size_t i = 0; i + 1 < extensions.size(); ++i) extensions[i][504] = std::byte{1};
  testing::seal(header);
  maker.raw(header);
  for (auto const& block : extensions) maker.raw(block);
  auto padded = data;
  padded.resize((data.size() + 511) / 512 * 512, std::byte{0xee});  // no reader may show it
  maker.raw(padded);
}

/// A member in one of the PAX forms.
inline void add_pax(testing::TarMaker& maker, std::string const& name, SparseFile const& file,
                    SparseForm form) {
  auto const size = std::to_string(file.content.size());
  std::vector<std::pair<std::string, std::string>> records;
  std::string map;
  if (form == SparseForm::pax10) {
    records = {{"GNU.sparse.major", "1"}, {"GNU.sparse.minor", "0"}, {"GNU.sparse.realsize", size}};
    map = std::to_string(file.segments.size()) + "\n";
    for (auto const& [offset, length] : file.segments) {
      map += std::to_string(offset) + "\n" + std::to_string(length) + "\n";
    }
    map.resize((map.size() + 511) / 512 * 512);
  } else {
    records = {{"GNU.sparse.size", size},
               {"GNU.sparse.numblocks", std::to_string(file.segments.size())}};
    std::string list;
    for (auto const& [offset, length] : file.segments) {
      auto const pair = std::pair(std::to_string(offset), std::to_string(length));
      list += (list.empty() ? "" : ",") + pair.first + "," + pair.second;
      if (form == SparseForm::pax00) {
        records.emplace_back("GNU.sparse.offset", pair.first);
        records.emplace_back("GNU.sparse.numbytes", pair.second);
      }
    }
    if (form == SparseForm::pax01) records.emplace_back("GNU.sparse.map", list);
  }
  records.emplace_back("GNU.sparse.name", name);
  maker.pax(records).file("GNUSparseFile.0/x", map + std::string(as_text(file.packed())));
}

inline void add_sparse(testing::TarMaker& maker, std::string const& name, SparseFile const& file,
                       SparseForm form) {
  if (form == SparseForm::gnu) {
    add_gnu(maker, name, file);
  } else {
    add_pax(maker, name, file, form);
  }
}

/// A file with segments of these offsets and lengths, filled with bytes that are not zero.
inline SparseFile sparse_file(std::vector<tar::Segment> segments, std::uint64_t size) {
  SparseFile file{std::move(segments), Bytes(static_cast<std::size_t>(size))};
  unsigned n = 0;
  for (auto const& [offset, length] : file.segments) {
    for (auto i = offset; i < offset + length; ++i) {
      file.content[static_cast<std::size_t>(i)] = static_cast<std::byte>(++n % 255 + 1);
    }
  }
  return file;
}

}  // namespace erofs_oci::tarindex
