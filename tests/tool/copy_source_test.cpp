// SPDX-License-Identifier: Apache-2.0
#include "copy_source.hpp"  // first: proves that the header stands alone

#include <string>

#include <catch.hpp>

namespace mount_oci {
namespace copy_source_test {

TEST_CASE("IMAGE:PATH is cut where the path begins", "[tool][copy]") {
  auto const digest = "sha256:" + std::string(64, 'a');
  struct Row {
    std::string text;
    std::string image;
    std::string path;
  };
  for (auto const& row : {
           Row{"app:/etc/passwd", "app", "/etc/passwd"},
           Row{"app:v1:/etc/passwd", "app:v1", "/etc/passwd"},
           Row{"host:5000/app:/x", "host:5000/app", "/x"},
           Row{"host:5000/app:v1:/etc/passwd", "host:5000/app:v1", "/etc/passwd"},
           Row{"host:5000/app@" + digest + ":/x", "host:5000/app@" + digest, "/x"},
           Row{"host/app:v1@" + digest + ":/", "host/app:v1@" + digest, "/"},
           Row{"[::1]:5000/app:v1:/x", "[::1]:5000/app:v1", "/x"},
           Row{"app:/a:b:/c", "app", "/a:b:/c"},
           Row{"oci:dir:/x", "oci:dir", "/x"},
           Row{"oci:/srv/dir:v1:/x", "oci:/srv/dir:v1", "/x"},
           Row{"oci:/srv/dir:/x", "oci:/srv/dir", "/x"},
           Row{"oci:./dir@" + digest + ":/x", "oci:./dir@" + digest, "/x"},
           Row{"file:/srv/layer.tar:/x", "file:/srv/layer.tar", "/x"},
           Row{"/srv/layer.tar:/x", "/srv/layer.tar", "/x"},
           Row{"./layer.tar://x/", "./layer.tar", "//x/"},
       }) {
    INFO(row.text);
    auto const source = CopySource::parse(row.text);
    REQUIRE(source.has_value());
    CHECK(source->image == row.image);
    CHECK(source->path == row.path);
  }
  for (auto const* const bad : {"", ":", ":/", ":/x", "app", "app:v1", "app:etc/passwd",
                                "host:5000/app:v1", "oci:/srv/dir", "oci::/x", "file:/x", "/x"}) {
    INFO(bad);
    CHECK_FALSE(CopySource::parse(bad).has_value());
  }
}

TEST_CASE("A copy is called as the end of its path", "[tool][copy]") {
  auto const name = [](std::string path) { return CopySource{"app", std::move(path)}.name(); };
  CHECK(name("/etc/passwd") == "passwd");
  CHECK(name("/etc/") == "etc");
  CHECK(name("//etc//") == "etc");
  CHECK(name("/etc/..") == "..");
  CHECK(name("/.hidden") == ".hidden");
  for (auto const* const contents : {"/", "//", "/.", "/etc/.", "/etc/./"}) {
    INFO(contents);
    CHECK(name(contents).empty());
  }
}

}  // namespace copy_source_test
}  // namespace mount_oci
