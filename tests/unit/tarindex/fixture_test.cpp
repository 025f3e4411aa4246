// SPDX-License-Identifier: Apache-2.0
// What upstream's mkfs.erofs makes of its own test inputs, against what we make of them. Where the
// two differ, upstream is wrong: each deviation stands beside its case.
#include <catch.hpp>

#include <functional>

#include <erofs_oci/tarindex/merge.hpp>

#include "support.hpp"

namespace erofs_oci::tarindex {
namespace fixture_test {

using Edit = std::function<void(Rows&)>;

/// A case of the fixtures: how we read it, and where we differ from upstream.
struct Case {
  std::string name;
  std::string input{};  // default: in/NAME.tar
  Whiteouts whiteouts = Whiteouts::literal;
  Show show = Show::nothing;
  Edit deviate = [](Rows&) {};
};

Row file_row(std::uint64_t size, std::string sha256) {
  return {"reg", 0644, 0, 0, 1700000000, 0, size, 1, "", "", {}, std::move(sha256)};
}

std::string sha256_of(std::string_view text) {
  return digest_of(as_bytes(text)).hex();
}

void sparse(Rows& rows) {
  std::erase_if(rows,
                [](auto const& row) { return row.first.find("GNUSparse") != row.first.npos; });
  rows["/sparse"] =
      file_row(1048576, "bfbeb121ae850eeab8d255e6e6d8a134b4a1f4ffabccc058be40f792a9872579");
}

std::vector<Case> cases() {
  std::vector<Case> all;
  for (auto const* const name : {"basic", "gnu", "prefix", "root", "whiteout", "dirtypad", "noeot",
                                 "oneblk", "empty", "garbage", "unknown"}) {
    all.push_back({.name = name});
  }
  // the global header's time counts for directories too; upstream keeps that of their own header
  all.push_back({.name = "pax", .deviate = [](Rows& rows) {
                   rows["/d"].mtime = 1600000000;
                   rows["/d"].nsec = 500000000;
                 }});
  // `up/..` is cleaned before anything is made: no directory /up
  all.push_back({.name = "odd", .deviate = [](Rows& rows) { rows.erase("/up"); }});
  // typeflag NUL is a regular file
  all.push_back({.name = "nultype", .deviate = [](Rows& rows) {
                   rows["/nul"] = file_row(13, sha256_of("nul typeflag\n"));
                 }});
  for (auto const* const name : {"sparse-gnu", "sparse-pax0.0", "sparse-pax0.1", "sparse-pax1.0"}) {
    all.push_back({.name = name, .deviate = sparse});
  }
  all.push_back({.name = "whiteout-aufs",
                 .input = "in/whiteout.tar",
                 .whiteouts = Whiteouts::oci,
                 .show = Show::overlay,
                 .deviate = [](Rows& rows) {
                   // a whiteout concerns lower layers: the layer's own file stays
                   rows["/etc/other"] = file_row(16, sha256_of("then whited out\n"));
                   rows.erase("/.wh.plnk");  // AUFS's bookkeeping, not a removal
                 }});
  all.push_back({.name = "L0", .whiteouts = Whiteouts::oci, .show = Show::overlay});
  all.push_back({.name = "L1", .whiteouts = Whiteouts::oci, .show = Show::overlay});
  all.push_back({.name = "L2", .whiteouts = Whiteouts::oci, .show = Show::overlay});
  all.push_back({.name = "bigdir", .input = "in/bigdir.tar.gz"});
  return all;
}

/// What no member describes is 0755, 0:0 and as old as time; upstream makes up 0777 and an owner.
void imply(Rows& rows, std::vector<std::string> const& implied) {
  for (auto const& path : implied) {
    REQUIRE(rows.contains(path));
    auto& row = rows[path];
    CHECK(row.type == "dir");
    row.mode = 0755;
    row.uid = row.gid = 0;
    row.mtime = 0;
    row.nsec = 0;
  }
}

TEST_CASE("Every archive that upstream takes gives its manifest", "[tarindex][fixture]") {
  for (auto const& test : cases()) {
    INFO(test.name);
    auto const archive = read_data(test.input.empty() ? "in/" + test.name + ".tar" : test.input);
    auto const manifest = test.name == "bigdir" ? "bigdir.jsonl.gz" : test.name + ".jsonl";
    auto expected = read_manifest(manifest);

    auto const layer = layer_of(archive, {.whiteouts = test.whiteouts});

    if (!layer) FAIL(layer.error().message());
    CHECK(layer->dangling.empty());
    std::vector<Bytes> const archives{archive};
    Lister const ours(layer->tree, archives, test.show);
    test.deviate(expected);
    imply(expected, ours.implied());
    check_rows(ours.rows(), expected);
  }
}

TEST_CASE("Archives that upstream refuses are read, or refused by name",
          "[tarindex][fixture][error]") {
  SECTION("a hard link to nothing is left to the layers below") {
    auto const layer = layer_of(read_data("in/badhl.tar"));
    REQUIRE(layer);
    CHECK(layer->dangling == std::vector<DanglingLink>{{"x", "nope", 0}});
    CHECK(layer->tree.root().directory()->children.empty());

    std::vector<MergeInput> const alone{{&*layer, {20, "x"}}};
    auto const merged = merge(alone);
    REQUIRE(merged);
    CHECK(merged->tree.root().directory()->children.empty());
    REQUIRE(merged->reports.list().size() == 1);
    CHECK(merged->reports.list()[0].text.find("'x' to 'nope'") != std::string::npos);
  }
  SECTION("a hard link before its target is made at the end") {
    auto const archive = read_data("in/fwdhl.tar");
    auto const layer = layer_of(archive);
    REQUIRE(layer);
    std::vector<Bytes> const archives{archive};
    auto const rows = Lister(layer->tree, archives, Show::nothing).rows();
    CHECK(rows.at("/x") == rows.at("/y"));
    CHECK(rows.at("/x").nlink == 2);
  }
  SECTION("a hard link to a directory is left out and reported") {
    auto const layer = layer_of(read_data("in/hldir.tar"));
    REQUIRE(layer);
    CHECK(layer->tree.find(erofs::root_id, "y") == nullptr);
    REQUIRE(layer->reports.list().size() == 1);
    CHECK(layer->reports.list()[0].text.find("'y' to 'x': a directory") != std::string::npos);
  }
  SECTION("a name of 256 bytes is left out and reported") {
    auto const layer = layer_of(read_data("in/name256.tar"));
    REQUIRE(layer);
    CHECK(layer->tree.root().directory()->children.empty());
    REQUIRE(layer->reports.list().size() == 1);
    CHECK(layer->reports.list()[0].text.find("of 256 bytes") != std::string::npos);
  }
  SECTION("a v7 header is read") {
    auto const archive = read_data("in/v7.tar");
    auto const layer = layer_of(archive);
    REQUIRE(layer);
    std::vector<Bytes> const archives{archive};
    CHECK(Lister(layer->tree, archives, Show::nothing).rows().at("/v7").size == 4);
  }
  SECTION("data that are cut short are an error that names the member") {
    auto archive = read_data("in/trunc.tar");
    REQUIRE(layer_of(archive));  // it lacks nothing but padding
    archive.resize(1024 + 512 + 699);
    auto const layer = layer_of(archive);
    REQUIRE_FALSE(layer);
    CHECK(layer.error().code == Errc::truncated);
    CHECK(layer.error().context.find("'b' at offset 1024") != std::string::npos);
  }
  SECTION("an opaque root is a flag of the layer") {
    auto const* const name = GENERATE("in/rootopq.tar", "in/rootopq2.tar");
    auto const layer = layer_of(read_data(name));
    REQUIRE(layer);
    CHECK(layer->tree.root().directory()->opaque);
    CHECK(layer->tree.root().directory()->children.size() == 1);
  }
  SECTION("an attribute of 65,536 bytes is left out and reported") {
    auto const layer = layer_of(read_data("in/bigxattr.tar.gz"));
    REQUIRE(layer);
    CHECK(layer->tree.root().directory()->children.size() == 1);
    REQUIRE(layer->reports.list().size() == 1);
    CHECK(layer->reports.list()[0].text.find("65536 bytes") != std::string::npos);
  }
}

/// Zeros with a few extents of bytes, as the fixtures store archives of terabytes.
class Holes {
 public:
  explicit Holes(std::string const& name) {
    auto const json = nlohmann::json::parse(as_text(read_data("in/" + name)));
    size_ = json.at("size");
    for (auto const& extent : json.at("extents")) {
      auto bytes = tar::detail::base64_decoded(extent.at("base64").get<std::string>());
      REQUIRE(bytes);
      extents_.emplace(extent.at("offset").get<std::uint64_t>(), *std::move(bytes));
    }
  }
  [[nodiscard]] std::uint64_t size() const noexcept { return size_; }
  [[nodiscard]] Result<std::size_t> read_at(std::uint64_t offset, std::span<std::byte> out) const {
    auto const n = readable(size_, offset, out.size());
    std::ranges::fill(out.first(n), std::byte{0});
    for (auto const& [start, bytes] : extents_) {
      for (std::size_t i = 0; i < bytes.size(); ++i) {
        if (start + i >= offset && start + i < offset + n) out[start + i - offset] = bytes[i];
      }
    }
    return n;
  }

 private:
  std::uint64_t size_ = 0;
  std::map<std::uint64_t, Bytes> extents_;
};

TEST_CASE("Members of gigabytes and terabytes lie where they are", "[tarindex][fixture]") {
  auto const* const name = GENERATE("huge5g", "huge3t");
  Holes const source(std::string(name) + ".sparse.json");
  std::istringstream lines{
      std::string(as_text(read_data("manifest/" + std::string(name) + ".jsonl")))};
  nlohmann::json huge;
  for (std::string line; std::getline(lines, line);) {
    if (auto row = nlohmann::json::parse(line); row.at("path") == "/huge") huge = row;
  }
  LayerBuilder builder;

  auto const ok = tar::for_each_entry(
      source, [&](tar::Entry&& entry) { return builder.apply(std::move(entry)); });

  if (!ok) FAIL(ok.error().message());
  auto const layer = std::move(builder).finish();
  CHECK(layer.tree.root().directory()->children.size() == 3);
  auto const& file = *layer.tree[*layer.tree.find(erofs::root_id, "huge")].regular();
  CHECK(file.size == huge.at("size").get<std::uint64_t>());
  REQUIRE(file.extents.size() == 1);
  for (auto const& spot : huge.at("spot")) {
    auto const text = spot.at("text").get<std::string>();
    Bytes got(text.size());
    REQUIRE(read_exact(
        source, file.extents[0].device_offset + spot.at("offset").get<std::uint64_t>(), got));
    CHECK(as_text(got) == text);
  }
}

/// The three layers of the merge example.
struct Three {
  std::vector<Bytes> archives{read_data("in/L0.tar"), read_data("in/L1.tar"),
                              read_data("in/L2.tar")};
  std::vector<Layer> layers{*layer_of(archives[0]), *layer_of(archives[1]), *layer_of(archives[2])};

  [[nodiscard]] std::vector<MergeInput> inputs() const {
    return {{&layers[0], {60, "L0"}}, {&layers[1], {160, "L1"}}, {&layers[2], {20, "L2"}}};
  }
};

/// Attributes come from the layers that describe a directory; upstream takes the root's from the
/// user who runs it, and those of /etc from the top layer, which only holds etc/added.
void real_attributes(Rows& rows) {
  rows["/"].mode = 0751;
  rows["/"].mtime = 1700000010;
  rows["/etc"].mode = 0755;
  rows["/etc"].mtime = 1700000010;
}

TEST_CASE("Three layers merge as overlayfs and upstream show them", "[tarindex][merge][fixture]") {
  Three const three;

  auto const merged = merge(three.inputs());

  REQUIRE(merged);
  CHECK(merged->reports.count() == 0);
  Lister const ours(merged->tree, three.archives, Show::overlay);
  CHECK(ours.implied() == std::vector<std::string>{"/newdir", "/newdir/deep"});
  CHECK(merged->layers == std::vector<std::size_t>{0, 1, 2});
  CHECK(merged->devices[1] == erofs::Device{160, "L1"});

  auto upstream = read_manifest("merged-strip.jsonl");
  real_attributes(upstream);
  imply(upstream, ours.implied());
  check_rows(ours.rows(), upstream);

  auto overlay = read_manifest("overlay-L2-L1-L0.jsonl");
  real_attributes(overlay);
  imply(overlay, ours.implied());
  overlay["/hlB"].nlink = 1;  // overlayfs counts the hidden name
  check_rows(ours.rows(), overlay);
}

TEST_CASE("A layer by itself loses its marks", "[tarindex][merge][fixture]") {
  std::vector<Bytes> const archives{read_data("in/whiteout.tar")};
  auto const layer = layer_of(archives[0]);
  REQUIRE(layer);
  std::vector<MergeInput> const alone{{&*layer, {}}};

  auto const merged = merge(alone);

  REQUIRE(merged);
  Lister const ours(merged->tree, archives, Show::overlay);
  auto upstream = read_manifest("whiteout-aufs-strip.jsonl");
  upstream["/etc/other"] = file_row(16, sha256_of("then whited out\n"));
  upstream["/chr00"] = read_manifest("whiteout-aufs.jsonl")["/chr00"];  // a device, not a mark
  imply(upstream, ours.implied());
  check_rows(ours.rows(), upstream);
}

TEST_CASE("Three layers merge with their marks", "[tarindex][merge][fixture]") {
  Three const three;

  auto const merged = merge(three.inputs(), MergedMarks::keep);

  REQUIRE(merged);
  Lister const ours(merged->tree, three.archives, Show::overlay);
  auto upstream = read_manifest("merged.jsonl");
  real_attributes(upstream);
  imply(upstream, ours.implied());
  // removed by one layer and made anew by the next, or a file before: still hides what is below
  for (auto const* const path : {"/readd", "/f2d"}) {
    upstream[path].xattrs["trusted.overlay.opaque"] = "y";
  }
  check_rows(ours.rows(), upstream);
}

}  // namespace fixture_test
}  // namespace erofs_oci::tarindex
