// SPDX-License-Identifier: Apache-2.0
// Serves a layer's tarindex and its decoded tar as one NBD device on a unix socket:
//   serve_layer TARINDEX LAYER.tar.gz ZINFO SOCKET
// Then, for instance: nbdinfo "nbd+unix:///?socket=SOCKET"
#include <iostream>
#include <stop_token>

#include <erofs_oci/combinator/concat.hpp>
#include <erofs_oci/combinator/padded.hpp>
#include <erofs_oci/gzip/gzran.hpp>
#include <erofs_oci/gzip/zinfo.hpp>
#include <erofs_oci/nbd/server.hpp>
#include <erofs_oci/nbd/socket_listen.hpp>
#include <erofs_oci/source/local.hpp>

using namespace erofs_oci;

namespace {

using Device = Padded<Concat<Local, Gzran<Local>>>;

Result<Device> open_device(char** argv) {
  auto tarindex = Local::open(argv[1]);
  if (!tarindex) return fail(tarindex.error());
  auto blob = Local::open(argv[2]);
  if (!blob) return fail(blob.error());
  auto file = Local::open(argv[3]);
  if (!file) return fail(file.error());
  auto index = read_zinfo(AnySource(*std::move(file)));
  if (!index) return fail(index.error());
  auto tar = Gzran<Local>::make(*std::move(blob), *std::move(index));
  if (!tar) return fail(tar.error());
  return Device::to_block(Concat(*std::move(tarindex), *std::move(tar)), 512);
}

Result<void> serve(char** argv) {
  auto device = open_device(argv);
  if (!device) return fail(device.error());
  auto listen = SocketListen::open_unix(argv[4]);
  if (!listen) return fail(listen.error());
  std::cout << listen->uri() << std::endl;
  return NbdServer<Device, SocketListen>(*std::move(device), *std::move(listen))
      .run(std::stop_token{});
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5) return std::cerr << "usage: serve_layer TARINDEX LAYER ZINFO SOCKET\n", 1;
  auto const ok = serve(argv);
  if (!ok) return std::cerr << ok.error().message() << "\n", 1;
}
