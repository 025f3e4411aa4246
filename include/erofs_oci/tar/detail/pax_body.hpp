// SPDX-License-Identifier: Apache-2.0
/// @file
/// What tar/pax.hpp only declares.
#pragma once

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/config.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/tar/entry.hpp>
#include <erofs_oci/tar/header.hpp>
#include <erofs_oci/tar/pax.hpp>
#include <erofs_oci/tar/sparse.hpp>

namespace erofs_oci::tar {

EROFS_OCI_BODY std::optional<Time> pax_time(std::string_view text) noexcept {
  auto const negative = text.starts_with('-');
  if (negative) text.remove_prefix(1);
  auto const point = std::min(text.find('.'), text.size());
  auto const seconds = decimal(text.substr(0, point));
  if (!seconds) return std::nullopt;
  std::uint32_t nanoseconds = 0;
  std::uint32_t unit = 100'000'000;
  auto below = false;  // something is left under one nanosecond
  for (auto const c : text.substr(std::min(point + 1, text.size()))) {
    if (c < '0' || c > '9') return std::nullopt;
    nanoseconds += static_cast<std::uint32_t>(c - '0') * unit;
    below = below || (unit == 0 && c != '0');
    unit /= 10;
  }
  auto const whole = static_cast<std::int64_t>(*seconds);
  if (!negative) return Time{whole, nanoseconds};
  auto const up = nanoseconds + (below ? 1u : 0u);
  return up == 0 ? Time{-whole, 0} : Time{-whole - 1, 1'000'000'000 - up};
}

namespace detail {

/// `%41` to `A`.
[[nodiscard]] inline std::optional<std::string> url_decoded(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out += text[i];
      continue;
    }
    unsigned value = 0;
    auto const digits = text.substr(i + 1, 2);
    auto const* const end = digits.data() + digits.size();
    auto const [at, code] = std::from_chars(digits.data(), end, value, 16);
    if (digits.size() != 2 || code != std::errc{} || at != end) return std::nullopt;
    out += static_cast<char>(value);
    i += 2;
  }
  return out;
}

EROFS_OCI_BODY std::optional<Bytes> base64_decoded(std::string_view text) {
  constexpr std::string_view digits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  while (text.ends_with('=')) text.remove_suffix(1);
  if (text.size() % 4 == 1) return std::nullopt;
  Bytes out;
  out.reserve(text.size() * 3 / 4);
  std::uint32_t bits = 0;
  unsigned held = 0;
  for (auto const c : text) {
    auto const digit = digits.find(c);
    if (digit == std::string_view::npos) return std::nullopt;
    bits = (bits << 6) | static_cast<std::uint32_t>(digit);
    held += 6;
    if (held < 8) continue;
    held -= 8;
    out.push_back(static_cast<std::byte>(bits >> held));
    bits &= (1u << held) - 1;
  }
  return out;
}

/// One record, cut into key and value.
struct PaxRecord {
  std::string_view key;
  std::string_view value;
};

/// Takes the first record off `text`.
[[nodiscard]] inline std::optional<PaxRecord> next_record(std::string_view& text) noexcept {
  auto const space = text.find(' ');
  if (space == std::string_view::npos) return std::nullopt;
  auto const length = decimal(text.substr(0, space));
  if (!length || *length > text.size() || *length < space + 4) return std::nullopt;
  auto const record = text.substr(0, static_cast<std::size_t>(*length));
  if (!record.ends_with('\n')) return std::nullopt;
  auto const body = record.substr(space + 1, record.size() - space - 2);
  auto const equals = body.find('=');
  if (equals == 0 || equals == std::string_view::npos) return std::nullopt;
  text.remove_prefix(record.size());
  return PaxRecord{body.substr(0, equals), body.substr(equals + 1)};
}

/// Collects records into a Pax.
class PaxParser {
 public:
  explicit PaxParser(Pax& pax) noexcept : pax_(pax) {}

  /// False if the value makes no sense for its key.
  [[nodiscard]] bool take(PaxRecord const& record) {
    auto const [key, value] = record;
    if (key == "path") return set_name(pax_.path, value);
    if (key == "linkpath") return set_name(pax_.linkpath, value);
    if (key == "size") return set(pax_.size, value, decimal);
    if (key == "uid") return set(pax_.uid, value, decimal);
    if (key == "gid") return set(pax_.gid, value, decimal);
    if (key == "mtime") return set(pax_.mtime, value, pax_time);
    if (key.starts_with(schily)) {
      return set_xattr(key.substr(schily.size()), to_bytes(value), Origin::schily);
    }
    if (key.starts_with(libarchive)) {
      auto const name = url_decoded(key.substr(libarchive.size()));
      auto bytes = base64_decoded(value);
      return name && bytes && set_xattr(*name, std::move(*bytes), Origin::libarchive);
    }
    if (key.starts_with(gnu_sparse)) {
      if (!pax_.sparse) pax_.sparse.emplace();
      return pax_.sparse->take(key.substr(gnu_sparse.size()), value);
    }
    return true;
  }

 private:
  static constexpr std::string_view schily = "SCHILY.xattr.";
  static constexpr std::string_view libarchive = "LIBARCHIVE.xattr.";
  static constexpr std::string_view gnu_sparse = "GNU.sparse.";
  enum class Origin : std::uint8_t { schily, libarchive };

  template <class T>
  [[nodiscard]] static bool set(PaxField<T>& field, std::string_view value,
                                std::optional<T> (*parse)(std::string_view)) {
    field = {true, value.empty() ? std::nullopt : parse(value)};
    return value.empty() || field.value.has_value();
  }

  [[nodiscard]] static bool set_name(PaxField<std::string>& field, std::string_view value) {
    if (value.find('\0') != std::string_view::npos) return false;
    field = {true, value.empty() ? std::nullopt : std::optional(std::string(value))};
    return true;
  }

  /// bsdtar writes both forms of each attribute: the raw one wins, else the later one.
  [[nodiscard]] bool set_xattr(std::string_view name, Bytes value, Origin origin) {
    if (name.empty() || name.find('\0') != std::string_view::npos) return false;
    auto const [place, fresh] = index_.try_emplace(std::string(name), pax_.xattrs.size(), origin);
    if (fresh) {
      pax_.xattrs.push_back({std::string(name), std::move(value)});
    } else if (origin == Origin::schily || place->second.second == Origin::libarchive) {
      pax_.xattrs[place->second.first].value = std::move(value);
      place->second.second = origin;
    }
    return true;
  }

  Pax& pax_;
  std::map<std::string, std::pair<std::size_t, Origin>, std::less<>> index_;
};

}  // namespace detail

EROFS_OCI_BODY Result<Pax> parse_pax(std::string_view text) {
  Pax pax;
  detail::PaxParser parser(pax);
  while (!text.empty()) {
    auto const record = detail::next_record(text);
    if (!record) {
      return fail(Errc::corrupt, "malformed PAX record " + printable(text.substr(0, 40)));
    }
    if (!parser.take(*record)) {
      return fail(Errc::corrupt, "PAX record " + printable(record->key) + ": bad value " +
                                     printable(record->value.substr(0, 80)));
    }
  }
  return pax;
}

EROFS_OCI_BODY void merge_global(Pax& all, Pax later) {
  auto const lay = [](auto& under, auto& over) {
    if (over.present) under = std::move(over);
  };
  lay(all.path, later.path);
  lay(all.linkpath, later.linkpath);
  lay(all.size, later.size);
  lay(all.uid, later.uid);
  lay(all.gid, later.gid);
  lay(all.mtime, later.mtime);
}

}  // namespace erofs_oci::tar
