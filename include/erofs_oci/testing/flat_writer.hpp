// SPDX-License-Identifier: Apache-2.0
/// @file
/// FlatWriter: FlatBuffers, made in the dullest way.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include <erofs_oci/core/bytes.hpp>

namespace erofs_oci::testing {

/// A value of a FlatBuffer, as a tree.
struct FlatValue {
  enum class Kind : std::uint8_t { absent, number, text, bytes, list, table };

  Kind kind = Kind::absent;
  std::uint64_t number = 0;
  std::size_t width = 0;           ///< of a number: 1, 2, 4 or 8 bytes
  Bytes content{};                 ///< of text and bytes
  std::vector<FlatValue> parts{};  ///< of a list or table

  template <std::integral T>
  [[nodiscard]] static FlatValue of(T value) {
    return {Kind::number, static_cast<std::uint64_t>(value), sizeof(T)};
  }
  [[nodiscard]] static FlatValue text(std::string_view value) {
    return {Kind::text, 0, 0, to_bytes(value)};
  }
  [[nodiscard]] static FlatValue bytes(std::span<std::byte const> value) {
    return {Kind::bytes, 0, 0, to_bytes(value)};
  }
  [[nodiscard]] static FlatValue list(std::vector<FlatValue> elements) {
    return {Kind::list, 0, 0, {}, std::move(elements)};
  }
  [[nodiscard]] static FlatValue table(std::vector<FlatValue> fields) {
    return {Kind::table, 0, 0, {}, std::move(fields)};
  }
};

/// Writes a FlatBuffer front to back: each part behind what refers to it, aligned to 8 bytes.
class FlatWriter {
 public:
  [[nodiscard]] static Bytes write(FlatValue const& root) {
    FlatWriter writer;
    writer.bytes_.resize(4);
    writer.refer(0, root);
    return std::move(writer.bytes_);
  }

 private:
  void put(std::size_t at, std::size_t width, std::uint64_t value) {
    for (std::size_t i = 0; i < width; ++i) bytes_[at + i] = std::byte(value >> (8 * i) & 0xff);
  }

  void align() { bytes_.resize((bytes_.size() + 7) / 8 * 8); }

  /// Writes `value` at the end, and where it is at `at`.
  void refer(std::size_t at, FlatValue const& value) {
    align();
    auto const place = value.kind == FlatValue::Kind::table ? table(value) : vector(value);
    put(at, 4, place - at);
  }

  std::size_t vector(FlatValue const& value) {
    auto const place = bytes_.size();
    bytes_.resize(place + 4);
    if (value.kind == FlatValue::Kind::list) {
      put(place, 4, value.parts.size());
      bytes_.resize(place + 4 + 4 * value.parts.size());
      for (std::size_t i = 0; i < value.parts.size(); ++i) {
        refer(place + 4 + 4 * i, value.parts[i]);
      }
      return place;
    }
    put(place, 4, value.content.size());
    bytes_.insert(bytes_.end(), value.content.begin(), value.content.end());
    if (value.kind == FlatValue::Kind::text) bytes_.push_back(std::byte{0});
    return place;
  }

  std::size_t table(FlatValue const& value) {
    auto const vtable = bytes_.size();
    bytes_.resize(vtable + 4 + 2 * value.parts.size());
    align();
    auto const place = bytes_.size();
    std::vector<std::size_t> offsets;
    std::size_t size = 4;
    for (auto const& part : value.parts) {
      auto const width = part.kind == FlatValue::Kind::number ? part.width : 4;
      size = (size + width - 1) / width * width;
      offsets.push_back(part.kind == FlatValue::Kind::absent ? 0 : size);
      if (part.kind != FlatValue::Kind::absent) size += width;
    }
    bytes_.resize(place + size);
    put(vtable, 2, 4 + 2 * value.parts.size());
    put(vtable + 2, 2, size);
    put(place, 4, place - vtable);
    for (std::size_t i = 0; i < offsets.size(); ++i) {
      put(vtable + 4 + 2 * i, 2, offsets[i]);
      if (offsets[i] == 0) continue;
      auto const& part = value.parts[i];
      if (part.kind == FlatValue::Kind::number) {
        put(place + offsets[i], part.width, part.number);
      } else {
        refer(place + offsets[i], part);
      }
    }
    return place;
  }

  Bytes bytes_;
};

}  // namespace erofs_oci::testing
