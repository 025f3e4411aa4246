// SPDX-License-Identifier: Apache-2.0
// Serves a file by NBD on a unix socket, until the program is killed.
//   serve_file FILE SOCKET
#include <iostream>
#include <utility>

#include <erofs_oci/nbd/server.hpp>
#include <erofs_oci/nbd/socket_listen.hpp>
#include <erofs_oci/source/local.hpp>

using namespace erofs_oci;

int main(int argc, char** argv) {
  if (argc != 3) return std::cerr << "usage: serve_file FILE SOCKET\n", 1;
  auto file = Local::open(argv[1]);
  auto listen = SocketListen::open_unix(argv[2]);
  if (!file || !listen) return std::cerr << "cannot open the file or the socket\n", 1;
  NbdServer<Local, SocketListen> server(*std::move(file), *std::move(listen));
  auto const ok = server.run({}, [](auto& socket) { std::cout << socket.uri() << std::endl; });
  if (!ok) return std::cerr << ok.error().message() << "\n", 1;
}
