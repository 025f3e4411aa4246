// SPDX-License-Identifier: Apache-2.0
// Serves a layer as one device: its tarindex from a file, its tar from the gzipped blob at a URL.
//   serve_layer TARINDEX http://HOST/LAYER.tar.gz ZINFO         as /dev/nbdN; needs root
//   serve_layer TARINDEX http://HOST/LAYER.tar.gz ZINFO SOCKET  on a unix socket, for instance for
//                                                               nbdinfo
//                                                               "nbd+unix:///?socket=SOCKET"
#include <iostream>
#include <utility>

#include <erofs_oci/combinator/concat.hpp>
#include <erofs_oci/gzip/gzran.hpp>
#include <erofs_oci/gzip/zinfo.hpp>
#include <erofs_oci/http/http.hpp>
#include <erofs_oci/nbd/netlink_connect.hpp>
#include <erofs_oci/nbd/server.hpp>
#include <erofs_oci/nbd/socket_listen.hpp>
#include <erofs_oci/source/local.hpp>

using namespace erofs_oci;

namespace {

using Layer = Concat<Local, Gzran<Http>>;

Result<Layer> open_layer(char** argv) {
  EROFS_OCI_TRY_ASSIGN(auto tarindex, Local::open(argv[1]));
  EROFS_OCI_TRY_ASSIGN(auto blob, Http::open(argv[2]));
  EROFS_OCI_TRY_ASSIGN(auto zinfo, Local::open(argv[3]));
  EROFS_OCI_TRY_ASSIGN(auto index, read_zinfo(AnySource(std::move(zinfo))));
  EROFS_OCI_TRY_ASSIGN(auto tar, Gzran<Http>::make(std::move(blob), std::move(index)));
  return Layer(std::move(tarindex), std::move(tar));
}

Result<void> serve(int argc, char** argv) {
  EROFS_OCI_TRY_ASSIGN(auto layer, open_layer(argv));
  if (argc == 4) {
    NbdServer<Layer, NetlinkConnect> server(std::move(layer), NetlinkConnect());
    return server.run(
        {}, [](auto& device) { std::cout << nbd_device_path(device.index()) << std::endl; });
  }
  EROFS_OCI_TRY_ASSIGN(auto listen, SocketListen::open_unix(argv[4]));
  NbdServer<Layer, SocketListen> server(std::move(layer), std::move(listen));
  return server.run({}, [](auto& socket) { std::cout << socket.uri() << std::endl; });
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4 && argc != 5) {
    return std::cerr << "usage: serve_layer TARINDEX URL ZINFO [SOCKET]\n", 1;
  }
  auto const ok = serve(argc, argv);
  if (!ok) return std::cerr << ok.error().message() << "\n", 1;
}
