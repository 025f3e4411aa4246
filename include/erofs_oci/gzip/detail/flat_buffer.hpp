// SPDX-License-Identifier: Apache-2.0
/// @file
/// FlatBuffer: a FlatBuffers message from strangers, read field by field. No schema, no I/O.
///
/// ```
/// message   [0, 4)  u32  the root table, from here
/// table     [0, 4)  i32  its vtable lies that much before it; then the fields
/// vtable    [0, 2)  u16  its size in bytes; [2, 4) u16 size of the table;
///           then a u16 a field: where it lies in the table, 0 for one that is absent
/// reference [0, 4)  u32  a table, string or vector, from here
/// string, vector    [0, 4)  u32  elements; then the elements
/// ```
/// All integers little endian. @spec{FlatBuffers, Internals: Format details}
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/endian.hpp>
#include <erofs_oci/core/result.hpp>

namespace erofs_oci {

class FlatTable;
class FlatList;

/// A message, borrowed. Its tables and lists hold on to this object, which remembers the first
/// error: after one, everything reads as absent. So a reader reads on, and asks status() before it
/// believes anything.
///
/// References may lead to one part again and again, and a small message so stand for an endless
/// one. Hence each part is paid for when it is read, and the message's size is all that there is to
/// spend: read each part once, and it suffices for all that writers make who share no parts.
///
/// Not thread-safe.
class FlatBuffer {
 public:
  /// @param bytes  what follows the message is ignored
  explicit FlatBuffer(std::span<std::byte const> bytes) noexcept
      : bytes_(bytes), left_(bytes.size()) {}

  FlatBuffer(FlatBuffer const&) = delete;
  FlatBuffer& operator=(FlatBuffer const&) = delete;

  /// The root table.
  [[nodiscard]] FlatTable root();

  /// Whether all that was read so far could be read.
  /// @error{Errc::corrupt, a part leaves the message\, or parts are shared}
  [[nodiscard]] Result<void> status() const {
    if (error_) return fail(*error_);
    return {};
  }

 private:
  friend class FlatTable;
  friend class FlatList;

  /// A table that was checked: all of it, and its vtable, lie in the message.
  struct Place {
    std::size_t table = 0;
    std::size_t table_size = 0;
    std::size_t vtable = 0;
    std::size_t vtable_size = 0;  // 0: absent
  };

  /// Whether all is `good` so far; else remembers the first error.
  [[nodiscard]] bool check(bool good, std::size_t offset, std::string_view why) {
    if (!good && !error_) {
      error_ = Error{Errc::corrupt,
                     "FlatBuffer offset " + std::to_string(offset) + ": " + std::string(why)};
    }
    return !error_;
  }

  [[nodiscard]] bool holds(std::size_t offset, std::size_t n) const noexcept {
    return offset <= bytes_.size() && n <= bytes_.size() - offset;
  }

  template <std::unsigned_integral T>
  [[nodiscard]] T load(std::size_t offset) const noexcept {
    return load_le<T>(bytes_.subspan(offset).template first<sizeof(T)>());
  }

  [[nodiscard]] bool pay(std::size_t offset, std::size_t n) {
    if (!check(n <= left_, offset, "parts are shared")) return false;
    left_ -= n;
    return true;
  }

  /// Where the reference at `offset` leads.
  [[nodiscard]] std::size_t follow(std::size_t offset) const noexcept {
    return offset + load<std::uint32_t>(offset);
  }

  [[nodiscard]] Place table_at(std::size_t offset) {
    if (!check(holds(offset, 4), offset, "the table lies outside")) return {};
    auto const back = static_cast<std::int32_t>(load<std::uint32_t>(offset));
    auto const vtable = static_cast<std::int64_t>(offset) - back;
    auto const there = vtable >= 0 && holds(static_cast<std::size_t>(vtable), 4);
    if (!check(there, offset, "the vtable lies outside")) return {};
    Place place{offset, 0, static_cast<std::size_t>(vtable), 0};
    place.vtable_size = load<std::uint16_t>(place.vtable);
    place.table_size = load<std::uint16_t>(place.vtable + 2);
    auto const vtable_fits = place.vtable_size >= 4 && holds(place.vtable, place.vtable_size);
    if (!check(vtable_fits, offset, "the vtable's size is out of range")) return {};
    auto const table_fits = place.table_size >= 4 && holds(offset, place.table_size);
    if (!check(table_fits, offset, "the table's size is out of range")) return {};
    return pay(offset, place.table_size) ? place : Place{};
  }

  /// The elements of a vector or string, `unit` bytes each.
  [[nodiscard]] std::span<std::byte const> elements_at(std::size_t offset, std::size_t unit) {
    if (!check(holds(offset, 4), offset, "the vector lies outside")) return {};
    auto const size = std::uint64_t{load<std::uint32_t>(offset)} * unit;
    auto const fits = size <= bytes_.size() - offset - 4;
    if (!check(fits, offset, "the vector ends outside")) return {};
    auto const n = static_cast<std::size_t>(size);
    if (!pay(offset, 4 + n)) return {};
    return bytes_.subspan(offset + 4, n);
  }

  std::span<std::byte const> bytes_;
  std::size_t left_;  // of what may still be read
  std::optional<Error> error_;
};

/// A table of a message, or an absent one, whose fields are all absent. Fields go by their number
/// in the schema, from 0.
class FlatTable {
 public:
  /// A scalar field.
  /// @param absent  its value where the message has none: the schema's default
  template <std::integral T>
  [[nodiscard]] T number(unsigned field, T absent = 0) const {
    auto const offset = find(field, sizeof(T));
    if (!offset) return absent;
    return static_cast<T>(buffer_->load<std::make_unsigned_t<T>>(*offset));
  }

  /// A string field, borrowed; may hold any bytes. Empty if it is absent.
  [[nodiscard]] std::string_view text(unsigned field) const { return as_text(bytes(field)); }

  /// A field that is a vector of bytes, borrowed. Empty if it is absent.
  [[nodiscard]] std::span<std::byte const> bytes(unsigned field) const {
    auto const offset = find(field, 4);
    if (!offset) return {};
    return buffer_->elements_at(buffer_->follow(*offset), 1);
  }

  /// A field that is a table.
  [[nodiscard]] FlatTable table(unsigned field) const {
    auto const offset = find(field, 4);
    if (!offset) return FlatTable(*buffer_, {});
    return FlatTable(*buffer_, buffer_->table_at(buffer_->follow(*offset)));
  }

  /// A field that is a vector of tables or strings. Empty if it is absent.
  [[nodiscard]] FlatList list(unsigned field) const;

 private:
  friend class FlatBuffer;
  friend class FlatList;

  FlatTable(FlatBuffer& buffer, FlatBuffer::Place const& place) noexcept
      : buffer_(&buffer), place_(place) {}

  /// Where the field lies in the message.
  [[nodiscard]] std::optional<std::size_t> find(unsigned field, std::size_t size) const {
    auto const entry = 4 + 2 * std::size_t{field};
    if (buffer_->error_ || entry + 2 > place_.vtable_size) return std::nullopt;
    std::size_t const offset = buffer_->load<std::uint16_t>(place_.vtable + entry);
    if (offset == 0) return std::nullopt;
    if (offset < 4 || offset + size > place_.table_size) {
      (void)buffer_->check(false, place_.table,
                           "field " + std::to_string(field) + " lies outside of its table");
      return std::nullopt;
    }
    return place_.table + offset;
  }

  FlatBuffer* buffer_;
  FlatBuffer::Place place_;
};

/// A vector of tables or strings.
class FlatList {
 public:
  [[nodiscard]] std::size_t size() const noexcept { return size_; }

  /// Element `i`, less than size().
  [[nodiscard]] FlatTable table(std::size_t i) const {
    return FlatTable(*buffer_, buffer_->table_at(buffer_->follow(first_ + 4 * i)));
  }

  /// Element `i`, less than size(), borrowed.
  [[nodiscard]] std::string_view text(std::size_t i) const {
    return as_text(buffer_->elements_at(buffer_->follow(first_ + 4 * i), 1));
  }

 private:
  friend class FlatTable;

  explicit FlatList(FlatBuffer& buffer) noexcept : buffer_(&buffer) {}

  FlatBuffer* buffer_;
  std::size_t first_ = 0;
  std::size_t size_ = 0;
};

inline FlatTable FlatBuffer::root() {
  if (!check(holds(0, 4), 0, "shorter than 4 bytes")) return FlatTable(*this, {});
  return FlatTable(*this, table_at(follow(0)));
}

inline FlatList FlatTable::list(unsigned field) const {
  FlatList list(*buffer_);
  auto const offset = find(field, 4);
  if (!offset) return list;
  auto const vector = buffer_->follow(*offset);
  list.size_ = buffer_->elements_at(vector, 4).size() / 4;
  list.first_ = vector + 4;
  return list;
}

}  // namespace erofs_oci
