// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/gzip/gzran.hpp>
#include <erofs_oci/nbd/server.hpp>
#include <erofs_oci/source/memory.hpp>

int main() {
  return erofs_oci::RandomAccessSource<erofs_oci::Gzran<erofs_oci::Memory>> ? 0 : 1;
}
