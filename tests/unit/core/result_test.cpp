// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/core/result.hpp>  // first: proves that the header stands alone

#include <cerrno>
#include <set>
#include <string>

#include <catch2/catch.hpp>

namespace erofs_oci {
namespace {

using namespace std::chrono_literals;

Result<int> failing() {
  return fail(Errc::corrupt, "span 3");
}

TEST_CASE("every Errc has words of its own", "[core][result]") {
  std::set<std::string> words;
  for (auto code = static_cast<int>(Errc::corrupt); code <= static_cast<int>(Errc::stopping);
       ++code) {
    words.insert(make_error_code(static_cast<Errc>(code)).message());
  }

  CHECK(words.size() == 12);
  CHECK_FALSE(words.contains("unknown error"));
  CHECK(errc_category().message(0) == "unknown error");
  CHECK(errc_category().message(13) == "unknown error");
  CHECK(std::string(errc_category().name()) == "erofs_oci");
}

TEST_CASE("an Error's message is its context and its code's words", "[core][result]") {
  CHECK(failing().error().message() == "span 3: corrupt data");
  CHECK(Error{make_error_code(Errc::corrupt), "", {}}.message() == "corrupt data");
}

TEST_CASE("fail puts what it knows in front and keeps the rest", "[core][result]") {
  Error const inner{make_error_code(Errc::unavailable), "span 3", 5s};

  Result<void> const outer = fail(inner, "layer 1");
  Result<void> const same = fail(inner);
  Result<void> const named = fail(Error{make_error_code(Errc::corrupt), "", {}}, "layer 1");

  CHECK(outer.error().context == "layer 1: span 3");
  CHECK(outer.error().code == Errc::unavailable);
  CHECK(outer.error().retry_after == 5s);
  CHECK(same.error().context == "span 3");
  CHECK(named.error().context == "layer 1");
}

TEST_CASE("fail_errno is comparable with std::errc", "[core][result]") {
  Result<void> const result = fail_errno(ENOENT, "/nowhere");

  CHECK(result.error().code == std::errc::no_such_file_or_directory);
  CHECK(result.error().message() == "/nowhere: No such file or directory");
}

TEST_CASE("only unavailable and timed_out are transient", "[core][result]") {
  for (auto code = static_cast<int>(Errc::corrupt); code <= static_cast<int>(Errc::stopping);
       ++code) {
    auto const errc = static_cast<Errc>(code);
    CHECK(is_transient({make_error_code(errc), "", {}}) ==
          (errc == Errc::unavailable || errc == Errc::timed_out));
  }
  CHECK_FALSE(is_transient({make_error_code(std::errc::timed_out), "", {}}));
}

}  // namespace
}  // namespace erofs_oci
