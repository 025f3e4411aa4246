// SPDX-License-Identifier: Apache-2.0
#include "image_metrics.hpp"  // first: proves that the header stands alone

#include <catch.hpp>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/digest/sha256.hpp>

#include "chain.hpp"

namespace oci_snapshotter {
namespace image_metrics_test {

using Catch::Contains;
using erofs_oci::as_bytes;
using erofs_oci::digest_of;

Snapshot snapshot(std::string name, std::string parent, Kind kind, bool is_served) {
  Snapshot out;
  out.info.name = std::move(name);
  out.info.parent = std::move(parent);
  out.info.kind = kind;
  if (is_served) out.chain = "sha256:c", out.manifests = {"sha256:m"};
  return out;
}

TEST_CASE("Metrics tell of each image and of each of its mounts", "[snapshotter][metrics]") {
  ImageFacts const image{"sha256:m",
                         "host/a",
                         {{digest_of(as_bytes("0")), digest_of(as_bytes("0"))},
                          {digest_of(as_bytes("1")), digest_of(as_bytes("1"))}}};
  auto const place = "/d/" + stack_name(image.layers) + "/fs";
  MetricsInput input;
  input.directory = "/d";
  input.images = {image};
  input.counts["host/a@sha256:m"] = {3, 1, std::chrono::milliseconds(250)};
  input.decisions = {{{"host/b@sha256:n", false}}, 5, 6};
  input.mounts =
      std::vector<MountStatus>{{place, true, 10, 20, 30, 40, 50}, {"/other", true, 9, 9, 9, 9, 9}};
  input.snapshots = {
      snapshot("layer", "", Kind::committed, true),
      snapshot("own", "layer", Kind::committed, false), snapshot("c1", "own", Kind::active, false),
      snapshot("v", "layer", Kind::view, false), snapshot("alone", "", Kind::active, false)};

  auto const text = metrics_of(input);

  for (auto const* line :
       {"oci_snapshotter_snapshots{kind=\"active\",way=\"unpacked\"} 2\n",
        "oci_snapshotter_snapshots{kind=\"committed\",way=\"served\"} 1\n",
        "oci_snapshotter_images_decided_total{lazy=\"false\"} 6\n",
        "oci_snapshotter_image_lazy{image=\"host/a@sha256:m\"} 1\n",
        "oci_snapshotter_image_lazy{image=\"host/b@sha256:n\"} 0\n",
        "oci_snapshotter_image_layers{image=\"host/a@sha256:m\"} 2\n",
        "oci_snapshotter_image_users{image=\"host/a@sha256:m\"} 2\n",
        "oci_snapshotter_image_mounts_total{image=\"host/a@sha256:m\"} 3\n",
        "oci_snapshotter_image_mount_failures_total{image=\"host/a@sha256:m\"} 1\n",
        "_image_mount_milliseconds_total{image=\"host/a@sha256:m\"} 250\n",
        "oci_snapshotter_mount_status_up 1\n",
        "oci_snapshotter_mount_memory_bytes{image=\"host/a@sha256:m\",layers=\"2\","}) {
    CHECK_THAT(text, Contains(line));
  }
  CHECK_THAT(text, Contains("\"} 50\n"));
  CHECK_THAT(text, !Contains("} 9\n"));
}

TEST_CASE("Metrics say so if mount-oci tells nothing", "[snapshotter][metrics][error]") {
  MetricsInput input;
  input.mounts = erofs_oci::fail(erofs_oci::Errc::timed_out, "status");

  auto const text = metrics_of(input);

  CHECK_THAT(text, Contains("oci_snapshotter_mount_status_up 0\n"));
  CHECK_THAT(text, !Contains("mount_served"));
}

}  // namespace image_metrics_test
}  // namespace oci_snapshotter
