// SPDX-License-Identifier: Apache-2.0
#include "process.hpp"  // first: proves that the header stands alone

#include <string>

#include <catch.hpp>

#include <erofs_oci/posix/temporary_directory.hpp>
#include <erofs_oci/posix/text_file.hpp>

#include "options.hpp"

namespace mount_oci {
namespace process_test {

TEST_CASE("Control bytes are escaped, and nothing else", "[tool][log]") {
  CHECK(escaped("") == "");
  CHECK(escaped("plain \\ text, \xc3\xa4 and 'quotes'") == "plain \\ text, \xc3\xa4 and 'quotes'");
  CHECK(escaped("a\033[2Jb\nc\x7f") == "a\\033[2Jb\\012c\\177");
  CHECK(escaped(std::string("\0", 1)) == "\\000");
  CHECK(escaped("a\\b", "\\") == "a\\134b");
}

TEST_CASE("A message is one line of a log, whatever is in it", "[tool][log]") {
  auto const directory = erofs_oci::TemporaryDirectory::make("/tmp/process-test-").value();
  LogOptions options;
  options.file = directory.path() + "/log";
  std::string const evil = "/x\033]0;title\007\nmount-oci: all is well";

  for (options.json = false;; options.json = true) {
    {
      auto const log = Log::open(7, options);
      REQUIRE(log.has_value());
      (*log)->say(Level::warning, evil);
    }
    auto const text = erofs_oci::read_text_file(options.file).value();
    CHECK(text.find('\n') == text.size() - 1);
    CHECK(text.find_first_of("\033\007") == std::string::npos);
    CHECK(text.find("all is well") != std::string::npos);
    if (options.json) break;
    ::unlink(options.file.c_str());
  }
}

}  // namespace process_test
}  // namespace mount_oci
