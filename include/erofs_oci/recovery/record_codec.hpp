// SPDX-License-Identifier: Apache-2.0
/// @file
/// encode_record() and parse_record(): a Record as bytes, exactly. No I/O.
///
/// The format is in doc/formats/record.md: a line that names it and its version, then every field
/// in a fixed order as `name=length:value` and a newline, then the SHA-256 of all of that. A field
/// without a value is there too, with length 0, so a missing one shifts nothing and is an error.
#pragma once

#include <array>
#include <charconv>
#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <type_traits>
#include <utility>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/digest/digest.hpp>
#include <erofs_oci/digest/sha256.hpp>
#include <erofs_oci/recovery/record.hpp>
#include <erofs_oci/recovery/record_check.hpp>

namespace erofs_oci {

/// The bytes of a record: the same ones for the same record, always.
/// @error{Errc::invalid_argument, check() refuses it\, or it is longer than most_record_bytes}
[[nodiscard]] Result<std::string> encode_record(Record const& record);

/// Reads what encode_record() writes, and nothing else: any other bytes, and any record with a bit
/// flipped, a byte missing or a byte more, are an error.
/// @error{Errc::corrupt, not a record\, or a damaged one}
/// @error{Errc::truncated, it ends before its checksum}
/// @error{Errc::unsupported, a record of another version}
/// @error{Errc::invalid_argument, whole\, but check() refuses it}
[[nodiscard]] Result<Record> parse_record(std::string_view bytes);

namespace detail {

inline constexpr std::string_view record_magic = "erofs_oci record ";
inline constexpr std::string_view record_version = "1";
inline constexpr std::size_t record_seal_size = sizeof "sha256=64:" - 1 + 64 + 1;

template <class E>
using EnumNames = std::array<std::pair<E, std::string_view>, 5>;

// Rows that are not needed repeat the first: a name is found by its first row.
inline constexpr EnumNames<RecordSource> names_of(RecordSource /*tag*/) {
  using enum RecordSource;
  return {{{registry, "registry"},
           {layout, "layout"},
           {files, "files"},
           {registry, "registry"},
           {registry, "registry"}}};
}
inline constexpr EnumNames<CredentialSource::Kind> names_of(CredentialSource::Kind /*tag*/) {
  using enum CredentialSource::Kind;
  return {{{anonymous, "anonymous"},
           {docker_config, "docker_config"},
           {file, "file"},
           {helper, "helper"},
           {given, "given"}}};
}
inline constexpr EnumNames<RecordFrontEnd> names_of(RecordFrontEnd /*tag*/) {
  using enum RecordFrontEnd;
  return {{{netlink, "netlink"},
           {ioctl, "ioctl"},
           {unix_socket, "unix_socket"},
           {tcp, "tcp"},
           {fuse, "fuse"}}};
}

template <class T>
concept RecordNumber = std::integral<T> && !std::same_as<T, bool>;

/// Names and writes each field.
class RecordWriter {
 public:
  static constexpr bool reads = false;

  void value(std::string_view name, std::string_view text) {
    out_.append(name).append("=").append(std::to_string(text.size())).append(":");
    out_.append(text).append("\n");
  }
  void value(std::string_view name, bool flag) {
    value(name, std::string_view(flag ? "yes" : "no"));
  }
  void value(std::string_view name, RecordNumber auto number) {
    value(name, std::string_view(std::to_string(number)));
  }
  template <class Rep, class Period>
  void value(std::string_view name, std::chrono::duration<Rep, Period> time) {
    value(name, std::int64_t{time.count()});
  }
  void value(std::string_view name, Digest const& digest) { value(name, digest.to_string()); }
  template <class E>
    requires std::is_enum_v<E>
  void value(std::string_view name, E choice) {
    for (auto const& [each, text] : names_of(choice)) {
      if (each == choice) return value(name, text);
    }
  }
  template <class T>
  void value(std::string_view name, std::optional<T> const& maybe) {
    maybe ? value(name, *maybe) : value(name, std::string_view());
  }

  /// A field that is there only with another value than its type's own.
  template <class T>
  void extra(std::string_view name, T const& field) {
    if (field != T()) value(name, field);
  }

  std::string take() && { return std::move(out_); }

 private:
  std::string out_ = std::string(record_magic) + std::string(record_version) + "\n";
};

/// Reads the fields that RecordWriter writes, in its order. After the first error its calls have no
/// effect, so that callers need not check every field.
class RecordReader {
 public:
  static constexpr bool reads = true;

  explicit RecordReader(std::string_view body) noexcept : body_(body), rest_(body) {}

  template <class T>
  void value(std::string_view name, T& field) {
    parse(name, take(name), field);
  }
  template <class T>
  void value(std::string_view name, std::optional<T>& maybe) {
    auto const text = take(name);
    if (text.empty()) return;
    parse(name, text, maybe.emplace());
  }

  template <class T>
  void extra(std::string_view name, T& field) {
    if (!rest_.starts_with(name) || rest_.substr(name.size(), 1) != "=") return;
    value(name, field);
    if (field == T()) refuse(name, "superfluous");
  }

  /// For lists, whose length is a field.
  void refuse(std::string_view name, std::string_view why) {
    if (error_) return;
    error_ = Error{Errc::corrupt, "record: offset " + std::to_string(body_.size() - rest_.size()) +
                                      ": " + std::string(name) + ": " + std::string(why)};
  }

  [[nodiscard]] bool failed() const noexcept { return error_.has_value(); }

  /// The first error, if any. All fields must have been read.
  Result<void> finish() {
    if (!error_ && !rest_.empty()) refuse("end", "more fields than there are");
    if (error_) return fail(*std::move(error_));
    return {};
  }

 private:
  std::string_view take(std::string_view name) {
    if (error_) return {};
    auto rest = rest_;
    if (!rest.starts_with(name) || rest.substr(name.size(), 1) != "=") {
      refuse(name, "missing here");
      return {};
    }
    rest.remove_prefix(name.size() + 1);
    auto const colon = rest.find(':');
    std::uint32_t length = 0;
    if (colon == rest.npos || !exact_number(rest.substr(0, colon), length)) {
      refuse(name, "no length");
      return {};
    }
    rest.remove_prefix(colon + 1);
    if (rest.size() <= length || rest[length] != '\n') {
      refuse(name, "not as long as it says");
      return {};
    }
    rest_ = rest.substr(std::size_t{length} + 1);
    return rest.substr(0, length);
  }

  // Only the one way in which to_string() writes a number.
  template <RecordNumber T>
  static bool exact_number(std::string_view text, T& number) {
    auto const [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    return error == std::errc() && std::to_string(number) == text;
  }
  void parse(std::string_view /*name*/, std::string_view text, std::string& out) { out = text; }
  void parse(std::string_view name, std::string_view text, bool& flag) {
    flag = text == "yes";
    if (!flag && text != "no") refuse(name, "neither yes nor no");
  }
  template <RecordNumber T>
  void parse(std::string_view name, std::string_view text, T& number) {
    if (!exact_number(text, number)) refuse(name, "not a number of its range");
  }
  template <class Rep, class Period>
  void parse(std::string_view name, std::string_view text,
             std::chrono::duration<Rep, Period>& time) {
    std::int64_t count = 0;
    parse(name, text, count);
    time = std::chrono::duration<Rep, Period>(count);
  }
  void parse(std::string_view name, std::string_view text, Digest& digest) {
    auto const parsed = Digest::parse(text);
    if (!parsed) return refuse(name, "not a digest");
    digest = *parsed;
  }
  template <class E>
    requires std::is_enum_v<E>
  void parse(std::string_view name, std::string_view text, E& choice) {
    for (auto const& [each, known] : names_of(choice)) {
      if (known != text) continue;
      choice = each;
      return;
    }
    refuse(name, "unknown word");
  }

  std::string_view body_;
  std::string_view rest_;
  std::optional<Error> error_{};
};

/// A file that may not be there: then its path is empty and its other fields are not written.
template <class Fields, class MaybeFile>
void visit_file(Fields& fields, std::string const& name, MaybeFile& maybe) {
  LocalFile file = maybe.value_or(LocalFile{});
  fields.value(name + ".path", file.path);
  if (file.path.empty()) return;
  fields.value(name + ".size", file.size);
  fields.value(name + ".digest", file.digest);
  fields.value(name + ".device", file.device);
  fields.value(name + ".inode", file.inode);
  fields.value(name + ".modified", file.modified);
  if constexpr (Fields::reads) maybe = std::move(file);
}

/// A list's length, bounded before anything is allocated.
template <class Fields, class List>
void visit_length(Fields& fields, std::string_view name, List& list, std::size_t most) {
  auto length = static_cast<std::uint32_t>(list.size());
  fields.value(name, length);
  if constexpr (Fields::reads) {
    if (length > most) return fields.refuse(name, "too many");
    list.resize(fields.failed() ? 0 : length);
  }
}

template <class Fields, class Image>
void visit_image(Fields& fields, Image& image) {
  fields.value("image.source", image.source);
  fields.value("image.registry", image.registry);
  fields.value("image.repository", image.repository);
  fields.value("image.tag", image.tag);
  fields.value("image.directory", image.directory);
  fields.value("image.manifest", image.manifest);
  fields.value("image.platform", image.platform);
  visit_length(fields, "image.layers", image.layers, most_record_layers);
  for (std::size_t i = 0; i < image.layers.size(); ++i) {
    auto const name = "image.layer." + std::to_string(i);
    auto& layer = image.layers[i];
    fields.value(name + ".digest", layer.digest);
    fields.value(name + ".size", layer.size);
    fields.value(name + ".media_type", layer.media_type);
    visit_file(fields, name + ".file", layer.file);
    visit_file(fields, name + ".zinfo", layer.zinfo);
    visit_file(fields, name + ".index", layer.index);
    visit_file(fields, name + ".chunks", layer.chunks);
  }
  visit_file(fields, "image.tarindex", image.tarindex);
  fields.value("image.device_size", image.device_size);
  fields.value("image.block_size", image.block_size);
  fields.extra("image.rewritten", image.rewritten);
  fields.extra("image.verity", image.verity);
  fields.extra("image.verity_data", image.verity_data);
  fields.extra("image.mismatch", image.mismatch);
}

template <class Fields, class Reach>
void visit_reach(Fields& fields, Reach& reach) {
  fields.value("reach.insecure", reach.insecure);
  fields.value("reach.ca", reach.ca);
  visit_length(fields, "reach.mirrors", reach.mirrors, most_record_mirrors);
  for (std::size_t i = 0; i < reach.mirrors.size(); ++i) {
    fields.value("reach.mirror." + std::to_string(i), reach.mirrors[i]);
  }
  fields.value("reach.timeout_ms", reach.timeout);
  fields.value("reach.retry_ms", reach.retry);
  fields.value("reach.connections", reach.connections);
  fields.value("reach.cache_bytes", reach.cache_bytes);
  fields.value("reach.cache_directory", reach.cache_directory);
  fields.extra("reach.verify", reach.verify);
  fields.extra("reach.hosts", reach.hosts);
  fields.extra("reach.config", reach.config);
  fields.extra("reach.inward", reach.inward);
  fields.extra("reach.unhedged", reach.unhedged);
}

template <class Fields, class Attach>
void visit_attach(Fields& fields, Attach& attach) {
  fields.value("attach.front_end", attach.front_end);
  fields.value("attach.index", attach.index);
  fields.value("attach.backend", attach.backend);
  fields.value("attach.address", attach.address);
  fields.value("attach.sockets", attach.sockets);
  fields.value("attach.request_timeout_s", attach.request_timeout);
  fields.value("attach.dead_connection_timeout_s", attach.dead_connection_timeout);
  fields.value("attach.read_ahead", attach.read_ahead);
}

template <class Fields, class MaybeSpan>
void visit_known(Fields& fields, MaybeSpan& maybe) {
  KnownSpan span = maybe.value_or(KnownSpan{});
  fields.value("known.length", span.length);
  if (span.length == 0) return;
  fields.value("known.offset", span.offset);
  fields.value("known.digest", span.digest);
  if constexpr (Fields::reads) maybe = span;
}

/// The order of the fields, for both directions.
template <class Fields, class AnyRecord>
void visit_record(Fields& fields, AnyRecord& record) {
  visit_image(fields, record.image);
  visit_reach(fields, record.reach);
  fields.value("credentials.kind", record.credentials.kind);
  fields.value("credentials.where", record.credentials.where);
  fields.value("credentials.username", record.credentials.username);
  visit_attach(fields, record.attach);
  visit_known(fields, record.known);
  fields.value("mount_point", record.mount_point);
  fields.value("daemon.pid", record.daemon.pid);
  fields.value("daemon.start_time", record.daemon.start_time);
  fields.value("daemon.boot_id", record.daemon.boot_id);
}

/// The last line: the digest of all lines before it.
inline std::string record_seal(std::string_view body) {
  return "sha256=64:" + digest_of(as_bytes(body)).hex() + "\n";
}

}  // namespace detail

inline Result<std::string> encode_record(Record const& record) {
  EROFS_OCI_TRY(check(record));
  detail::RecordWriter writer;
  detail::visit_record(writer, record);
  auto bytes = std::move(writer).take();
  bytes += detail::record_seal(bytes);
  if (bytes.size() > most_record_bytes) {
    return fail(Errc::invalid_argument, "record: " + std::to_string(bytes.size()) + " bytes");
  }
  return bytes;
}

inline Result<Record> parse_record(std::string_view bytes) {
  if (bytes.size() > most_record_bytes) return fail(Errc::corrupt, "record: too long");
  auto const magic = detail::record_magic;
  if (bytes.size() < magic.size()) return fail(Errc::truncated, "record: no header");
  if (!bytes.starts_with(magic)) return fail(Errc::corrupt, "record: offset 0: not a record");
  auto const line_end = bytes.find('\n');
  if (line_end == bytes.npos) return fail(Errc::truncated, "record: no header");
  if (bytes.substr(magic.size(), line_end - magic.size()) != detail::record_version) {
    return fail(Errc::unsupported, "record: offset " + std::to_string(magic.size()) +
                                       ": a version other than " +
                                       std::string(detail::record_version));
  }
  if (bytes.size() < line_end + 1 + detail::record_seal_size) {
    return fail(Errc::truncated, "record: no checksum");
  }
  auto const body = bytes.substr(0, bytes.size() - detail::record_seal_size);
  if (detail::record_seal(body) != bytes.substr(body.size())) {
    return fail(Errc::corrupt, "record: its checksum is not that of its " +
                                   std::to_string(body.size()) + " bytes");
  }
  Record record;
  detail::RecordReader reader(body.substr(line_end + 1));
  detail::visit_record(reader, record);
  EROFS_OCI_TRY(reader.finish());
  EROFS_OCI_TRY(check(record));
  return record;
}

}  // namespace erofs_oci
