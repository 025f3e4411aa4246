// SPDX-License-Identifier: Apache-2.0
#include "database.hpp"

#include <cerrno>
#include <filesystem>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <sqlite3.h>
#include <sys/stat.h>
#include <unistd.h>

#include <erofs_oci/core/fd.hpp>

namespace oci_snapshotter {

using erofs_oci::Errc;
using erofs_oci::fail;
using erofs_oci::fail_errno;
using erofs_oci::make_error;
using erofs_oci::Result;

namespace {

struct Finalize {
  void operator()(sqlite3_stmt* statement) const noexcept { sqlite3_finalize(statement); }
};
using Statement = std::unique_ptr<sqlite3_stmt, Finalize>;

int bind(sqlite3_stmt* statement, int at, Cell const& cell) {
  if (auto const* const value = std::get_if<std::int64_t>(&cell)) {
    return sqlite3_bind_int64(statement, at, *value);
  }
  // The text outlives the statement, so SQLite need not copy it: its destructor is a null pointer.
  auto const& text = std::get<std::string>(cell);
  return sqlite3_bind_text64(statement, at, text.data(), text.size(), nullptr, SQLITE_UTF8);
}

Cell cell_at(sqlite3_stmt* statement, int at) {
  if (sqlite3_column_type(statement, at) == SQLITE_INTEGER) {
    return std::int64_t{sqlite3_column_int64(statement, at)};
  }
  auto const* const blob = sqlite3_column_blob(statement, at);
  auto const size = static_cast<std::size_t>(sqlite3_column_bytes(statement, at));
  return blob == nullptr ? std::string() : std::string(static_cast<char const*>(blob), size);
}

Result<void> sync_directory(std::string const& path) {
  EROFS_OCI_TRY_ASSIGN(auto const fd, erofs_oci::open_read(path, O_DIRECTORY));
  if (::fsync(fd.get()) != 0) return fail_errno(errno, path);
  return {};
}

}  // namespace

void Database::Close::operator()(sqlite3* handle) const noexcept {
  sqlite3_close_v2(handle);
}

tl::unexpected<erofs_oci::Error> Database::error(std::string_view what) const {
  auto const text = std::string(what) + ": " + sqlite3_errmsg(handle_.get());
  switch (sqlite3_errcode(handle_.get())) {
    case SQLITE_FULL: return fail(make_error_code(std::errc::no_space_on_device), text);
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB: return fail(Errc::corrupt, text);
    default: return fail(make_error_code(std::errc::io_error), text);
  }
}

Result<Database> Database::connect(std::string const& path, int flags) {
  sqlite3* raw = nullptr;
  auto const done = sqlite3_open_v2(path.c_str(), &raw, flags, nullptr);
  Database out{Handle(raw)};
  if (raw == nullptr) return fail(make_error_code(std::errc::not_enough_memory), path);
  if (done != SQLITE_OK) return out.error("open");
  sqlite3_busy_timeout(raw, 5000);
  return out;
}

Result<std::vector<Row>> Database::run(std::string_view statement, std::span<Cell const> cells) {
  sqlite3_stmt* raw = nullptr;
  if (sqlite3_prepare_v2(handle_.get(), statement.data(), static_cast<int>(statement.size()), &raw,
                         nullptr) != SQLITE_OK) {
    return error("prepare");
  }
  Statement const prepared(raw);
  int at = 0;
  for (auto const& cell : cells) {
    if (bind(raw, ++at, cell) != SQLITE_OK) return error("bind");
  }
  std::vector<Row> rows;
  for (;;) {
    auto const step = sqlite3_step(raw);
    if (step == SQLITE_DONE) return rows;
    if (step != SQLITE_ROW) return error("step");
    auto& row = rows.emplace_back();
    for (int i = 0; i < sqlite3_column_count(raw); ++i) row.push_back(cell_at(raw, i));
  }
}

Result<std::int64_t> Database::number(std::string_view statement) {
  EROFS_OCI_TRY_ASSIGN(auto const rows, run(statement));
  auto const* const value =
      rows.size() == 1 && rows[0].size() == 1 ? std::get_if<std::int64_t>(rows[0].data()) : nullptr;
  if (value == nullptr) return fail(Errc::corrupt, std::string(statement));
  return *value;
}

Result<void> Database::transact(erofs_oci::FunctionRef<Result<void>()> change) {
  EROFS_OCI_TRY(run("BEGIN IMMEDIATE"));
  auto done = change();
  if (done) {
    auto committed = run("COMMIT");
    if (committed) return {};
    done = fail(std::move(committed).error());
  }
  // After some errors SQLite has rolled back by itself, and this one is of no interest.
  static_cast<void>(run("ROLLBACK"));
  return done;
}

Result<void> Database::make(std::string const& path, DatabaseForm const& form) {
  auto const unfinished = path + ".new";
  for (auto const* end : {"", "-wal", "-journal"}) ::unlink((unfinished + end).c_str());
  {
    EROFS_OCI_TRY_ASSIGN(auto made,
                         connect(unfinished, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE));
    EROFS_OCI_TRY(made.run("PRAGMA synchronous = FULL"));
    auto const fill = [&]() -> Result<void> {
      for (auto rest = form.tables; !rest.empty();) {
        auto const end = std::min(rest.find(';'), rest.size() - 1);
        EROFS_OCI_TRY(made.run(rest.substr(0, end)));
        rest.remove_prefix(end + 1);
      }
      EROFS_OCI_TRY(made.run("PRAGMA application_id = " + std::to_string(form.application)));
      EROFS_OCI_TRY(made.run("PRAGMA user_version = " + std::to_string(form.version)));
      return {};
    };
    EROFS_OCI_TRY(made.transact(fill));
  }
  if (::chmod(unfinished.c_str(), 0600) != 0 || ::rename(unfinished.c_str(), path.c_str()) != 0) {
    return fail_errno(errno, path);
  }
  return sync_directory(std::filesystem::path(path).parent_path());
}

Result<void> Database::check(DatabaseForm const& form) {
  EROFS_OCI_TRY_ASSIGN(auto const application, number("PRAGMA application_id"));
  if (application != form.application) return fail(Errc::corrupt, "not a file of this program");
  EROFS_OCI_TRY_ASSIGN(auto const version, number("PRAGMA user_version"));
  if (version > form.version) {
    return fail(Errc::unsupported, "written by a newer version, whose tables have the number " +
                                       std::to_string(version) + "; this one knows " +
                                       std::to_string(form.version));
  }
  EROFS_OCI_TRY_ASSIGN(auto const found, run("PRAGMA integrity_check"));
  if (found.size() != 1 || found[0].size() != 1 || found[0][0] != Cell("ok")) {
    auto const* const text = found.empty() ? nullptr : std::get_if<std::string>(found[0].data());
    return fail(Errc::corrupt, text == nullptr ? "damaged" : *text);
  }
  return {};
}

Result<Database> Database::open(std::string const& path, DatabaseForm const& form) {
  struct stat about{};
  if (::stat(path.c_str(), &about) != 0) {
    if (errno != ENOENT) return fail_errno(errno, path);
    EROFS_OCI_TRY(make(path, form), path);
  }
  auto opened = [&]() -> Result<Database> {
    EROFS_OCI_TRY_ASSIGN(auto database, connect(path, SQLITE_OPEN_READWRITE));
    EROFS_OCI_TRY(database.check(form));
    EROFS_OCI_TRY(database.run("PRAGMA journal_mode = WAL"));
    EROFS_OCI_TRY(database.run("PRAGMA synchronous = FULL"));
    EROFS_OCI_TRY(database.run("PRAGMA foreign_keys = ON"));
    return database;
  }();
  if (opened) return opened;
  auto error = make_error(std::move(opened).error(), path);
  if (!form.way_to_heal.empty()) error.context += " (" + std::string(form.way_to_heal) + ")";
  return tl::unexpected(std::move(error));
}

}  // namespace oci_snapshotter
