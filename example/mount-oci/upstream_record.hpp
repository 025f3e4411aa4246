// SPDX-License-Identifier: Apache-2.0
/// @file
/// UpstreamRecord: a recovery record of mount.erofs. Read, never written.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <erofs_oci/core/result.hpp>
#include <erofs_oci/core/text.hpp>
#include <erofs_oci/digest/digest.hpp>
#include <erofs_oci/posix/path.hpp>

namespace mount_oci {

using erofs_oci::Digest;
using erofs_oci::Errc;
using erofs_oci::fail;
using erofs_oci::is_absolute_path;
using erofs_oci::is_made_of;
using erofs_oci::Result;

/// One of the five records that mount.erofs leaves in /run/erofsmount.
///
/// It holds less than a Record, and the importer has to check what is missing. It names an image by
/// a tag that may have moved, so the importer must look the layers up and compare them with what
/// the device served. OCI_LAYER does not name a tarindex, so its blob must be an EROFS image.
/// Nothing identifies a local file. Whether the registry was reached by plain http is missing, too.
struct UpstreamRecord {
  /// The record's first word.
  enum class Kind : std::uint8_t {
    local,          ///< LOCAL: `path`
    oci_layer,      ///< OCI_LAYER: `image`, `platform`, `layer`
    native_blob,    ///< OCI_NATIVE_BLOB: `image`, `platform`, `blob`
    tarindex_blob,  ///< TARINDEX_OCI_BLOB: the same, `tarindex` and perhaps `zinfo`
    s3_object,      ///< S3_OBJECT: `object`, `endpoint`
  };

  Kind kind = Kind::local;
  std::string path{};      ///< absolute; may hold spaces
  std::string image{};     ///< reference, as the user typed it
  std::string platform{};  ///< `os/architecture[/variant]`; empty: what the machine is
  std::optional<std::uint32_t> layer{};  ///< number, from 0, in the manifest of that time
  std::optional<Digest> blob{};
  std::string tarindex{};  ///< absolute
  std::string zinfo{};     ///< absolute, or empty
  std::string object{};    ///< `bucket/key`
  std::string endpoint{};
  /// The record holds a user name and a password. They are not used: the user must give credentials
  /// in another way, and should remove the record.
  bool had_credentials = false;

  friend bool operator==(UpstreamRecord const&, UpstreamRecord const&) = default;
};

/// Reads a whole record file: one line, ended by a newline and followed by nothing, its fields
/// split by exactly one space. Messages never quote the record, which may hold a password.
///
/// @error{Errc::truncated, the newline is missing\, or there is nothing}
/// @error{Errc::corrupt, it is not such a line: too many fields as by a space in a path\, too few\,
/// bytes behind the line}
/// @error{Errc::invalid_argument, a field that means nothing\, such as a path that is not absolute}
/// @error{Errc::unsupported, an unknown type\, or a zinfo without a tarindex}
[[nodiscard]] Result<UpstreamRecord> parse_upstream_record(std::string_view text);

namespace detail {

/// An empty optional if all is well, else what is wrong.
using Objection = std::optional<std::string>;

/// Base64 with padding, by its look; nothing is decoded, so no secret is made.
inline bool is_base64(std::string_view text) noexcept {
  if (text.empty() || text.size() % 4 != 0) return false;
  for (int i = 0; i < 2 && text.ends_with('='); ++i) text.remove_suffix(1);
  return is_made_of(text, "+/");
}

/// Takes the fields of an upstream record apart and checks each.
class UpstreamParser {
 public:
  explicit UpstreamParser(std::vector<std::string_view> fields) : fields_(std::move(fields)) {}

  Result<UpstreamRecord> run() {
    using Kind = UpstreamRecord::Kind;
    auto const type = fields_.front();
    Objection objection;
    if (type == "OCI_LAYER") {
      objection = image(Kind::oci_layer, {4, 5});
    } else if (type == "OCI_NATIVE_BLOB") {
      objection = image(Kind::native_blob, {4, 5});
    } else if (type == "TARINDEX_OCI_BLOB") {
      objection = image(Kind::tarindex_blob, {7});
    } else if (type == "S3_OBJECT") {
      objection = s3();
    } else {
      return fail(Errc::unsupported, "upstream record: offset 0: unknown type");
    }
    if (objection) return fail(code_, "upstream record: " + *std::move(objection));
    return std::move(out_);
  }

 private:
  // Exactly that many: a field that is left out is empty, but its space is there.
  Objection count(std::initializer_list<std::size_t> allowed) {
    if (std::ranges::find(allowed, fields_.size()) != allowed.end()) return std::nullopt;
    code_ = Errc::corrupt;
    return std::to_string(fields_.size()) + " fields, which is none of its forms";
  }

  Objection image(UpstreamRecord::Kind kind, std::initializer_list<std::size_t> allowed) {
    if (auto objection = count(allowed)) return objection;
    out_.kind = kind;
    out_.image = fields_[1];
    out_.platform = fields_[2];
    if (out_.image.empty() || out_.image.size() > 1024 || !is_made_of(out_.image, "._-/:@[]+")) {
      return "field 1: not an image reference";
    }
    auto const slashes = std::ranges::count(out_.platform, '/');
    if (!out_.platform.empty() &&
        (slashes < 1 || slashes > 2 || out_.platform.size() > 64 ||
         !is_absolute_path("/" + out_.platform) || !is_made_of(out_.platform, "._-/"))) {
      return "field 2: not a platform";
    }
    if (auto objection = kind == UpstreamRecord::Kind::oci_layer ? layer() : blob()) {
      return objection;
    }
    if (auto objection = credentials(4)) return objection;
    return kind == UpstreamRecord::Kind::tarindex_blob ? indexes() : std::nullopt;
  }

  Objection layer() {
    auto const number = erofs_oci::whole_number<std::uint32_t>(fields_[3]);
    if (!number || std::to_string(*number) != fields_[3] || *number > 0x7fffffff) {
      return "field 3: not the number of a layer";
    }
    out_.layer = number;
    return std::nullopt;
  }

  Objection blob() {
    auto const digest = Digest::parse(fields_[3]);
    if (!digest) return "field 3: not a digest";
    out_.blob = *digest;
    return std::nullopt;
  }

  Objection credentials(std::size_t field) {
    if (fields_.size() <= field || fields_[field].empty()) return std::nullopt;
    if (!is_base64(fields_[field])) {
      return "field " + std::to_string(field) + ": not credentials in base64";
    }
    out_.had_credentials = true;
    return std::nullopt;
  }

  Objection indexes() {
    out_.tarindex = fields_[5];
    out_.zinfo = fields_[6];
    if (out_.tarindex.empty()) {
      code_ = Errc::unsupported;
      return "field 5: no tarindex, so the device was a bare tar and no file system";
    }
    if (!is_absolute_path(out_.tarindex)) return "field 5: not an absolute path";
    if (!out_.zinfo.empty() && !is_absolute_path(out_.zinfo)) {
      return "field 6: not an absolute path";
    }
    return std::nullopt;
  }

  Objection s3() {
    if (auto objection = count({6, 7})) return objection;
    out_.kind = UpstreamRecord::Kind::s3_object;
    out_.object = fields_[1];
    out_.endpoint = fields_[2];
    auto const slash = out_.object.find('/');
    if (slash == 0 || slash >= out_.object.size() - 1 || out_.object.size() > 1100) {
      return "field 1: not a bucket and key";
    }
    if (out_.endpoint.empty() || !is_made_of(out_.endpoint, ".-:/[]_")) {
      return "field 2: not an endpoint";
    }
    if (fields_[3] != "0" && fields_[3] != "1") return "field 3: not a URL style";
    if (fields_[4] != "0" && fields_[4] != "1") return "field 4: not a signature version";
    auto const region = fields_[5];
    if (region != "(nil)" && region != "(null)" && !is_made_of(region, "-_")) {
      return "field 5: not a region";
    }
    return credentials(6);
  }

  std::vector<std::string_view> fields_;
  UpstreamRecord out_{};
  Errc code_ = Errc::invalid_argument;
};

}  // namespace detail

inline Result<UpstreamRecord> parse_upstream_record(std::string_view text) {
  constexpr std::size_t most = 3 * erofs_oci::longest_path + 8192;
  if (text.empty()) return fail(Errc::truncated, "upstream record: empty");
  if (text.size() > most) return fail(Errc::corrupt, "upstream record: too long");
  auto const end = text.find('\n');
  if (end == text.npos) return fail(Errc::truncated, "upstream record: no newline at its end");
  if (end + 1 != text.size()) {
    return fail(Errc::corrupt,
                "upstream record: offset " + std::to_string(end + 1) + ": bytes behind its line");
  }
  auto line = text.substr(0, end);
  if (line.find('\0') != line.npos) return fail(Errc::corrupt, "upstream record: a zero byte");
  constexpr std::string_view local = "LOCAL ";
  if (line.starts_with(local)) {
    UpstreamRecord record;
    record.path = line.substr(local.size());  // all of it: a path may hold spaces
    if (is_absolute_path(record.path)) return record;
    return fail(Errc::invalid_argument, "upstream record: field 1: not an absolute path");
  }

  std::vector<std::string_view> fields;
  for (;;) {
    auto const space = line.find(' ');
    fields.push_back(line.substr(0, space));
    if (space == line.npos) break;
    line.remove_prefix(space + 1);
  }
  return detail::UpstreamParser(std::move(fields)).run();
}

}  // namespace mount_oci
