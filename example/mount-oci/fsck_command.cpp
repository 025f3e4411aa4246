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

#include "indexing.hpp"
#include "progress.hpp"
#include "reading.hpp"

namespace mount_oci {
namespace {

using erofs_oci::AnySource;
using erofs_oci::Digest;
using erofs_oci::fail;
using erofs_oci::erofs::Findings;
using erofs_oci::json::Value;

/// What an image is checked for, and what was found.
class Checker {
 public:
  explicit Checker(Reading const& reading) : reading_(reading) {}

  [[nodiscard]] Result<void> run() {
    auto const& options = reading_.options.image;
    if (has_own_index(options)) return check_opened(true);
    auto found = find_image(options, reading_.log);
    if (!found) return fail(found.error());
    auto const native = is_native(*found);
    if (!native) return fail(native.error());
    if (*native) return check_opened(true);
    return check_layers(*found);
  }

  [[nodiscard]] Value const& findings() const noexcept { return findings_; }
  [[nodiscard]] std::uint64_t count() const noexcept { return count_; }
  [[nodiscard]] std::uint64_t inodes() const noexcept { return inodes_; }
  [[nodiscard]] std::uint64_t bytes() const noexcept { return bytes_; }

 private:
  /// An image without layers' indexes: all that there is to check is in it.
  Result<void> check_opened(bool data_too) {
    auto const reader = reading_.open();
    if (!reader) return fail(reader.error());
    return check_tree(*reader, "image", data_too && reading_.options.read.data);
  }

  Result<void> check_layers(FoundImage& found) {
    auto const& options = reading_.options.image;
    auto const indexed = index_image(found, options, reading_.log, &reading_.guard);
    if (!indexed) return fail(indexed.error(), found.name);
    auto merged = erofs_oci::open_layers(found.image_layers(), indexed->indexes,
                                         read_options(options), indexed->options(reading_.log));
    if (!merged) return fail(merged.error(), found.name);
    auto const reader = ImageReader::open(std::move(merged->device.source));
    if (!reader) return fail(reader.error(), found.name);
    if (auto ok = check_tree(*reader, "image", false); !ok) return ok;
    if (!reading_.options.read.data) return {};
    auto const wanted = diff_ids(found);
    if (!wanted) add("configuration", wanted.error().message());
    for (std::size_t i = 0; i < found.layers.size(); ++i) {
      auto const& layer = found.layers[i];
      auto const& known = indexed->indexes[i];
      check_data(layer, known, wanted.value_or(std::vector<std::string>()));
    }
    return {};
  }

  Result<void> check_tree(ImageReader const& reader, std::string const& where, bool data) {
    auto const result = erofs_oci::erofs::check(reader, {.data = data});
    if (!result) return fail(result.error());
    inodes_ += result->inodes;
    bytes_ += result->data_bytes;
    for (auto const& finding : result->list) {
      Value one{{"where", where}, {"offset", finding.offset}, {"text", finding.text}};
      if (!finding.path.empty()) put_name(one, "path", finding.path);
      if (finding.nid) one["inode"] = *finding.nid;
      findings_.push_back(std::move(one));
    }
    count_ += result->count;
    return {};
  }

  /// What the image's configuration says of the layers' contents; empty without one.
  Result<std::vector<std::string>> diff_ids(FoundImage const& found) const {
    std::vector<std::string> result;
    if (!found.config || !found.config_at) return result;
    erofs_oci::Bytes bytes(static_cast<std::size_t>(
        std::min<std::uint64_t>(found.config->size(), erofs_oci::max_document_size)));
    if (auto const ok = read_exact(*found.config, 0, bytes); !ok) return fail(ok.error());
    auto const digest = erofs_oci::digest_of(bytes, found.config_at->digest.algorithm());
    if (digest != found.config_at->digest) {
      return fail(Errc::digest_mismatch, found.config_at->digest.to_string());
    }
    auto const config = erofs_oci::json::parse(bytes, "configuration");
    if (!config) return fail(config.error());
    auto const* const rootfs = erofs_oci::json::find(*config, "rootfs");
    if (rootfs == nullptr) return result;
    return erofs_oci::json::text_list(*rootfs, "diff_ids");
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
    auto const contents =
        erofs_oci::open_contents(layer.layer(), index, read_options(reading_.options.image));
    if (!contents) return fail(contents.error());
    erofs_oci::Sha256 hash;
    auto const ok = contents->stream(0, contents->size(), [&](auto piece) {
      hash.update(piece);
      bytes_ += piece.size();
      return true;
    });
    if (!ok) return fail(ok.error());
    return hash.finish();
  }

  void add(std::string const& where, std::string const& text) {
    ++count_;
    Value one;
    put_name(one, "where", where);
    put_name(one, "text", text);
    findings_.push_back(std::move(one));
  }

  Reading const& reading_;
  Value findings_ = Value::array();
  std::uint64_t count_ = 0;
  std::uint64_t inodes_ = 0;
  std::uint64_t bytes_ = 0;
};

Result<void> print(Reading const& reading, Checker const& checker) {
  auto& output = reading.output;
  if (reading.options.read.json) {
    return output.put_json({{"image", reading.options.image.image},
                            {"findings", checker.findings()},
                            {"count", checker.count()},
                            {"inodes", checker.inodes()},
                            {"data_bytes", checker.bytes()}});
  }
  for (auto const& finding : checker.findings()) {
    auto const path = finding.value("path", std::string());
    auto const ok = output.put(finding.at("where").get<std::string>() + ": " +
                               (path.empty() ? "" : output.shown(path) + ": ") +
                               finding.at("text").get<std::string>() + "\n");
    if (!ok) return ok;
  }
  auto text = std::to_string(checker.inodes()) + " files";
  if (reading.options.read.data) text += ", " + size_text(checker.bytes()) + " of data";
  text += checker.count() == 0 ? ": sound" : ": " + std::to_string(checker.count()) + " findings";
  return output.put(text + "\n");
}

}  // namespace

Result<Status> run_fsck(Reading const& reading) {
  Checker checker(reading);
  if (auto const ok = checker.run(); !ok) return fail(ok.error());
  if (auto const ok = print(reading, checker); !ok) return fail(ok.error());
  return checker.count() == 0 ? 0 : 1;
}

}  // namespace mount_oci
