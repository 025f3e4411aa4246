// SPDX-License-Identifier: Apache-2.0
/// @file
/// Question: how many requests does a cold random read of a remote layer cost?
///
/// usage: bench-random_reads URL INDEX READS LENGTH
///
/// Each read is done by a Gzran that holds nothing, by an index file of ours, and all that is
/// fetched for it is waited for. Prints one line of JSON; the requests are for the server to count.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <set>
#include <string>
#include <thread>

#include <erofs_oci/combinator/ref.hpp>
#include <erofs_oci/combinator/verified.hpp>
#include <erofs_oci/core/any_source.hpp>
#include <erofs_oci/digest/sha256.hpp>
#include <erofs_oci/gzip/gzran.hpp>
#include <erofs_oci/http/http.hpp>
#include <erofs_oci/source/local.hpp>
#include <erofs_oci/tarindex/index_file.hpp>

namespace {

using namespace erofs_oci;

[[noreturn]] void die(Error const& error) {
  std::fprintf(stderr, "bench-random_reads: %s\n", error.message().c_str());
  std::exit(1);
}

template <class T>
T take(Result<T> result) {
  if (!result) die(result.error());
  return *std::move(result);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5) {
    std::fputs("usage: bench-random_reads URL INDEX READS LENGTH\n", stderr);
    return 1;
  }
  auto const opened = take(read_index_file(AnySource(take(Local::open(argv[2])))));
  auto const index = opened.gzip();
  auto const reads = std::strtoul(argv[3], nullptr, 10);
  auto const length = std::strtoul(argv[4], nullptr, 10);

  Shared<Http> const http(take(Http::open(argv[1])));
  GzranOptions options;
  options.size = opened.index.decoded_size;
  using Checked = Verified<Shared<Http>, Sha256>;

  std::mt19937_64 random(1);
  Bytes out(length);
  std::size_t spans = 0;
  std::uint64_t fetches = 0;
  std::uint64_t fetched = 0;
  auto const begin = std::chrono::steady_clock::now();
  for (std::size_t i = 0; i < reads; ++i) {
    auto const gzran = take(
        Gzran<Checked>::make(take(Checked::make(http, opened.index.chunks())), index, options));
    auto const offset = random() % (gzran.size() - length) / 4096 * 4096;
    if (auto const n = gzran.read_at(offset, out); !n) die(n.error());
    // The request goes on for a while.
    for (std::uint64_t seen = 0; seen != gzran.stats().fetched_bytes;) {
      seen = gzran.stats().fetched_bytes;
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    spans += index.span_of(offset + length - 1) - index.span_of(offset) + 1;
    fetches += gzran.stats().fetches;
    fetched += gzran.stats().fetched_bytes;
  }
  std::chrono::duration<double> const seconds = std::chrono::steady_clock::now() - begin;
  std::printf(
      "{\"reads\": %zu, \"spans_touched\": %zu, \"fetches\": %llu, \"fetched_bytes\": %llu, "
      "\"seconds\": %.3f}\n",
      reads, spans, static_cast<unsigned long long>(fetches),
      static_cast<unsigned long long>(fetched), seconds.count());
  return 0;
}
