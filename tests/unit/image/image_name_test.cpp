// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/image/image_name.hpp>  // first: proves that the header stands alone

#include <catch.hpp>

#include <erofs_oci/posix/temporary_directory.hpp>

namespace erofs_oci {
namespace image_name_test {

TEST_CASE("A name says where its image is", "[image][image_name]") {
  CHECK(ImageName::parse("app:1.2") == ImageName{ImagePlace::registry, "app:1.2"});
  CHECK(ImageName::parse("a.b/c@sha256:1") == ImageName{ImagePlace::registry, "a.b/c@sha256:1"});
  for (auto const* path : {"/a:b", "./a", "../a"}) {
    CHECK(ImageName::parse(path) == ImageName{ImagePlace::file, path});
  }
  CHECK(ImageName::parse("file:a/b") == ImageName{ImagePlace::file, "a/b"});
  CHECK(ImageName::parse("oci:a") == ImageName{ImagePlace::layout, "a"});
  CHECK(ImageName::parse("oci:a:b:c") == ImageName{ImagePlace::layout, "a:b", "c"});
  CHECK(ImageName::parse("oci:a:b@sha256:1") == ImageName{ImagePlace::layout, "a:b", "sha256:1"});
}

TEST_CASE("A layout's directory may have a colon in its name", "[image][image_name]") {
  auto const directory = TemporaryDirectory::make("/tmp/erofs_oci:test-").value();
  auto const path = directory.path();

  CHECK(ImageName::parse("oci:" + path) == ImageName{ImagePlace::layout, path});
  CHECK(ImageName::parse("oci:" + path + ":v1") == ImageName{ImagePlace::layout, path, "v1"});
}

}  // namespace image_name_test
}  // namespace erofs_oci
