// SPDX-License-Identifier: Apache-2.0
// Prints 80 bytes from anywhere inside a gzipped layer in a registry, without unpacking it.
#include <iostream>

#include <erofs_oci/gzip/gzran.hpp>
#include <erofs_oci/gzip/zinfo.hpp>
#include <erofs_oci/http/http.hpp>
#include <erofs_oci/source/local.hpp>

using namespace erofs_oci;

int main(int, char** argv) {  // URL ZINFO OFFSET
  auto blob = Http::open(argv[1]);
  auto zinfo =
      Local::open(argv[2]).and_then([](Local f) { return read_zinfo(AnySource(std::move(f))); });
  if (!blob || !zinfo) return std::cerr << "cannot open\n", 1;
  auto const tar = Gzran<Http>::make(*std::move(blob), *std::move(zinfo));
  Bytes text(80);
  auto const n = tar.and_then([&](auto& t) { return t.read_at(std::stoull(argv[3]), text); });
  if (!n) return std::cerr << n.error().message() << "\n", 1;
  std::cout << as_text(std::span(text).first(*n)) << "\n";
}
