// SPDX-License-Identifier: Apache-2.0
/// @file
/// Requests that a FUSE server finds in flight when it takes a connection over: it answers each of
/// them at most once, and nothing else, and ends when the kernel hangs up.
///
/// libfuse believes the kernel's lengths, and so does the target: arguments are as long as the
/// opcode asks for. Input: for each request its opcode, its node, how many servers it crashed, and
/// its arguments.
#include <array>
#include <cstdint>
#include <cstring>
#include <set>
#include <span>
#include <stop_token>
#include <string>
#include <utility>

#include <linux/fuse.h>
#include <sys/socket.h>

#include <erofs_oci/combinator/ref.hpp>
#include <erofs_oci/erofs/reader.hpp>
#include <erofs_oci/erofs/writer.hpp>
#include <erofs_oci/fuse/fuse_tree.hpp>
#include <erofs_oci/fuse/inflight.hpp>
#include <erofs_oci/posix/descriptor.hpp>
#include <erofs_oci/source/memory.hpp>

#include "input.hpp"

using namespace erofs_oci;

namespace {

/// A directory with a file, a symbolic link, an attribute.
Bytes make_image() {
  erofs::Tree tree;
  auto directory = erofs::make_node(erofs::Kind::directory);
  directory.xattrs.push_back({"user.a", to_bytes(std::string_view("b"))});
  auto const id = tree.add(erofs::root_id, "d", std::move(directory));
  auto file = erofs::make_node(erofs::Kind::regular);
  file.regular()->size = 5000;
  tree.add(id, "f", std::move(file));
  auto link = erofs::make_node(erofs::Kind::symlink);
  link.content = erofs::Symlink{"d/f"};
  tree.add(erofs::root_id, "l", std::move(link));
  return erofs::Writer::make(tree, {})->to_bytes();
}

template <class T>
std::span<std::byte const> raw(T const& value) {
  return std::as_bytes(std::span(&value, 1));
}

Bytes request(std::uint32_t opcode, std::uint64_t unique, std::uint64_t node,
              std::span<std::byte const> arguments) {
  fuse_in_header header{};
  header.len = static_cast<std::uint32_t>(sizeof header + arguments.size());
  header.opcode = opcode;
  header.unique = unique;
  header.nodeid = node;
  auto bytes = to_bytes(raw(header));
  bytes.insert(bytes.end(), arguments.begin(), arguments.end());
  return bytes;
}

Bytes opening() {
  fuse_init_in in{};
  in.major = FUSE_KERNEL_VERSION;
  in.minor = 36;
  in.max_readahead = 1 << 17;
  in.flags = FUSE_ASYNC_READ | FUSE_BIG_WRITES | FUSE_DO_READDIRPLUS | FUSE_MAX_PAGES;
  return request(FUSE_INIT, 2, 0, raw(in));
}

/// Puts the requests of the input into slots; yields their numbers.
std::multiset<std::uint64_t> fill(FuseInflight const& inflight, fuzz::Input& input) {
  std::multiset<std::uint64_t> uniques;
  for (std::size_t i = 0; i < inflight.slots() && !input.empty(); ++i) {
    auto opcode = std::uint32_t{input.byte()} % 56;
    // libfuse keeps these, which get no answer, for ever.
    if (opcode == FUSE_INTERRUPT || opcode == FUSE_NOTIFY_REPLY) opcode = FUSE_GETATTR;
    auto const node = input.byte();
    auto const crashes = input.byte();
    auto arguments = to_bytes(input.bytes(input.byte()));
    arguments.resize(512);  // longer than any struct, and the names end
    // Its count is believed, too.
    if (opcode == FUSE_BATCH_FORGET || opcode == FUSE_INIT)
      std::ranges::fill(arguments, std::byte{});
    auto const unique = 10 + 2 * i;
    std::ranges::copy(request(opcode, unique, node, arguments), inflight.slot(i).begin());
    for (auto n = crashes % 8; n > 0; --n) inflight.note_crash();
    uniques.insert(unique);
  }
  return uniques;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  static Memory const image(make_image());
  fuzz::Input input(data, size);
  auto const inflight = FuseInflight::make(64);
  auto kernel = socket_pair(SOCK_SEQPACKET);
  if (!inflight || !kernel) return 0;
  auto unanswered = fill(*inflight, input);
  unanswered.insert(2);
  auto& [ours, theirs] = *kernel;
  ::shutdown(ours.get(), SHUT_WR);

  auto reader = erofs::Reader<Ref<Memory>>::open(Ref(image));
  fuzz::require(reader.has_value());
  FuseServeOptions options;
  options.threads = 2;
  FuseTree<Ref<Memory>> tree(*std::move(reader), options);
  auto const end = tree.serve(
      {std::move(theirs), opening(), *inflight->share()}, {}, [](FuseSession&) {}, [] {});
  fuzz::require(end.has_value());

  std::array<std::byte, 1 << 17> packet{};
  for (;;) {
    auto const n = ::recv(ours.get(), packet.data(), packet.size(), MSG_DONTWAIT);
    if (n <= 0) break;
    fuse_out_header header{};
    fuzz::require(n >= static_cast<ssize_t>(sizeof header));
    std::memcpy(&header, packet.data(), sizeof header);
    fuzz::require(header.len == static_cast<std::uint32_t>(n));
    fuzz::require(header.error <= 0 && header.error > -1000);
    auto const found = unanswered.find(header.unique);
    fuzz::require(found != unanswered.end());
    unanswered.erase(found);
  }
  for (std::size_t i = 0; i < inflight->slots(); ++i) fuzz::require(inflight->request(i).empty());
  return 0;
}
