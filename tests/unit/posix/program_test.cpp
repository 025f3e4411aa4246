// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/posix/program.hpp>  // first: proves that the header stands alone

#include <cstdlib>
#include <string>

#include <catch.hpp>

#include <erofs_oci/posix/descriptor.hpp>

namespace erofs_oci {
namespace program_test {

using Catch::Contains;

std::string said_by(UniqueFd const& fd) {
  Bytes text(200);
  return std::string(as_text(std::span(text).first(read_full(fd.get(), text).value())));
}

TEST_CASE("A program's status is its own or its signal's", "[posix][program]") {
  CHECK(ChildProgram::start({"sh", "-c", "exit 3"}).value().wait().value() == 3);
  CHECK(ChildProgram::start({"sh", "-c", "kill -9 $$"}).value().wait().value() == 128 + 9);
}

TEST_CASE("A program gets the descriptors and the variable that it is given", "[posix][program]") {
  auto [ours, theirs] = socket_pair().value();
  ::setenv("EROFS_OCI_TEST", "old", 1);
  auto child = ChildProgram::start(
      {"sh", "-c", "echo \"$EROFS_OCI_TEST $HOME\" >&5; env | grep -c EROFS_OCI_TEST >&5"},
      {.descriptors = {{theirs.get(), 5}}, .variables = {"EROFS_OCI_TEST=a new one"}});
  theirs.reset();
  ::unsetenv("EROFS_OCI_TEST");

  REQUIRE(child.has_value());
  CHECK(child->wait().value() == 0);
  CHECK(said_by(ours) == "a new one " + std::string(std::getenv("HOME")) + "\n1\n");
}

TEST_CASE("A program that is no longer wanted is killed", "[posix][program]") {
  auto [ours, theirs] = socket_pair().value();
  {
    auto child =
        ChildProgram::start({"cat"}, {.descriptors = {{theirs.get(), 0}, {theirs.get(), 5}}});
    theirs.reset();
    REQUIRE(child.has_value());
    CHECK_FALSE(child->poll().value().has_value());
  }
  CHECK(said_by(ours).empty());  // the end, since nobody has the other one
}

TEST_CASE("What a program complains of is the error", "[posix][program][error]") {
  auto bad = ReportingProgram::start({"sh", "-c", "echo 'no, never' >&2; exit 1"}).value();
  auto const refused = bad.wait("asking");
  REQUIRE_FALSE(refused.has_value());
  CHECK(refused.error().code == std::errc::io_error);
  CHECK_THAT(refused.error().message(), Contains("asking: no, never"));

  CHECK(ReportingProgram::start({"sh", "-c", "echo warned >&2"}).value().wait("x").has_value());
}

TEST_CASE("A program that is not there is an error at once", "[posix][program][error]") {
  CHECK(ChildProgram::start({"no-such-program"}).error().code ==
        std::errc::no_such_file_or_directory);
  CHECK(run_program({"no-such-program"}).error().code == std::errc::no_such_file_or_directory);
  CHECK_THAT(run_program({"false"}).error().message(), Contains("false has failed"));
  CHECK(run_program({"true"}).has_value());
}

}  // namespace program_test
}  // namespace erofs_oci
