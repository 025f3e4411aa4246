// SPDX-License-Identifier: Apache-2.0
// A stranger's program: the names that are promised, and one read through the library.
#include <erofs_oci/all.hpp>

#include <array>
#include <cstddef>
#include <cstdio>
#include <type_traits>

using Image = erofs_oci::Concat<erofs_oci::Local, erofs_oci::Gzran<erofs_oci::Http>>;
using Server = erofs_oci::NbdServer<Image, erofs_oci::NetlinkConnect>;
static_assert(erofs_oci::RandomAccessSource<Image>);
static_assert(erofs_oci::RandomAccessSource<erofs_oci::Http>);
static_assert(std::is_class_v<Server>);

// Not only named: every member of both is compiled.
template class erofs_oci::Concat<erofs_oci::Local, erofs_oci::Gzran<erofs_oci::Http>>;
template class erofs_oci::NbdServer<Image, erofs_oci::NetlinkConnect>;

int main() {
  auto const source = erofs_oci::AnySource(erofs_oci::Memory(erofs_oci::to_bytes("hello")));
  std::array<std::byte, 8> buffer{};
  auto const n = source.read_at(1, buffer);
  if (!n || *n != 4 || buffer[0] != std::byte{'e'}) return 1;
  // Functions whose bodies the compiled library may have.
  if (erofs_oci::parse_document(erofs_oci::as_bytes("{}"))) return 1;
  if (erofs_oci::Http::open("no URL")) return 1;
  std::printf("erofs_oci %s: %zu bytes\n", erofs_oci::version, *n);
}
