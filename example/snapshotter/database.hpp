// SPDX-License-Identifier: Apache-2.0
/// @file
/// Database: a file of SQLite, every change of which is on the disk before a call ends.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include <erofs_oci/core/function_ref.hpp>
#include <erofs_oci/core/result.hpp>

struct sqlite3;

namespace oci_snapshotter {

using Cell = std::variant<std::int64_t, std::string>;
using Row = std::vector<Cell>;

/// What a table's file is: it says so itself, so that no other file is taken for it.
struct DatabaseForm {
  std::int32_t application = 0;    ///< SQLite's application_id
  std::int32_t version = 1;        ///< of the tables. Range: 1 or more
  std::string_view tables{};       ///< SQL that makes them
  std::string_view way_to_heal{};  ///< what to do about a file that cannot be used, for messages
};

/// @par Thread safety
/// One thread at a time.
class Database {
 public:
  /// Opens a file, or makes it: under another name first, so that a file that is there is whole.
  /// Reads all of it, since what is damaged shows by that alone.
  /// @error{Errc::corrupt, the file is damaged or another program's; it is left as it is}
  /// @error{Errc::unsupported, a newer version has written it}
  /// @error{std::errc::io_error, as SQLite says}
  [[nodiscard]] static erofs_oci::Result<Database> open(std::string const& path,
                                                        DatabaseForm const& form);

  /// Runs one statement.
  /// @param cells  what its question marks stand for
  /// @return its rows
  /// @error{std::errc::no_space_on_device, the disk is full}
  /// @error{std::errc::io_error, as SQLite says}
  [[nodiscard]] erofs_oci::Result<std::vector<Row>> run(std::string_view statement,
                                                        std::span<Cell const> cells = {});

  /// Does all that `change` does, or nothing of it if that fails.
  /// @error{as `change` and run()}
  [[nodiscard]] erofs_oci::Result<void> transact(
      erofs_oci::FunctionRef<erofs_oci::Result<void>()> change);

 private:
  struct Close {
    void operator()(sqlite3* handle) const noexcept;
  };
  using Handle = std::unique_ptr<sqlite3, Close>;

  explicit Database(Handle handle) noexcept : handle_(std::move(handle)) {}

  [[nodiscard]] static erofs_oci::Result<Database> connect(std::string const& path, int flags);
  [[nodiscard]] static erofs_oci::Result<void> make(std::string const& path,
                                                    DatabaseForm const& form);
  [[nodiscard]] erofs_oci::Result<void> check(DatabaseForm const& form);
  [[nodiscard]] erofs_oci::Result<std::int64_t> number(std::string_view statement);
  [[nodiscard]] tl::unexpected<erofs_oci::Error> error(std::string_view what) const;

  Handle handle_;
};

}  // namespace oci_snapshotter
