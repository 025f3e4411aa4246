// SPDX-License-Identifier: Apache-2.0
/// @file
/// What tarindex/ztoc_layer.hpp only declares.
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
#include <erofs_oci/core/config.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/core/text.hpp>
#include <erofs_oci/gzip/ztoc.hpp>
#include <erofs_oci/tar/entry.hpp>
#include <erofs_oci/tar/pax.hpp>
#include <erofs_oci/tarindex/layer.hpp>
#include <erofs_oci/tarindex/ztoc_layer.hpp>

namespace erofs_oci::tarindex {
namespace detail {

/// So many decimal digits, 1 to 9, off the front of `text`.
[[nodiscard]] inline std::optional<unsigned> take_digits(std::string_view& text,
                                                         std::size_t digits) noexcept {
  if (text.size() < digits) return std::nullopt;
  unsigned value = 0;
  auto const* const end = text.data() + digits;
  if (std::from_chars(text.data(), end, value).ptr != end) return std::nullopt;
  text.remove_prefix(digits);
  return value;
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
  if (!take_char(text, '.')) return 0;
  auto const digits = std::min(text.find_first_not_of("0123456789"), text.size());
  if (digits == 0 || digits > 9) return std::nullopt;
  std::uint32_t nanoseconds = *take_digits(text, digits);
  for (auto i = digits; i < 9; ++i) nanoseconds *= 10;
  return nanoseconds;
}

/// `Z` or `+01:00`, in seconds.
[[nodiscard]] inline std::optional<std::int64_t> take_zone(std::string_view& text) noexcept {
  if (take_char(text, 'Z')) return 0;
  auto const negative = take_char(text, '-');
  if (!negative && !take_char(text, '+')) return std::nullopt;
  auto const numbers = take_numbers<2>(text, {{{2, ':'}, {2, '\0'}}});
  if (!numbers || (*numbers)[0] > 23 || (*numbers)[1] > 59) return std::nullopt;
  auto const seconds = std::int64_t{(*numbers)[0]} * 3600 + std::int64_t{(*numbers)[1]} * 60;
  return negative ? -seconds : seconds;
}

}  // namespace detail

EROFS_OCI_BODY std::optional<tar::Time> rfc3339_time(std::string_view text) noexcept {
  auto const numbers = detail::take_numbers<6>(
      text, {{{4, '-'}, {2, '-'}, {2, 'T'}, {2, ':'}, {2, ':'}, {2, '\0'}}});
  if (!numbers) return std::nullopt;
  auto const nanoseconds = detail::take_fraction(text);
  if (!nanoseconds) return std::nullopt;
  auto const zone = detail::take_zone(text);
  if (!zone || !text.empty()) return std::nullopt;
  auto const [year, month, day, hour, minute, second] = *numbers;
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

/// The records as in the archive, so that the same rules read them.
[[nodiscard]] inline Result<tar::Pax> ztoc_pax(ZtocFile const& file) {
  std::string text;
  for (auto const& [key, value] : file.records) {
    if (key.empty() || key.find('=') != std::string::npos) {
      return fail(Errc::unsupported, "record " + tar::printable(key));
    }
    // the first ztocs listed attributes by their own names, and not all of them
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

/// Go has merged the records into the fields. If they differ, Go or we have misread the records.
[[nodiscard]] inline Result<void> compare_records(ZtocFile const& file, tar::Pax const& pax) {
  auto const differ = [](auto const& record, auto const& field) {
    return record.value && *record.value != field;
  };
  if (pax.sparse) return fail(Errc::unsupported, "a sparse file, whose holes no ztoc holds");
  auto const* const what = differ(pax.path, file.name)       ? "path"
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
  EROFS_OCI_TRY_ASSIGN(entry.mtime, ztoc_time(file, *pax));
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

EROFS_OCI_BODY Result<Layer> ztoc_layer(Ztoc const& ztoc, LayerOptions options) {
  LayerBuilder builder(options);
  std::uint64_t end = 0;
  for (auto const& file : ztoc.files) {
    auto const where = "ztoc: member " + tar::printable(file.name);
    auto const type = detail::ztoc_type(file.type);
    if (!type) return fail(Errc::unsupported, where + ": type " + tar::printable(file.type));
    tar::Entry entry;
    entry.type = *type;
    EROFS_OCI_TRY(detail::set_place(entry, file, ztoc.tar_size, end), where);
    EROFS_OCI_TRY(detail::set_fields(entry, file), where);
    EROFS_OCI_TRY(builder.apply(std::move(entry)), "ztoc");
  }
  return std::move(builder).finish();
}

}  // namespace erofs_oci::tarindex
