// SPDX-License-Identifier: Apache-2.0
/// @file
/// ztoc_layer: the tree of one layer from the list of members in its ztoc, without its tar.
#pragma once

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include <erofs_oci/core/arithmetic.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/gzip/ztoc.hpp>
#include <erofs_oci/tar/entry.hpp>
#include <erofs_oci/tar/pax.hpp>
#include <erofs_oci/tarindex/layer.hpp>

namespace erofs_oci::tarindex {

namespace detail {

/// So many decimal digits off the front of `text`.
[[nodiscard]] inline std::optional<unsigned> take_digits(std::string_view& text,
                                                         std::size_t digits) noexcept {
  if (text.size() < digits) return std::nullopt;
  unsigned value = 0;
  for (auto const c : text.substr(0, digits)) {
    if (c < '0' || c > '9') return std::nullopt;
    value = value * 10 + static_cast<unsigned>(c - '0');
  }
  text.remove_prefix(digits);
  return value;
}

[[nodiscard]] inline bool take_char(std::string_view& text, char c) noexcept {
  if (!text.starts_with(c)) return false;
  text.remove_prefix(1);
  return true;
}

/// Numbers of the given lengths, each followed by its mark (none for NUL).
template <std::size_t N>
[[nodiscard]] std::optional<std::array<unsigned, N>> take_numbers(
    std::string_view& text, std::array<std::pair<std::size_t, char>, N> const& parts) noexcept {
  std::array<unsigned, N> numbers{};
  for (std::size_t i = 0; i < N; ++i) {
    auto const number = take_digits(text, parts[i].first);
    if (!number || (parts[i].second != '\0' && !take_char(text, parts[i].second))) {
      return std::nullopt;
    }
    numbers[i] = *number;
  }
  return numbers;
}

/// `.123` as nanoseconds; none is 0.
[[nodiscard]] inline std::optional<std::uint32_t> take_fraction(std::string_view& text) noexcept {
  std::uint32_t nanoseconds = 0;
  if (!take_char(text, '.')) return nanoseconds;
  auto const digits = std::min(text.find_first_not_of("0123456789"), text.size());
  if (digits == 0 || digits > 9) return std::nullopt;
  auto const value = take_digits(text, digits);
  nanoseconds = *value;
  for (auto i = digits; i < 9; ++i) nanoseconds *= 10;
  return nanoseconds;
}

/// `Z` or `+01:00`, in seconds.
[[nodiscard]] inline std::optional<std::int64_t> take_zone(std::string_view& text) noexcept {
  if (take_char(text, 'Z')) return 0;
  auto const negative = text.starts_with('-');
  if (!negative && !text.starts_with('+')) return std::nullopt;
  text.remove_prefix(1);
  auto const numbers = take_numbers<2>(text, {{{2, ':'}, {2, '\0'}}});
  if (!numbers || (*numbers)[0] > 23 || (*numbers)[1] > 59) return std::nullopt;
  auto const seconds = std::int64_t{(*numbers)[0]} * 3600 + std::int64_t{(*numbers)[1]} * 60;
  return negative ? -seconds : seconds;
}

}  // namespace detail

/// A time as Go's time.MarshalText writes it: `2006-01-02T15:04:05.999999999+01:00`, or with `Z`.
/// Empty for anything else. @spec{RFC 3339 5.6; no leap seconds}
[[nodiscard]] inline std::optional<tar::Time> rfc3339_time(std::string_view text) noexcept {
  auto const date = detail::take_numbers<3>(text, {{{4, '-'}, {2, '-'}, {2, 'T'}}});
  if (!date) return std::nullopt;
  auto const clock = detail::take_numbers<3>(text, {{{2, ':'}, {2, ':'}, {2, '\0'}}});
  if (!clock) return std::nullopt;
  auto const nanoseconds = detail::take_fraction(text);
  if (!nanoseconds) return std::nullopt;
  auto const zone = detail::take_zone(text);
  if (!zone || !text.empty()) return std::nullopt;
  auto const [year, month, day] = *date;
  auto const [hour, minute, second] = *clock;
  std::chrono::year_month_day const ymd{std::chrono::year(static_cast<int>(year)),
                                        std::chrono::month(month), std::chrono::day(day)};
  if (!ymd.ok() || hour > 23 || minute > 59 || second > 59) return std::nullopt;
  auto const days = std::chrono::sys_days(ymd).time_since_epoch().count();
  return tar::Time{std::int64_t{days} * 86400 + std::int64_t{hour} * 3600 +
                       std::int64_t{minute} * 60 + second - *zone,
                   *nanoseconds};
}

namespace detail {

[[nodiscard]] inline std::optional<tar::Type> ztoc_type(std::string_view type) noexcept {
  if (type == "reg") return tar::Type::regular;
  if (type == "dir") return tar::Type::directory;
  if (type == "symlink") return tar::Type::symlink;
  if (type == "hardlink") return tar::Type::hard_link;
  if (type == "char") return tar::Type::char_device;
  if (type == "block") return tar::Type::block_device;
  if (type == "fifo") return tar::Type::fifo;
  return std::nullopt;
}

/// The records as the archive had them, so that they are read by the same rules.
[[nodiscard]] inline Result<tar::Pax> ztoc_pax(ZtocFile const& file) {
  std::string text;
  for (auto const& [key, value] : file.records) {
    if (key.empty() || key.find('=') != std::string::npos) {
      return fail(Errc::unsupported, "record " + tar::printable(key));
    }
    // the first ztocs listed attributes by their own names, and not all that there was
    for (std::string_view const prefix : {"user.", "trusted.", "security.", "system."}) {
      if (key.starts_with(prefix)) {
        return fail(Errc::unsupported, "attribute that is no record: " + tar::printable(key));
      }
    }
    auto const rest = " " + key + "=" + value + "\n";
    auto length = rest.size() + 1;
    while (std::to_string(length).size() + rest.size() != length) {
      length = std::to_string(length).size() + rest.size();
    }
    text += std::to_string(length) + rest;
  }
  return tar::parse_pax(text);
}

/// Go has merged the records into the fields. Where they say different things, one of us
/// understands them wrong.
[[nodiscard]] inline Result<void> compare_records(ZtocFile const& file, tar::Pax const& pax) {
  auto const differ = [](auto const& record, auto const& field) {
    return record.value && *record.value != field;
  };
  auto const* const what = pax.sparse                        ? "a sparse file"
                           : differ(pax.path, file.name)     ? "path"
                           : differ(pax.linkpath, file.link) ? "linkpath"
                           : differ(pax.size, file.size)     ? "size"
                           : differ(pax.uid, file.uid)       ? "uid"
                           : differ(pax.gid, file.gid)       ? "gid"
                                                             : nullptr;
  if (what == nullptr) return {};
  return fail(Errc::unsupported, std::string("record and field differ: ") + what);
}

[[nodiscard]] inline Result<tar::Time> ztoc_time(ZtocFile const& file, tar::Pax const& pax) {
  if (pax.mtime.value) return *pax.mtime.value;
  auto const time = rfc3339_time(file.time);
  if (!time) return fail(Errc::unsupported, "time " + tar::printable(file.time));
  // local mean times have seconds in their offset, which RFC 3339 leaves out
  if (time->seconds < 0 && !file.time.ends_with('Z')) {
    return fail(Errc::unsupported,
                "time before 1970 in a local zone: " + tar::printable(file.time));
  }
  return *time;
}

/// Where the data lie, checked against the member before.
/// @param end  of the data before, padding included; moved on
[[nodiscard]] inline Result<void> set_place(tar::Entry& entry, ZtocFile const& file,
                                            std::uint64_t tar_size, std::uint64_t& end) {
  auto const where = "data at " + std::to_string(file.offset);
  if (file.offset % tar::block_size != 0) {
    return fail(Errc::unsupported, where + ": not a multiple of 512");
  }
  if (file.offset < tar::block_size || file.offset - tar::block_size < end) {
    return fail(Errc::unsupported,
                where + ": no room for a header behind the member before, a sparse file perhaps");
  }
  entry.header_offset = file.offset - tar::block_size;
  entry.size = entry.type == tar::Type::regular ? file.size : 0;
  if (file.offset > tar_size || entry.size > tar_size - file.offset) {
    return fail(Errc::unsupported, where + ", " + std::to_string(entry.size) +
                                       " bytes: past the archive's end at " +
                                       std::to_string(tar_size));
  }
  if (entry.size > 0) entry.extents = {{0, file.offset, entry.size}};
  auto const next = align_up(file.offset + entry.size, tar::block_size);  // both below 2^63
  end = next.value_or(tar_size);
  return {};
}

[[nodiscard]] inline Result<void> set_fields(tar::Entry& entry, ZtocFile const& file) {
  auto pax = ztoc_pax(file);
  if (!pax) return fail(Errc::unsupported, std::move(pax).error().context);
  if (auto ok = compare_records(file, *pax); !ok) return ok;
  auto const time = ztoc_time(file, *pax);
  if (!time) return fail(time.error());
  entry.mtime = *time;
  entry.xattrs = std::move(pax->xattrs);
  entry.path = file.name;
  auto const is_link = entry.type == tar::Type::hard_link || entry.type == tar::Type::symlink;
  if (is_link) entry.link = file.link;
  if (entry.path.empty() || (is_link && entry.link.empty())) {
    return fail(Errc::unsupported, "no name or no link target");
  }
  if (std::max(entry.path.size(), entry.link.size()) > tar::max_path_length ||
      (entry.path + entry.link).find('\0') != std::string::npos) {
    return fail(Errc::unsupported, "name or link target too long, or with a NUL");
  }
  entry.mode = static_cast<std::uint32_t>(static_cast<std::uint64_t>(file.mode) & 07777);
  entry.uid = file.uid;
  entry.gid = file.gid;
  if (entry.type != tar::Type::char_device && entry.type != tar::Type::block_device) return {};
  auto const major = narrow<std::uint32_t>(file.dev_major);
  auto const minor = narrow<std::uint32_t>(file.dev_minor);
  if (!major || !minor) return fail(Errc::unsupported, "device number out of range");
  entry.dev_major = *major;
  entry.dev_minor = *minor;
  return {};
}

}  // namespace detail

/// The layer that a ztoc lists, as LayerBuilder makes it from the tar itself; extents are in the
/// decoded stream. Names are Go's, which are the archive's own: cleaned here as always.
///
/// A ztoc does not tell of: where the holes of sparse files are, whether padding is zeros, owners
/// beyond 32 bits (cut by its maker), records that a later one of the same key replaced. What could
/// be wrong for such a reason, and is noticed, is an error. After any error the layer has to be
/// read to know what is in it.
/// @error{Errc::unsupported, it does not say enough\, or contradicts itself}
/// @error{as LayerBuilder::apply(), as it says}
[[nodiscard]] inline Result<Layer> ztoc_layer(Ztoc const& ztoc, LayerOptions options = {}) {
  LayerBuilder builder(options);
  std::uint64_t end = 0;
  for (auto const& file : ztoc.files) {
    auto const where = "ztoc: member " + tar::printable(file.name);
    auto const type = detail::ztoc_type(file.type);
    if (!type) {
      return fail(Errc::unsupported, where + ": type " + tar::printable(file.type));
    }
    tar::Entry entry;
    entry.type = *type;
    entry.clean_padding = false;
    if (auto ok = detail::set_place(entry, file, ztoc.tar_size, end); !ok) {
      return fail(std::move(ok).error(), where);
    }
    if (auto ok = detail::set_fields(entry, file); !ok) return fail(std::move(ok).error(), where);
    if (auto ok = builder.apply(std::move(entry)); !ok) return fail(std::move(ok).error(), "ztoc");
  }
  return std::move(builder).finish();
}

}  // namespace erofs_oci::tarindex
