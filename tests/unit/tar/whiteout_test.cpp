// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/tar/whiteout.hpp>  // first: proves that the header stands alone

#include <catch.hpp>

namespace erofs_oci::tar {
namespace whiteout_test {

TEST_CASE("A name says what it removes", "[tar][whiteout]") {
  CHECK(whiteout("passwd") == Whiteout{});
  CHECK(whiteout(".wh") == Whiteout{});
  CHECK(whiteout("x.wh.y") == Whiteout{});
  CHECK(whiteout(".wh.passwd") == Whiteout{WhiteoutKind::name, "passwd"});
  CHECK(whiteout(".wh...x") == Whiteout{WhiteoutKind::name, "..x"});
  CHECK(whiteout(".wh..wh") == Whiteout{WhiteoutKind::name, ".wh"});
  CHECK(whiteout(".wh..wh..opq") == Whiteout{WhiteoutKind::opaque, {}});
  CHECK(whiteout(".wh..wh.plnk") == Whiteout{WhiteoutKind::reserved, {}});
  CHECK(whiteout(".wh..wh.aufs") == Whiteout{WhiteoutKind::reserved, {}});
}

TEST_CASE("A whiteout of nothing is invalid", "[tar][whiteout][error]") {
  CHECK(whiteout(".wh.") == Whiteout{WhiteoutKind::invalid, {}});
  CHECK(whiteout(".wh..") == Whiteout{WhiteoutKind::invalid, {}});
  CHECK(whiteout(".wh...") == Whiteout{WhiteoutKind::invalid, {}});
}

}  // namespace whiteout_test
}  // namespace erofs_oci::tar
