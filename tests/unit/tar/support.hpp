// SPDX-License-Identifier: Apache-2.0
/// @file
/// What the tar tests share: decoding a whole archive, and the archives to try things on.
#pragma once

#include <catch.hpp>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/tar/decoder.hpp>
#include <erofs_oci/testing/tar_maker.hpp>

#include "data_path.hpp"

namespace erofs_oci::tar {

/// All that a decoder said about an archive.
struct Decoded {
  std::vector<Entry> entries;
  std::string error;  ///< empty: none
  std::error_code code;
  std::vector<Report> reports;

  friend bool operator==(Decoded const&, Decoded const&) = default;
};

/// Decodes `archive`, handed over in pieces of the lengths that `next_length` gives.
template <class NextLength>
[[nodiscard]] Decoded decode_in_pieces(std::span<std::byte const> archive, NextLength next_length) {
  Decoder decoder;
  Decoded out;
  auto const keep = [&](Entry&& entry) -> Result<void> {
    out.entries.push_back(std::move(entry));
    return {};
  };
  Result<void> ok;
  while (ok && !archive.empty()) {
    auto const n = std::min<std::size_t>(next_length(), archive.size());
    ok = decoder.push(archive.first(n), keep);
    archive = archive.subspan(n);
  }
  if (ok) ok = decoder.finish(keep);
  if (!ok) {
    out.error = ok.error().message();
    out.code = ok.error().code;
  }
  out.reports = decoder.reports().list();
  return out;
}

[[nodiscard]] inline Decoded decode(std::span<std::byte const> archive) {
  return decode_in_pieces(archive, [&] { return archive.size(); });
}

/// The only entry of an archive that must have one.
[[nodiscard]] inline Entry only_entry(std::span<std::byte const> archive) {
  auto decoded = decode(archive);
  INFO(decoded.error);
  REQUIRE(decoded.error.empty());
  REQUIRE(decoded.entries.size() == 1);
  return std::move(decoded.entries.front());
}

[[nodiscard]] inline Bytes read_file(std::filesystem::path const& path) {
  std::ifstream in(path, std::ios::binary);
  REQUIRE(in.good());
  std::string const text{std::istreambuf_iterator<char>(in), {}};
  return to_bytes(text);
}

/// The archives of tests/data/tarindex/in.
[[nodiscard]] inline std::vector<std::filesystem::path> archives() {
  std::vector<std::filesystem::path> paths;
  for (auto const& file : std::filesystem::directory_iterator(test_data("/tarindex/in"))) {
    if (file.path().extension() == ".tar") paths.push_back(file.path());
  }
  std::ranges::sort(paths);
  REQUIRE(paths.size() > 20);
  return paths;
}

}  // namespace erofs_oci::tar
