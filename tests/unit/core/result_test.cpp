// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/core/result.hpp>  // first: proves that the header stands alone

#include <cerrno>
#include <memory>
#include <new>
#include <set>
#include <string>

#include <catch.hpp>

namespace erofs_oci {
namespace result_test {

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

TEST_CASE("make_error is the error that fail returns", "[core][result]") {
  auto const error = make_error(Errc::corrupt, "span 3");

  CHECK(error.message() == failing().error().message());
  CHECK(make_error(error, "layer 1").context == fail(error, "layer 1").value().context);
}

Result<std::unique_ptr<int>> boxed(int number) {
  if (number < 0) return fail(Errc::corrupt, "negative");
  return std::make_unique<int>(number);
}

TEST_CASE("EROFS_OCI_TRY returns the error of what failed and goes on otherwise",
          "[core][result]") {
  auto contexts = 0;
  auto const where = [&] {
    ++contexts;
    return std::string("outer");
  };
  auto const run = [&](int number) -> Result<std::string> {
    EROFS_OCI_TRY(boxed(number));
    EROFS_OCI_TRY(boxed(number - 1), where());
    if (number == 1)
      EROFS_OCI_TRY(failing(), "one");
    else
      return "end";
    return "not reached";
  };

  CHECK(run(-1).error().context == "negative");
  CHECK(run(1).error().context == "one: span 3");
  CHECK(run(2) == "end");
  CHECK(contexts == 0);
  CHECK(run(0).error().context == "outer: negative");
  CHECK(contexts == 1);
}

TEST_CASE("EROFS_OCI_TRY_ASSIGN moves the value out, into a name or an object", "[core][result]") {
  auto const run = [](int a, int b) -> Result<int> {
    EROFS_OCI_TRY_ASSIGN(auto const first, boxed(a));
    std::unique_ptr<int> second;
    EROFS_OCI_TRY_ASSIGN(second, boxed(b), "second");
    return *first + *second;
  };

  CHECK(run(1, 2) == 3);
  CHECK(run(-1, 2).error().context == "negative");
  CHECK(run(1, -1).error().context == "second: negative");
}

TEST_CASE("a Result with a name keeps its value and its error unless it is moved",
          "[core][result]") {
  auto const run = [](Result<std::string>& named) -> Result<std::string> {
    EROFS_OCI_TRY(named);
    EROFS_OCI_TRY_ASSIGN(auto copy, named);
    return copy + "!";
  };
  auto good = Result<std::string>("a text that is too long to lie in the string itself");
  Result<std::string> bad = fail(Errc::corrupt, "a context that is too long for the string, too");

  CHECK(run(good) == *good + "!");
  CHECK_FALSE(good->empty());
  CHECK(run(bad).error().context == bad.error().context);
  CHECK_FALSE(bad.error().context.empty());
}

TEST_CASE("without_throwing makes an error of an exception", "[core][result]") {
  auto const run = [](int way) {
    return without_throwing([&]() -> Result<int> {
      if (way == 1) throw std::bad_alloc();
      if (way == 2) throw std::system_error(EAGAIN, std::system_category());
      if (way == 3) throw 3;
      return way;
    });
  };

  CHECK(run(0) == 0);
  CHECK(run(1).error().code == std::errc::not_enough_memory);
  CHECK(run(2).error().code == std::errc::resource_unavailable_try_again);
  CHECK(run(3).error().code == std::errc::io_error);
}

}  // namespace result_test
}  // namespace erofs_oci
