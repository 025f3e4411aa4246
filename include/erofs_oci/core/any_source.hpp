// SPDX-License-Identifier: Apache-2.0
/// @file
/// AnySource: any source at all, chosen at run time. The library's one erased boundary.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>

#include <erofs_oci/core/source.hpp>

namespace erofs_oci {

/// Owns a source of a type that only its maker knows. Move-only; one allocation.
///
/// @par Thread safety
/// All const members, from any thread, as the owned source promises.
class AnySource {
 public:
  /// Owns `source` from here on.
  template <class S>
    requires(!std::same_as<S, AnySource>) && RandomAccessSource<S>
  explicit AnySource(S source) : model_(std::make_unique<Model<S>>(std::move(source))) {}

  /// @name RandomAccessSource
  /// @{

  /// Forwarded to the owned source, as are all optional powers.
  [[nodiscard]] std::uint64_t size() const noexcept { return model_->size(); }

  [[nodiscard]] Result<std::size_t> read_at(std::uint64_t offset, std::span<std::byte> out) const {
    return model_->read_at(offset, out);
  }

  [[nodiscard]] bool is_remote() const { return model_->is_remote(); }

  [[nodiscard]] std::string describe() const { return model_->describe(); }

  [[nodiscard]] Result<void> stream(std::uint64_t offset, std::uint64_t length,
                                    ByteSink sink) const {
    return model_->stream(offset, length, sink);
  }

  bool forget(std::uint64_t offset, std::uint64_t length) const {
    return model_->forget(offset, length);
  }
  /// @}

 private:
  struct Concept {
    virtual ~Concept() = default;
    [[nodiscard]] virtual std::uint64_t size() const noexcept = 0;
    [[nodiscard]] virtual Result<std::size_t> read_at(std::uint64_t offset,
                                                      std::span<std::byte> out) const = 0;
    [[nodiscard]] virtual bool is_remote() const = 0;
    [[nodiscard]] virtual std::string describe() const = 0;
    [[nodiscard]] virtual Result<void> stream(std::uint64_t offset, std::uint64_t length,
                                              ByteSink sink) const = 0;
    virtual bool forget(std::uint64_t offset, std::uint64_t length) const = 0;
  };

  template <class S>
  struct Model final : Concept {
    explicit Model(S s) : source(std::move(s)) {}
    [[nodiscard]] std::uint64_t size() const noexcept override { return source.size(); }
    [[nodiscard]] Result<std::size_t> read_at(std::uint64_t offset,
                                              std::span<std::byte> out) const override {
      return source.read_at(offset, out);
    }
    [[nodiscard]] bool is_remote() const override { return erofs_oci::is_remote(source); }
    [[nodiscard]] std::string describe() const override { return erofs_oci::describe(source); }
    [[nodiscard]] Result<void> stream(std::uint64_t offset, std::uint64_t length,
                                      ByteSink sink) const override {
      return erofs_oci::stream(source, offset, length, sink);
    }
    bool forget(std::uint64_t offset, std::uint64_t length) const override {
      return erofs_oci::forget(source, offset, length);
    }

    S source;
  };

  std::unique_ptr<Concept const> model_;
};

static_assert(RandomAccessSource<AnySource>);

}  // namespace erofs_oci
