// SPDX-License-Identifier: Apache-2.0
// fsck.
#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <erofs_oci/combinator/ref.hpp>
#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/digest/sha256.hpp>
#include <erofs_oci/erofs/fsck.hpp>
#include <erofs_oci/image/open_layers.hpp>
#include <erofs_oci/oci/manifest.hpp>

#include "image_config.hpp"
#include "indexing.hpp"
#include "progress.hpp"
#include "reading.hpp"

namespace mount_oci {
namespace {

using erofs_oci::AnySource;
using erofs_oci::Digest;
using erofs_oci::fail;
using erofs_oci::json::Value;

/// What was found.
struct Found {
  Value findings = Value::array();
  std::uint64_t count = 0;
  std::uint64_t inodes = 0;
  std::uint64_t bytes = 0;
};

/// What an image is checked for.
class Checker {
 public:
  explicit Checker(Reading const& reading) : reading_(reading) {}

  [[nodiscard]] Result<void> run() {
    auto const& options = reading_.options.image;
    if (has_own_index(options)) return check_opened();
    EROFS_OCI_TRY_ASSIGN(auto found, find_image(options, reading_.log));
    EROFS_OCI_TRY_ASSIGN(auto const native, is_native(found));
    return native ? check_opened() : check_layers(found);
  }

  [[nodiscard]] Found const& done() const noexcept { return found_; }

 private:
  /// An image without layers' indexes: all that there is to check is in it.
  Result<void> check_opened() {
    EROFS_OCI_TRY_ASSIGN(auto const reader, reading_.open());
    return check_tree(reader, reading_.options.read.data);
  }

  Result<void> check_layers(FoundImage& found) {
    auto const& options = reading_.options.image;
    EROFS_OCI_TRY_ASSIGN(auto const indexed,
                         index_image(found, options, reading_.log, &reading_.guard), found.name);
    EROFS_OCI_TRY_ASSIGN(
        auto merged,
        erofs_oci::open_layers(found.image_layers(), indexed.indexes, read_options(options),
                               indexed.options(reading_.log)),
        found.name);
    EROFS_OCI_TRY_ASSIGN(auto const reader, ImageReader::open(std::move(merged.device.source)),
                         found.name);
    EROFS_OCI_TRY(check_tree(reader, false));
    if (!reading_.options.read.data) return {};
    auto const wanted = diff_ids_of(found);
    if (!wanted) add("configuration", wanted.error().message());
    for (std::size_t i = 0; i < found.layers.size(); ++i) {
      check_data(found.layers[i], indexed.indexes[i], wanted.value_or(std::vector<std::string>()));
    }
    return {};
  }

  Result<void> check_tree(ImageReader const& reader, bool data) {
    EROFS_OCI_TRY_ASSIGN(auto const result, erofs_oci::erofs::check(reader, {.data = data}));
    found_.inodes += result.inodes;
    found_.bytes += result.data_bytes;
    for (auto const& finding : result.list) {
      Value one{{"where", "image"}, {"offset", finding.offset}, {"text", finding.text}};
      if (!finding.path.empty()) put_name(one, "path", finding.path);
      if (finding.nid) one["inode"] = *finding.nid;
      found_.findings.push_back(std::move(one));
    }
    found_.count += result.count;
    return {};
  }

  void check_data(FoundLayer const& layer, erofs_oci::StoredLayer const& index,
                  std::vector<std::string> const& wanted) {
    auto const where = layer_name(layer.number, layer.descriptor);
    auto const found = hash_contents(layer, index);
    if (!found) return add(where, found.error().message());
    auto const& diff_id = index.index.index.diff_id;
    if (diff_id != Digest() && *found != diff_id) {
      add(where,
          "its contents are " + found->to_string() + ", the index is of " + diff_id.to_string());
    }
    if (layer.number < wanted.size() && wanted[layer.number] != found->to_string()) {
      add(where, "its contents are " + found->to_string() + ", the image's configuration says " +
                     wanted[layer.number]);
    }
  }

  Result<Digest> hash_contents(FoundLayer const& layer, erofs_oci::StoredLayer const& index) {
    EROFS_OCI_TRY_ASSIGN(
        auto const contents,
        erofs_oci::open_contents(layer.layer(), index, read_options(reading_.options.image)));
    erofs_oci::Sha256 hash;
    auto const update = [&](auto piece) {
      hash.update(piece);
      found_.bytes += piece.size();
      return true;
    };
    EROFS_OCI_TRY(contents.stream(0, contents.size(), update));
    return hash.finish();
  }

  void add(std::string const& where, std::string const& text) {
    ++found_.count;
    Value one;
    put_name(one, "where", where);
    put_name(one, "text", text);
    found_.findings.push_back(std::move(one));
  }

  Reading const& reading_;
  Found found_;
};

Result<void> print(Reading const& reading, Found const& found) {
  auto& output = reading.output;
  if (reading.options.read.json) {
    return output.put_json({{"image", reading.options.image.image},
                            {"findings", found.findings},
                            {"count", found.count},
                            {"inodes", found.inodes},
                            {"data_bytes", found.bytes}});
  }
  for (auto const& finding : found.findings) {
    auto const path = finding.value("path", std::string());
    EROFS_OCI_TRY(output.put(finding.at("where").get<std::string>() + ": " +
                             (path.empty() ? "" : output.shown(path) + ": ") +
                             finding.at("text").get<std::string>() + "\n"));
  }
  auto text = counted(found.inodes, "file");
  if (reading.options.read.data) text += ", " + size_text(found.bytes) + " of data";
  text += found.count == 0 ? ": sound" : ": " + counted(found.count, "finding");
  return output.put(text + "\n");
}

}  // namespace

Result<Status> run_fsck(Reading const& reading) {
  Checker checker(reading);
  EROFS_OCI_TRY(checker.run());
  EROFS_OCI_TRY(print(reading, checker.done()));
  return checker.done().count == 0 ? 0 : 1;
}

}  // namespace mount_oci
