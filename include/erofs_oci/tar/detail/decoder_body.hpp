// SPDX-License-Identifier: Apache-2.0
/// @file
/// What tar/decoder.hpp only declares.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/config.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/tar/decoder.hpp>
#include <erofs_oci/tar/entry.hpp>
#include <erofs_oci/tar/header.hpp>
#include <erofs_oci/tar/member.hpp>
#include <erofs_oci/tar/pax.hpp>
#include <erofs_oci/tar/sparse.hpp>

namespace erofs_oci::tar {

EROFS_OCI_BODY Result<void> Decoder::push(std::span<std::byte const> piece, Visit visit) {
  if (failed_) return fail(*failed_);
  for (;;) {
    if (auto ok = settle(visit); !ok) return remember(std::move(ok).error());
    if (piece.empty() || state_ == State::ended) break;
    auto const whole = state_ == State::data && whole_left_ > 0;
    auto const most = whole ? whole_left_ : block_.size() - filled_;
    auto const n = static_cast<std::size_t>(std::min<std::uint64_t>(most, piece.size()));
    if (whole) {
      copier_.take(position_, piece.first(n));
      whole_left_ -= n;
    } else if (auto ok = fill(piece.first(n)); !ok) {
      return remember(std::move(ok).error());
    }
    position_ += n;
    piece = piece.subspan(n);
  }
  position_ += piece.size();
  return {};
}

EROFS_OCI_BODY Result<void> Decoder::finish(Visit visit) {
  if (failed_) return fail(*failed_);
  if (auto ok = settle(visit); !ok) return remember(std::move(ok).error());
  if (state_ == State::ended) return {};
  if (state_ == State::extension) {
    return cut("extended header at offset " + std::to_string(extension_offset_));
  }
  if (state_ == State::data && whole_left_ == 0 && filled_ >= tail_) {
    reports_.add(member_.entry.header_offset,
                 member_.describe() + ": the archive ends without the padding behind its data");
    auto const padding = Bytes(block_size - filled_);
    auto ok = fill(padding);
    if (ok) ok = settle(visit);
    if (!ok) return remember(std::move(ok).error());
    return {};
  }
  if (state_ != State::header) return cut(member_.describe());
  if (pending_) {
    return cut("no member after the extended header at offset " +
               std::to_string(extension_offset_));
  }
  auto const half_marker = zero_blocks_ == 1 && is_zero(std::span(block_).first(filled_));
  if (filled_ > 0 && !half_marker) {
    return cut("header at offset " + std::to_string(position_ - filled_));
  }
  return {};
}

EROFS_OCI_BODY Result<void> Decoder::settle(Visit visit) {
  if (state_ != State::data || whole_left_ > 0 || tail_ > 0) return {};
  state_ = State::header;
  member_.entry.copies = std::exchange(copier_, {}).finish();
  if (!member_.left_out.empty()) return {};
  return visit(std::move(member_.entry));
}

EROFS_OCI_BODY Result<void> Decoder::fill(std::span<std::byte const> bytes) {
  std::ranges::copy(bytes, block_.begin() + static_cast<std::ptrdiff_t>(filled_));
  filled_ += bytes.size();
  if (filled_ < block_.size()) return {};
  filled_ = 0;
  EROFS_OCI_TRY(take_block(position_ + bytes.size() - block_size), "tar");
  return {};
}

EROFS_OCI_BODY Result<void> Decoder::take_block(std::uint64_t offset) {
  switch (state_) {
    case State::header: return take_header(offset);
    case State::extension: return take_extension();
    case State::old_map: return take_old_map(offset, old_map_.take_extension(Block(block_)));
    case State::data_map: return take_data_map(offset);
    case State::data:
      copier_.take(offset, std::span(block_).first(static_cast<std::size_t>(tail_)));
      tail_ = 0;
      return {};
    case State::ended: return {};
  }
  return {};
}

EROFS_OCI_BODY Result<void> Decoder::take_header(std::uint64_t offset) {
  if (is_zero(block_)) {
    if (pending_) {
      return fail(Errc::corrupt, "no member after the extended header at offset " +
                                     std::to_string(extension_offset_));
    }
    if (++zero_blocks_ == 2) state_ = State::ended;
    return {};
  }
  if (zero_blocks_ > 0) {
    return fail(Errc::corrupt, "lone zero block at offset " + std::to_string(offset - block_size));
  }
  EROFS_OCI_TRY_ASSIGN(auto const header, decode_header(Block(block_)),
                       "header at offset " + std::to_string(offset));
  if (std::string_view("xgLK").find(header.typeflag) != std::string_view::npos) {
    return begin_extension(header, offset);
  }
  return begin_member(header, offset);
}

EROFS_OCI_BODY Result<void> Decoder::begin_extension(Header const& header, std::uint64_t offset) {
  if (header.size > max_extension_size) {
    return fail(Errc::unsupported, "extended header at offset " + std::to_string(offset) + ": " +
                                       std::to_string(header.size) + " bytes, more than " +
                                       std::to_string(max_extension_size));
  }
  extension_type_ = header.typeflag;
  extension_offset_ = offset;
  extension_size_ = static_cast<std::size_t>(header.size);
  extension_.clear();
  state_ = State::extension;
  return extension_size_ == 0 ? end_extension() : Result<void>{};
}

EROFS_OCI_BODY Result<void> Decoder::take_extension() {
  auto const n = std::min(extension_size_ - extension_.size(), block_.size());
  extension_ += as_text(block_).substr(0, n);
  return extension_.size() == extension_size_ ? end_extension() : Result<void>{};
}

EROFS_OCI_BODY Result<void> Decoder::end_extension() {
  state_ = State::header;
  if (extension_type_ == 'L' || extension_type_ == 'K') {
    pending_ = true;
    auto& name = extension_type_ == 'L' ? before_.long_name : before_.long_link;
    name = std::string(field_text(as_bytes(extension_)));
    if (name->empty()) name.reset();
    return {};
  }
  EROFS_OCI_TRY_ASSIGN(auto pax, parse_pax(extension_),
                       "extended header at offset " + std::to_string(extension_offset_));
  if (extension_type_ == 'x') {
    pending_ = true;
    before_.local = std::move(pax);
    return {};
  }
  if (!pax.xattrs.empty() || pax.sparse) {
    reports_.add(extension_offset_, "attributes and sparse maps of a global header are ignored");
  }
  merge_global(before_.global, std::move(pax));
  return {};
}

EROFS_OCI_BODY Result<void> Decoder::begin_member(Header const& header, std::uint64_t offset) {
  auto member = assemble(header, before_, offset);
  pending_ = false;
  before_ = {{}, std::move(before_.global), {}, {}};
  EROFS_OCI_TRY_ASSIGN(member_, std::move(member));
  if (!member_.left_out.empty()) {
    reports_.add(offset, member_.describe() + ": passed over: " + member_.left_out);
  }
  if (member_.old_map) {
    old_map_ = {};
    return take_old_map(offset, old_map_.take_header(Block(block_)));
  }
  if (!member_.map) {
    begin_data(member_.packed);
    if (member_.packed > 0) {
      member_.entry.extents = {{0, offset + block_size, member_.packed}};
    }
    return {};
  }
  if (!member_.map->map_in_data()) {
    return place(member_.map->segments, *member_.map->real_size, offset + block_size);
  }
  data_map_ = {};
  state_ = State::data_map;
  return {};
}

EROFS_OCI_BODY Result<void> Decoder::take_old_map(std::uint64_t offset, Result<bool> more) {
  if (!more) return fail(std::move(more).error(), member_.describe());
  state_ = State::old_map;
  if (*more) return {};
  return place(old_map_.segments(), old_map_.real_size(), offset + block_size);
}

EROFS_OCI_BODY Result<void> Decoder::take_data_map(std::uint64_t offset) {
  if (member_.packed < block_size) {
    return fail(Errc::corrupt, member_.describe() + ": sparse map is longer than the member");
  }
  member_.packed -= block_size;
  EROFS_OCI_TRY_ASSIGN(auto const more, data_map_.take(Block(block_)), member_.describe());
  if (more) return {};
  return place(data_map_.segments(), *member_.map->real_size, offset + block_size);
}

EROFS_OCI_BODY Result<void> Decoder::place(std::vector<Segment> const& segments,
                                           std::uint64_t real_size, std::uint64_t data_offset) {
  EROFS_OCI_TRY_ASSIGN(auto extents,
                       place_segments(segments, real_size, data_offset, member_.packed),
                       member_.describe());
  if (data_offset > max_offset - member_.packed - block_size) {
    return fail(Errc::corrupt, member_.describe() + ": data end past 2^63");
  }
  EROFS_OCI_TRY_ASSIGN(copier_, SparseCopier::make(extents, real_size), member_.describe());
  old_map_ = {};  // a map may be large
  data_map_ = {};
  member_.map.reset();
  member_.entry.sparse = true;
  member_.entry.size = real_size;
  member_.entry.extents = std::move(extents);
  begin_data(member_.packed);
  return {};
}

EROFS_OCI_BODY void Decoder::begin_data(std::uint64_t size) noexcept {
  state_ = State::data;
  tail_ = size % block_size;
  whole_left_ = size - tail_;
}

}  // namespace erofs_oci::tar
