// SPDX-License-Identifier: Apache-2.0
/// @file
/// Handshake: the server's side of NBD's fixed newstyle negotiation, as bytes. No I/O.
#pragma once

#include <algorithm>
#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/endian.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/nbd/connect.hpp>
#include <erofs_oci/nbd/protocol.hpp>

namespace erofs_oci::nbd {

/// @name Magic numbers
/// @{

inline constexpr std::uint64_t greeting_magic = 0x4e42444d41474943;  ///< "NBDMAGIC"
inline constexpr std::uint64_t option_magic = 0x49484156454f5054;    ///< "IHAVEOPT"
inline constexpr std::uint64_t option_reply_magic = 0x0003e889045565a9;
/// @}

/// Bits of the flags that each side sends first.
namespace handshake_flag {
inline constexpr std::uint16_t fixed_newstyle = 1;
inline constexpr std::uint16_t no_zeroes = 2;
}  // namespace handshake_flag

/// What a client asks for. The wire may hold any other 32-bit number too.
enum class Option : std::uint32_t {
  export_name = 1,
  abort = 2,
  list = 3,
  starttls = 5,
  info = 6,
  go = 7,
  structured_reply = 8,
  list_meta_context = 9,
  set_meta_context = 10,
  extended_headers = 11,
};

/// How an option is answered.
enum class OptionReply : std::uint32_t {
  ack = 1,
  server = 2,
  info = 3,
  meta_context = 4,
  unsupported = 0x80000001,
  policy = 0x80000002,
  invalid = 0x80000003,
  unknown = 0x80000006,
  too_big = 0x80000009,
};

/// What an INFO record tells.
enum class Info : std::uint16_t { served = 0, name = 1, description = 2, block_size = 3 };

/// The longest option data that is looked at, in bytes.
inline constexpr std::uint32_t max_option_data = 64 * 1024;

/// Before an option's data: 16 bytes, big endian. @spec{NBD proto.md, "Fixed newstyle negotiation"}
struct OptionHeader {
  static constexpr std::size_t wire_size = 16;  ///< bytes

  Option option{};           ///< [8, 12)
  std::uint32_t length = 0;  ///< [12, 16) bytes of data

  bool operator==(OptionHeader const&) const = default;
};

/// @error{Errc::protocol, the magic number is another}
[[nodiscard]] inline Result<OptionHeader> decode_option(
    std::span<std::byte const, OptionHeader::wire_size> raw) {
  if (load_be<std::uint64_t>(raw.subspan<0, 8>()) != option_magic) {
    return fail(Errc::protocol, "nbd option with the magic number " + hex(raw.first<8>()));
  }
  return OptionHeader{Option{load_be<std::uint32_t>(raw.subspan<8, 4>())},
                      load_be<std::uint32_t>(raw.subspan<12, 4>())};
}

/// The bytes that a client sends.
[[nodiscard]] constexpr std::array<std::byte, OptionHeader::wire_size> encode(
    OptionHeader const& header) noexcept {
  return to_wire(option_magic, static_cast<std::uint32_t>(header.option), header.length);
}

/// Adds bytes to the end.
inline void append(Bytes& out, std::span<std::byte const> bytes) {
  out.insert(out.end(), bytes.begin(), bytes.end());
}

/// Adds big-endian numbers to the end.
void append_be(Bytes& out, std::unsigned_integral auto... values) {
  append(out, to_wire(values...));
}

/// Takes fields off the front of an option's data; empty once something does not fit.
class FieldReader {
 public:
  explicit FieldReader(std::span<std::byte const> data) noexcept : rest_(data) {}

  /// A big-endian number.
  template <std::unsigned_integral T>
  [[nodiscard]] std::optional<T> number() noexcept {
    if (rest_.size() < sizeof(T)) return std::nullopt;
    auto const value = load_be<T>(rest_.template first<sizeof(T)>());
    rest_ = rest_.subspan(sizeof(T));
    return value;
  }

  /// A text behind its length, of at most 4096 bytes.
  [[nodiscard]] std::optional<std::string_view> text() noexcept {
    auto const length = number<std::uint32_t>();
    if (!length || *length > max_string || *length > rest_.size()) return std::nullopt;
    auto const value = as_text(rest_.first(*length));
    rest_ = rest_.subspan(*length);
    return value;
  }

  /// What is left.
  [[nodiscard]] std::span<std::byte const> rest() const noexcept { return rest_; }

 private:
  std::span<std::byte const> rest_;
};

/// Answers a client's options one by one until it picks the export or leaves.
class Handshake {
 public:
  /// What the server expects after its answer to an option.
  enum class Next {
    option,        ///< another option
    transmission,  ///< the client has picked the export: negotiated() holds
    close,         ///< nothing: close the connection once the answer is out
  };

  /// Most bytes of `out` that one option adds are about 14 KiB.
  /// @param served  borrowed
  explicit Handshake(Export const& served) noexcept : export_(served) {}

  /// The first bytes on the wire.
  [[nodiscard]] static Bytes greeting() {
    Bytes out;
    append_be(out, greeting_magic, option_magic, known_flags);
    return out;
  }

  /// The client's first four bytes.
  /// @error{Errc::protocol, a bit that was not offered}
  [[nodiscard]] Result<void> client_flags(std::uint32_t flags) {
    if ((flags & ~std::uint32_t{known_flags}) != 0) {
      return fail(Errc::protocol, "nbd client flags " + std::to_string(flags));
    }
    zeroes_ = (flags & handshake_flag::no_zeroes) == 0;
    return {};
  }

  /// Answers one option, at the end of `out`.
  [[nodiscard]] Next answer(Option option, std::span<std::byte const> data, Bytes& out) {
    switch (option) {
      case Option::export_name: return export_name(data, out);
      case Option::abort: reply(out, option, OptionReply::ack); return Next::close;
      case Option::list: return list(data, out);
      case Option::info:
      case Option::go: return info_or_go(option, data, out);
      case Option::structured_reply:
        if (!data.empty()) return invalid(out, option, "the option has no data");
        negotiated_.structured = true;
        return reply(out, option, OptionReply::ack);
      case Option::list_meta_context:
      case Option::set_meta_context: return meta_context(option, data, out);
      case Option::starttls:
      case Option::extended_headers: break;
    }
    return error(out, option, OptionReply::unsupported, "the server does not have this option");
  }

  /// Answers an option whose data, more than max_option_data, was skipped.
  [[nodiscard]] Next answer_too_big(Option option, Bytes& out) {
    if (option == Option::export_name) return Next::close;
    return error(out, option, OptionReply::too_big, "the option has too much data");
  }

  /// What was agreed on; holds once the transmission phase is next.
  [[nodiscard]] Negotiated const& negotiated() const noexcept { return negotiated_; }

 private:
  [[nodiscard]] bool is_ours(std::string_view name) const noexcept {
    return name.empty() || name == export_.name;
  }

  [[nodiscard]] std::uint16_t flags() const noexcept {
    auto const df = negotiated_.structured ? transmission_flag::send_df : std::uint16_t{0};
    return static_cast<std::uint16_t>(export_.flags | df);
  }

  static Next reply(Bytes& out, Option option, OptionReply type,
                    std::span<std::byte const> data = {}) {
    append_be(out, option_reply_magic, static_cast<std::uint32_t>(option),
              static_cast<std::uint32_t>(type), static_cast<std::uint32_t>(data.size()));
    append(out, data);
    return Next::option;
  }

  static Next error(Bytes& out, Option option, OptionReply type, std::string_view text) {
    return reply(out, option, type, as_bytes(text));
  }

  static Next invalid(Bytes& out, Option option, std::string_view text) {
    return error(out, option, OptionReply::invalid, text);
  }

  /// The one option whose answer has no header, and whose failure has no answer.
  Next export_name(std::span<std::byte const> data, Bytes& out) {
    auto const name = as_text(data);
    if (name.size() > max_string || !is_ours(name)) return Next::close;
    append_be(out, export_.size, flags());
    if (zeroes_) out.resize(out.size() + 124);
    return choose(name);
  }

  Next list(std::span<std::byte const> data, Bytes& out) {
    if (!data.empty()) return invalid(out, Option::list, "the option has no data");
    Bytes server;
    append_be(server, static_cast<std::uint32_t>(export_.name.size()));
    append(server, as_bytes(export_.name));
    append(server, as_bytes(clip(export_.description, max_string)));
    reply(out, Option::list, OptionReply::server, server);
    return reply(out, Option::list, OptionReply::ack);
  }

  Next info_or_go(Option option, std::span<std::byte const> data, Bytes& out) {
    FieldReader fields(data);
    auto const name = fields.text();
    auto const count = name ? fields.number<std::uint16_t>() : std::nullopt;
    if (!count || fields.rest().size() != std::size_t{*count} * 2) {
      return invalid(out, option, "lengths that do not fit together");
    }
    if (!is_ours(*name)) return error(out, option, OptionReply::unknown, "no such export");
    send_info(out, option, Info::served);
    std::array<bool, 4> sent{true};  // once each, however often it was asked for
    while (auto const wanted = fields.number<std::uint16_t>()) {
      if (*wanted < sent.size() && !std::exchange(sent[*wanted], true)) {
        send_info(out, option, Info{*wanted});
      }
    }
    reply(out, option, OptionReply::ack);
    return option == Option::go ? choose(*name) : Next::option;
  }

  void send_info(Bytes& out, Option option, Info type) const {
    Bytes info;
    append_be(info, static_cast<std::uint16_t>(type));
    switch (type) {
      case Info::served: append_be(info, export_.size, flags()); break;
      case Info::name: append(info, as_bytes(export_.name)); break;
      case Info::description: append(info, as_bytes(clip(export_.description, max_string))); break;
      case Info::block_size:
        append_be(info, std::uint32_t{1}, export_.preferred_block, max_payload);
        break;
    }
    reply(out, option, OptionReply::info, info);
  }

  Next meta_context(Option option, std::span<std::byte const> data, Bytes& out) {
    auto const set = option == Option::set_meta_context;
    if (set) context_name_.reset();  // a failed SET leaves nothing selected either
    if (set && !negotiated_.structured) {
      return invalid(out, option, "metadata contexts need structured replies");
    }
    FieldReader fields(data);
    auto const name = fields.text();
    auto const count = name ? fields.number<std::uint32_t>() : std::nullopt;
    if (!count) return invalid(out, option, "lengths that do not fit together");
    auto matched = !set && *count == 0;
    for (std::uint32_t i = 0; i < *count; ++i) {
      auto const query = fields.text();
      if (!query) return invalid(out, option, "lengths that do not fit together");
      matched = matched || *query == base_allocation || (!set && *query == "base:");
    }
    if (!fields.rest().empty()) return invalid(out, option, "lengths that do not fit together");
    if (!is_ours(*name)) return error(out, option, OptionReply::unknown, "no such export");
    if (matched) {
      Bytes context;
      append_be(context, set ? base_allocation_id : std::uint32_t{0});
      append(context, as_bytes(base_allocation));
      reply(out, option, OptionReply::meta_context, context);
      if (set) context_name_ = std::string(*name);
    }
    return reply(out, option, OptionReply::ack);
  }

  /// A selected context counts only for the name that it was selected for.
  Next choose(std::string_view name) {
    negotiated_.base_allocation = context_name_ && *context_name_ == name;
    return Next::transmission;
  }

  static constexpr std::string_view base_allocation = "base:allocation";
  static constexpr std::uint16_t known_flags =
      handshake_flag::fixed_newstyle | handshake_flag::no_zeroes;

  Export const& export_;
  bool zeroes_ = true;  // the client wants 124 zero bytes after EXPORT_NAME
  Negotiated negotiated_{};
  std::optional<std::string> context_name_;
};

}  // namespace erofs_oci::nbd
