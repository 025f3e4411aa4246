// SPDX-License-Identifier: Apache-2.0
#include "mount_table.hpp"

#include <array>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <memory>

#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <erofs_oci/core/bytes.hpp>

namespace mount_oci {
namespace {

using erofs_oci::fail;
using erofs_oci::fail_errno;

/// A file of /proc or /sys, whole: its size is not known beforehand.
Result<std::string> read_text(std::string const& path) {
  auto const fd = erofs_oci::open_read(path);
  if (!fd) return fail(fd.error());
  std::string text;
  erofs_oci::Bytes piece(1 << 16);
  for (;;) {
    auto const n = erofs_oci::read_full(fd->get(), piece);
    if (!n) return fail(n.error(), path);
    text += erofs_oci::as_text(std::span(piece).first(*n));
    if (*n < piece.size()) return text;
  }
}

/// Takes the first field of a line away.
std::string_view next_field(std::string_view& line) {
  auto const field = line.substr(0, line.find(' '));
  line.remove_prefix(std::min(field.size() + 1, line.size()));
  return field;
}

template <class T>
std::optional<T> number(std::string_view text) {
  T value = 0;
  auto const* end = text.data() + text.size();
  auto const [at, problem] = std::from_chars(text.data(), end, value);
  if (problem != std::errc{} || at != end || text.empty()) return std::nullopt;
  return value;
}

/// `36 35 98:0 /root /target options [optional fields] - type source options`
std::optional<MountEntry> parse_line(std::string_view line) {
  next_field(line);
  next_field(line);
  auto const device = next_field(line);
  auto const colon = std::min(device.find(':'), device.size());
  auto const major = number<unsigned>(device.substr(0, colon));
  auto const minor = number<unsigned>(device.substr(std::min(colon + 1, device.size())));
  next_field(line);
  MountEntry entry;
  entry.target = decode_octal(next_field(line));
  auto const dash = line.find(" - ");
  if (!major || !minor || entry.target.empty() || dash == std::string_view::npos) {
    return std::nullopt;
  }
  line.remove_prefix(dash + 3);
  entry.device = makedev(*major, *minor);
  entry.type = next_field(line);
  entry.source = decode_octal(next_field(line));
  return entry;
}

bool is_octal(std::string_view digits) {
  return digits.size() == 3 && digits.find_first_not_of("01234567") == std::string_view::npos;
}

}  // namespace

std::string decode_octal(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    auto const digits = text.substr(i + 1, 3);
    if (text[i] != '\\' || !is_octal(digits)) {
      out += text[i];
      continue;
    }
    out += static_cast<char>((digits[0] - '0') * 64 + (digits[1] - '0') * 8 + (digits[2] - '0'));
    i += 3;
  }
  return out;
}

std::vector<MountEntry> parse_mount_table(std::string_view text) {
  std::vector<MountEntry> table;
  while (!text.empty()) {
    auto const line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(line.size() + 1, text.size()));
    if (auto entry = parse_line(line)) table.push_back(*std::move(entry));
  }
  return table;
}

Result<std::vector<MountEntry>> read_mount_table() {
  auto const text = read_text("/proc/self/mountinfo");
  if (!text) return fail(text.error());
  return parse_mount_table(*text);
}

std::optional<MountEntry> find_target(std::vector<MountEntry> const& table, std::string_view path) {
  for (auto entry = table.rbegin(); entry != table.rend(); ++entry) {
    if (entry->target == path) return *entry;
  }
  return std::nullopt;
}

std::optional<std::uint32_t> nbd_index_of(dev_t device, std::string const& root) {
  auto const path =
      root + "/" + std::to_string(major(device)) + ":" + std::to_string(minor(device)) + "/uevent";
  auto const text = read_text(path);
  if (!text) return std::nullopt;
  constexpr std::string_view key = "DEVNAME=nbd";
  auto const at = text->find(key);
  if (at == std::string::npos) return std::nullopt;
  auto name = std::string_view(*text).substr(at + key.size());
  name = name.substr(0, name.find('\n'));
  return number<std::uint32_t>(name.substr(0, name.find('p')));  // nbd0p1 is a partition of nbd0
}

Result<dev_t> block_device(std::string const& path) {
  struct stat status{};
  if (::stat(path.c_str(), &status) != 0) return fail_errno(errno, path);
  if (!S_ISBLK(status.st_mode)) return fail_errno(ENOTBLK, path);
  return status.st_rdev;
}

Result<std::string> real_path(std::string const& path) {
  std::unique_ptr<char, void (*)(void*)> const real(::realpath(path.c_str(), nullptr), &::free);
  if (!real) return fail_errno(errno, path);
  return std::string(real.get());
}

}  // namespace mount_oci
