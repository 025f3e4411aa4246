// SPDX-License-Identifier: Apache-2.0
// Prints a file of a gzipped tar without unpacking it.
//   checked_layer LAYER.tar.gz COPY.tar.gz PATH
// LAYER is read once, to make its index; then only COPY is read, where the file needs it.
#include <iostream>
#include <utility>

#include <erofs_oci/combinator/concat.hpp>
#include <erofs_oci/combinator/verified.hpp>
#include <erofs_oci/digest/sha256.hpp>
#include <erofs_oci/erofs/reader.hpp>
#include <erofs_oci/erofs/walk.hpp>
#include <erofs_oci/gzip/gzran.hpp>
#include <erofs_oci/source/local.hpp>
#include <erofs_oci/source/memory.hpp>
#include <erofs_oci/tarindex/build.hpp>
#include <erofs_oci/tarindex/index_file.hpp>

using namespace erofs_oci;

namespace {

using Checked = Verified<Local, Sha256>;       // the blob, each 32 KiB by their digest
using Image = Concat<Memory, Gzran<Checked>>;  // the tarindex, then the decoded tar

Result<Image> open_image(char const* layer, char const* copy) {
  EROFS_OCI_TRY_ASSIGN(auto const original, Local::open(layer));
  EROFS_OCI_TRY_ASSIGN(auto built, tarindex::build_layer(original));
  Bytes file;
  EROFS_OCI_TRY(write_index_file(built.index, [&](auto piece) {
    file.insert(file.end(), piece.begin(), piece.end());
    return true;
  }));
  EROFS_OCI_TRY_ASSIGN(auto const index, read_index_file(AnySource(Memory(std::move(file)))));

  EROFS_OCI_TRY_ASSIGN(auto blob, Local::open(copy));
  EROFS_OCI_TRY_ASSIGN(auto checked, Checked::make(std::move(blob), index.index.chunks()));
  EROFS_OCI_TRY_ASSIGN(auto tar, Gzran<Checked>::make(std::move(checked), index.gzip()));
  std::cout << index.index.spans.size() << " checkpoints, tarindex " << built.tarindex.size()
            << " bytes, tar " << tar.size() << " bytes\n";
  return Image(Memory(std::move(built.tarindex)), std::move(tar));
}

Result<void> print(char** argv) {
  EROFS_OCI_TRY_ASSIGN(auto image, open_image(argv[1], argv[2]));
  EROFS_OCI_TRY_ASSIGN(auto const reader, erofs::Reader<Image>::open(std::move(image)));
  EROFS_OCI_TRY_ASSIGN(auto const inode, erofs::find(reader, argv[3]));
  return reader.stream_file(inode, 0, inode.size(), [](auto piece) {
    return static_cast<bool>(std::cout << as_text(piece));
  });
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) return std::cerr << "usage: checked_layer LAYER COPY PATH\n", 1;
  auto const ok = print(argv);
  if (!ok) return std::cerr << ok.error().message() << "\n", 1;
}
