// SPDX-License-Identifier: Apache-2.0
// Each field of an index artifact and its indexes, each answer of the registry and each step of an
// upload, lying in turn: an image that is opened with what is taken gives the right bytes or an
// error, with every value of oci.index. EROFS_OCI_LIES is how many are drawn at random: 1,000, or
// 100 with a sanitizer, which takes many times as long; the table is walked in part then.
//
// What no reader can tell without reading the layer is in the table, too, and marked `only_proof`:
// an index whose digests all fit, in an artifact that the options take. These pairs are not drawn;
// that the lie is served, and that the same lie is not served where the artifact is not taken, is
// tested.
#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <initializer_list>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include <catch.hpp>
#include <sanitized.hpp>

#include <erofs_oci/combinator/ref.hpp>
#include <erofs_oci/core/endian.hpp>
#include <erofs_oci/digest/sha256.hpp>
#include <erofs_oci/erofs/walk.hpp>
#include <erofs_oci/gzip/inflater.hpp>
#include <erofs_oci/gzip/window.hpp>
#include <erofs_oci/image/checkpoints_file.hpp>
#include <erofs_oci/image/found_image.hpp>
#include <erofs_oci/image/open_layers.hpp>
#include <erofs_oci/image/remote_index.hpp>
#include <erofs_oci/image/start_fetcher.hpp>
#include <erofs_oci/source/memory.hpp>
#include <erofs_oci/tarindex/build.hpp>
#include <erofs_oci/testing/fake_registry.hpp>
#include <erofs_oci/testing/gzip_streams.hpp>
#include <erofs_oci/testing/tar_maker.hpp>

namespace erofs_oci {
namespace lying_index_test {

using testing::FakeRegistry;
using testing::FakeReply;
using testing::FakeTransport;
using testing::signing_key;
using testing::TarMaker;
using Registry = BasicRegistry<FakeTransport, ManualClock>;
using Random = std::mt19937;
using Instead = std::function<std::optional<FakeReply>(HttpRequest const&)>;

std::size_t below(Random& random, std::size_t end) {
  return std::uniform_int_distribution<std::size_t>(0, end - 1)(random);
}

template <class T>
T valued(Result<T> result) {
  if (!result) FAIL(result.error().message());
  return *std::move(result);
}

// ---------------------------------------------------------------- what is true

/// What a layer's tar says, or a lie about it that leaves every file where it is.
struct TarFacts {
  std::uint64_t mode = 0755;
  std::uint64_t uid = 0;
  std::string target = "d/text";
  std::string name = "tool";
};

Bytes lower_tar(TarFacts const& facts = {}) {
  return TarMaker()
      .dir("d")
      .member({.name = "d/text"}, testing::compressible_bytes(50'000, 1))
      .member({.name = facts.name, .mode = facts.mode, .uid = facts.uid},
              testing::compressible_bytes(10'000, 2))
      .symlink("link", facts.target)
      .file("empty")
      .end()
      .bytes();
}

Bytes upper_tar(std::string const& target = "d/text") {
  return TarMaker()
      .dir("d")
      .member({.name = "d/more"}, testing::compressible_bytes(40'000, 3))
      .member({.name = "d/hard", .typeflag = '1', .link = target})
      .end()
      .bytes();
}

Bytes packed(Bytes const& tar) {
  return testing::gzip_member({tar, 6, 0, 8'000});
}

tarindex::BuiltLayer built(Bytes const& blob, std::uint64_t span_size = 32 * 1024) {
  return valued(tarindex::build_layer(Memory(blob), {.span_size = span_size}));
}

/// Checkpoints between those of the index.
ExtraCheckpoints extra_of(Bytes const& blob) {
  ExtraCheckpoints extra;
  for (auto const& span : built(blob, 8 * 1024).index.spans) {
    extra.add({span.start, span.packed_window});
  }
  return extra;
}

Descriptor described(std::string_view type, std::string_view content) {
  Descriptor at;
  at.media_type = type;
  at.digest = digest_of(as_bytes(content));
  at.size = content.size();
  return at;
}

/// An image of some layers, and what is true of it.
struct Truth {
  std::vector<Bytes> blobs;
  std::vector<Descriptor> layers;
  std::vector<IndexFiles> files;
  std::vector<ExtraCheckpoints> extra;
  StartList start;
  std::string manifest;
  Descriptor image;

  explicit Truth(std::vector<Bytes> const& tars) {
    Manifest made;
    made.media_type = media_type::oci_manifest;
    made.config = described("application/vnd.oci.image.config.v1+json", "{}");
    for (auto const& tar : tars) {
      auto const& blob = blobs.emplace_back(packed(tar));
      layers.push_back(described("application/vnd.oci.image.layer.v1.tar+gzip", as_text(blob)));
      files.push_back(valued(index_files(built(blob))));
      extra.push_back(extra_of(blob));
      start.add({layers.back().digest, 0, blob.size() / 2});
    }
    made.layers = layers;
    manifest = encode(made);
    image = described(media_type::oci_manifest, manifest);
  }

  void put_into(FakeRegistry const& registry) const {
    registry.add_blob("n/m", "{}");
    for (auto const& blob : blobs) registry.add_blob("n/m", as_text(blob));
    registry.add_manifest("n/m", "v1", manifest);
  }
};

Truth const& truth() {
  static Truth const value({lower_tar(), upper_tar()});
  return value;
}

/// Another image, whose layers nothing of the first one has.
Truth const& other() {
  static Truth const value({lower_tar({.mode = 0700, .name = "other"}), upper_tar("tool")});
  return value;
}

// ---------------------------------------------------------------- what is made and sent

/// Who has signed an artifact.
enum class Signer : std::uint8_t { nobody, owner, stranger };

PrivateKey const& strange_key() {
  static auto const key = PrivateKey::from_pem(
      "-----BEGIN PRIVATE KEY-----\n"
      "MC4CAQAwBQYDK2VwBCIEIIHPkRbXfRKXkVBYSIXlC5tScsrXQh0dXF9foIZGxR5/\n"
      "-----END PRIVATE KEY-----\n");
  return *key;
}

/// An artifact on its way, as a lie changes it: each step happens behind the one before.
struct Making {
  std::vector<IndexFiles> files = truth().files;
  std::vector<Bytes> checkpoints{};
  Bytes start_list = truth().start.encode();
  std::function<void(std::vector<Bytes>&)> packed{};
  std::function<void(Manifest&)> manifest{};
  std::function<void(std::string&)> text{};
  // Then it is signed, and in the registry.
  std::function<void(FakeRegistry const&, Descriptor const& artifact)> after{};
  Instead answer{};  // in place of the registry's, while the image is opened
  Instead take{};    // the same while it is pushed
  bool has_referrers = true;

  Making() {
    for (auto const& extra : truth().extra) checkpoints.push_back(encode_checkpoints(extra));
  }
};

/// Who can tell a lie without reading the layer.
enum class Telling : std::uint8_t {
  by_checks,     // everybody
  by_signature,  // an artifact that nobody has signed: who does not take such
  by_proof,      // all digests fit: who does not take the artifact
};

struct Lie {
  std::string name;
  Telling telling;
  std::function<void(Making&, Random&)> tell;
};

/// A registry with the image, where hooks may answer.
struct World {
  std::shared_ptr<Instead> answer = std::make_shared<Instead>();
  FakeRegistry registry;

  explicit World(bool has_referrers) : registry(habits(has_referrers)) {
    truth().put_into(registry);
    other().put_into(registry);
    registry.add_manifest("n/m", "v1", truth().manifest);  // the tag is the first image's
  }

  FakeRegistry::Habits habits(bool has_referrers) const {
    FakeRegistry::Habits out;
    out.has_referrers = has_referrers;
    out.instead = [answer = answer](HttpRequest const& request, std::size_t) {
      return *answer ? (*answer)(request) : std::nullopt;
    };
    return out;
  }

  /// Puts the artifact there, as `index --push --with-start-list` does. A push that fails has
  /// ended.
  void push(Making const& making, Signer signer) const {
    auto const& facts = truth();
    *answer = making.take;
    auto const pusher = testing::fake_pusher(registry, {.chunk = 3000, .attempts = 2});
    std::vector<Bytes> blobs;
    for (auto const& files : making.files) blobs.push_back(valued(pack_index(files)));
    if (making.packed) making.packed(blobs);
    std::vector<Descriptor> parts;
    auto const put = [&](Descriptor at, Bytes const& bytes) {
      auto const done = pusher.put_blob(at.digest, bytes);
      parts.push_back(std::move(at));
      return done.has_value();
    };
    bool whole = true;
    for (std::size_t i = 0; i < blobs.size(); ++i) {
      whole = put(describe_index(blobs[i], facts.layers[i].digest), blobs[i]) && whole;
    }
    for (std::size_t i = 0; i < blobs.size(); ++i) {
      auto const& file = making.checkpoints[i];
      whole = put(describe_checkpoints(file, facts.layers[i].digest), file) && whole;
    }
    whole = put(describe_start_list(making.start_list), making.start_list) && whole;
    if (!whole) return;
    auto artifact = make_index_artifact(facts.image, std::move(parts));
    if (making.manifest) making.manifest(artifact);
    auto text = encode(artifact);
    if (making.text) making.text(text);
    auto const at = registry.add_manifest("n/m", "artifact", text);
    registry.add_blob("n/m", index_artifact::empty_config);
    *answer = {};
    if (!making.has_referrers) {
      Index list;
      list.media_type = media_type::oci_index;
      list.manifests = {at};
      list.manifests[0].artifact_type = index_artifact::type;
      registry.add_manifest("n/m", referrers_tag(facts.image.digest), encode(list));
    }
    if (signer != Signer::nobody) {
      auto const& key = signer == Signer::owner ? signing_key() : strange_key();
      REQUIRE(sign_manifest(pusher, "r.x/n/m", at.digest, key).has_value());
    }
    if (making.after) making.after(registry, at);
  }
};

// ---------------------------------------------------------------- who looks

/// One way to mount the image.
struct Reader {
  char const* name;
  IndexUse use;
  bool has_key;
  bool by_tag = true;

  [[nodiscard]] bool takes(Signer signer) const {
    if (use == IndexUse::none) return false;
    return (has_key && signer == Signer::owner) || (use == IndexUse::trusted && by_tag);
  }
};

constexpr std::array readers{
    Reader{"signed", IndexUse::by_key, true},
    Reader{"signed, without a key", IndexUse::by_key, false},
    Reader{"bound", IndexUse::bound, true},
    Reader{"bound, without a key: the default", IndexUse::bound, false},
    Reader{"trusted", IndexUse::trusted, false},
    Reader{"trusted, with a key", IndexUse::trusted, true},
    Reader{"trusted, by digest", IndexUse::trusted, false, false},
    Reader{"none", IndexUse::none, true},
};
constexpr std::array signers{Signer::nobody, Signer::owner, Signer::stranger};

using Facts = std::map<std::string, std::string>;  // by path

/// What readers of an image see.
struct Seen {
  Facts files;              // what could be read
  bool complete = false;    // no directory is missing
  std::size_t indexes = 0;  // that were taken from the artifact
  std::size_t failed = 0;   // files, or the image as a whole
};

template <class Image>
Result<std::string> facts_of(Image const& image, erofs::Inode const& inode) {
  auto text = std::to_string(inode.record.mode) + " " + std::to_string(inode.record.uid) + ":" +
              std::to_string(inode.record.gid) + " " + std::to_string(inode.mtime.seconds) + " " +
              std::to_string(inode.record.links) + " ";
  if (inode.is_directory()) return text;
  text += std::to_string(inode.size()) + " ";
  if (inode.is_symlink()) {
    EROFS_OCI_TRY_ASSIGN(auto const target, image.read_link(inode));
    return text + target;
  }
  if (!inode.is_regular()) return text + std::to_string(inode.record.start);
  Sha256 hash;
  std::uint64_t size = 0;
  EROFS_OCI_TRY(image.stream_file(inode, 0, inode.size(), [&](auto bytes) {
    hash.update(bytes);
    size += bytes.size();
    return true;
  }));
  return text + std::to_string(size) + " " + hash.finish().hex();
}

void look_at(AnySource const& device, Seen& seen) {
  auto const image = erofs::Reader<Ref<AnySource>>::open(Ref(device));
  if (!image) {
    ++seen.failed;
    return;
  }
  seen.complete = true;
  auto const visit = [&](erofs::Visit const& at) {
    if (at.error != nullptr) {
      seen.complete = false;
      ++seen.failed;
      return erofs::Step::enter;
    }
    auto facts = facts_of(*image, *at.inode);
    if (facts) {
      seen.files[at.path] = *std::move(facts);
    } else {
      seen.files[at.path] = "error";
      ++seen.failed;
    }
    return erofs::Step::enter;
  };
  if (!erofs::walk(*image, visit)) seen.complete = false;
}

/// Mounts the image as the tool does, with empty stores, and reads all of it.
Seen look(World const& world, Reader const& reader) {
  Seen seen;
  auto const name = reader.by_tag ? "r.x/n/m:v1" : "r.x/n/m@" + truth().image.digest.to_string();
  auto const from =
      valued(Registry::make(valued(Reference::parse(name)), {}, world.registry.transport()));
  IndexTrust trust{reader.use, {}};
  if (reader.has_key) trust.keys.push_back(signing_key().public_key());
  auto const found = find_in_registry(from, {"linux", "amd64", ""}, {}, {.attempts = 2}, trust);
  if (!found) {
    ++seen.failed;
    return seen;
  }
  auto const memory = std::make_shared<ImageMemory>();
  std::optional<StartList> start;
  IndexOptions options{.parallel = 1, .memory = memory};
  options.elsewhere = [&](ImageLayer const& layer) -> Result<std::optional<StoredLayer>> {
    std::optional<StoredLayer> none;
    if (!found->index) return none;
    auto index = found->index(layer.descriptor, memory);
    if (!index || !*index) return none;
    if ((*index)->start_list) {
      auto list = (*index)->start_list();
      if (list) start = *std::move(list);
    }
    auto opened = open_index((*index)->files, layer.descriptor);
    if (!opened) return none;
    opened->extra = (*index)->extra;
    ++seen.indexes;
    return std::optional(*std::move(opened));
  };
  auto const indexes = index_layers(found->image_layers(), options);
  auto image =
      indexes ? open_layers(found->image_layers(), *indexes, {}, options) : fail(indexes.error());
  if (!image) {
    ++seen.failed;
    return seen;
  }
  if (start) {
    for (auto const& piece : plan_start(*start, image->device.starts)) {
      auto const& layer = image->device.starts.at(piece.layer);
      static_cast<void>(layer.fetch(piece.begin, piece.end, {}));
    }
  }
  look_at(image->device.source, seen);
  return seen;
}

Facts const& right_facts() {
  static Facts const facts = [] {
    World const world(true);
    auto const seen = look(world, {"none", IndexUse::none, false});
    REQUIRE(seen.complete);
    REQUIRE(seen.failed == 0);
    REQUIRE(seen.files.size() == 8);
    return seen.files;
  }();
  return facts;
}

/// What readers see that is not so; empty: nothing.
std::string lie_in(Seen const& seen) {
  for (auto const& [path, facts] : seen.files) {
    auto const right = right_facts().find(path);
    if (right == right_facts().end()) return path + " is there";
    if (facts != "error" && facts != right->second) return path + ": " + facts;
  }
  for (auto const& [path, facts] : right_facts()) {
    if (seen.complete && !seen.files.contains(path)) return path + " is missing";
  }
  return {};
}

// ---------------------------------------------------------------- lies about files of the index

constexpr std::size_t sealed_header = 256;

std::uint64_t load_number(Bytes const& file, std::size_t at) {
  return load_le<std::uint64_t>(std::span(file).subspan(at).first<8>());
}

std::size_t spans_of(Bytes const& index) {
  return static_cast<std::size_t>(load_number(index, 152));
}
std::size_t table_end(Bytes const& index) {
  return index_header_size + index_record_size * spans_of(index) +
         sha256_size * static_cast<std::size_t>(load_number(index, 232));
}

void put_digest(Bytes& file, std::size_t at, Digest const& digest) {
  std::ranges::copy(digest.bytes(), file.begin() + static_cast<std::ptrdiff_t>(at));
}

void seal_header(Bytes& index) {
  put_digest(index, sealed_header, digest_of(std::span(index).first(sealed_header)));
}

/// Makes the digests of an index file right again, as far as it says where they are.
void seal(Bytes& index) {
  auto const end = table_end(index);
  if (end >= index_header_size && end <= index.size()) {
    put_digest(index, 160,
               digest_of(std::span(index).subspan(index_header_size, end - index_header_size)));
  }
  seal_header(index);
}

void seal(IndexFiles& files) {
  put_digest(files.index, 112, digest_of(files.tarindex));
  store_le(std::uint64_t{files.tarindex.size()}, std::span(files.index).subspan(144).first<8>());
  put_digest(files.index, 192, files.links.empty() ? Digest() : digest_of(files.links));
  seal(files.index);
}

void flip(Bytes& bytes, Random& random, std::size_t begin = 0, std::size_t end = 0) {
  if (end == 0) end = bytes.size();
  bytes[begin + below(random, end - begin)] ^= std::byte{1} << static_cast<int>(below(random, 8));
}

void flip(std::string& text, Random& random) {
  text[below(random, text.size())] ^= static_cast<char>(1U << below(random, 7));
}

/// Another value of a number or a digest.
void change(Bytes& bytes, std::size_t at, std::size_t size, Random& random) {
  auto const field = std::span(bytes).subspan(at, size);
  auto const before = to_bytes(field);
  switch (below(random, 5)) {
    case 0: std::ranges::fill(field, std::byte{0}); break;
    case 1: std::ranges::fill(field, std::byte{0xff}); break;
    case 2: field[0] = static_cast<std::byte>(std::to_integer<unsigned>(field[0]) + 1); break;
    case 3: field[0] = static_cast<std::byte>(std::to_integer<unsigned>(field[0]) - 1); break;
    default:
      for (auto& byte : field) byte = static_cast<std::byte>(random());
  }
  if (std::ranges::equal(before, field)) field[0] ^= std::byte{0x10};
}

IndexFiles& any_of(Making& making, Random& random) {
  return making.files[below(random, making.files.size())];
}

/// A number of a window that is there, and where it begins and how long it is.
struct Window {
  std::size_t record;
  std::size_t begin;
  std::size_t size;
};
Window any_window(Bytes const& index, Random& random) {
  std::vector<Window> windows;
  auto begin = table_end(index);
  for (std::size_t i = 0; i < spans_of(index); ++i) {
    auto const record = index_header_size + i * index_record_size;
    auto const size = load_le<std::uint32_t>(std::span(index).subspan(record + 20).first<4>());
    if (size > 0) windows.push_back({record, begin, size});
    begin += size;
  }
  REQUIRE_FALSE(windows.empty());
  return windows[below(random, windows.size())];
}

/// A packed window of bytes that no layer has.
Bytes lying_window(Random& random) {
  Bytes window(gzip_window_size);
  for (auto& byte : window) byte = static_cast<std::byte>('a' + below(random, 4));
  return deflate_bytes(window);
}

/// Puts another window in place of one; the file stays as it is otherwise.
void replace_window(Bytes& index, Random& random) {
  auto const old = any_window(index, random);
  auto const made = lying_window(random);
  auto const at = index.begin() + static_cast<std::ptrdiff_t>(old.begin);
  index.erase(at, at + static_cast<std::ptrdiff_t>(old.size));
  index.insert(index.begin() + static_cast<std::ptrdiff_t>(old.begin), made.begin(), made.end());
  auto const record = std::span(index).subspan(old.record);
  store_le(static_cast<std::uint32_t>(made.size()), record.subspan(20).first<4>());
  store_le(ZlibInflater::crc32(0, made), record.subspan(24).first<4>());
  store_le(std::uint64_t{index.size()}, std::span(index).subspan(16).first<8>());
}

/// The tarindex of a tar that says something else of files at the same places.
Bytes lying_tree(TarFacts const& facts) {
  return valued(index_files(built(packed(lower_tar(facts))))).tarindex;
}

Telling once_sealed(bool sealed) {
  return sealed ? Telling::by_proof : Telling::by_checks;
}

using Lies = std::vector<Lie>;

/// A number or a digest in a part of an index file.
struct Field {
  char const* name;
  std::size_t at;
  std::size_t size;
  Telling sealed = Telling::by_checks;  // once all digests fit
};

/// Other values of fields, as they are and once `seal_it` has made digests fit.
/// @param begin  where the part is that the fields are in
void add_field_lies(Lies& lies, std::string const& part, std::initializer_list<Field> fields,
                    std::size_t (*begin)(Bytes const&, Random&), void (*seal_it)(Bytes&)) {
  for (auto const& field : fields) {
    for (auto const sealed : {false, true}) {
      lies.push_back({part + ": " + field.name + (sealed ? ", sealed" : ""),
                      sealed ? field.sealed : Telling::by_checks,
                      [=](Making& making, Random& random) {
                        auto& index = any_of(making, random).index;
                        change(index, begin(index, random) + field.at, field.size, random);
                        if (sealed) seal_it(index);
                      }});
    }
  }
}

void add_header_lies(Lies& lies) {
  add_field_lies(
      lies, "index",
      {{"magic", 0, 8},
       {"version", 8, 4},
       {"encoding", 12, 4, Telling::by_proof},
       {"size", 16, 8},
       {"blob size", 24, 8},
       {"decoded size", 32, 8, Telling::by_proof},
       {"span size", 40, 8},
       {"blob", 48, 32},
       {"diffID", 80, 32},
       {"tarindex", 112, 32},
       {"tarindex size", 144, 8},
       {"spans", 152, 8},
       {"table digest", 160, 32},
       {"links digest", 192, 32},
       {"piece size", 224, 8},
       {"pieces", 232, 8},
       {"zeros", 240, 16}},
      [](Bytes const&, Random&) { return std::size_t{0}; }, seal_header);
  lies.push_back({"index: header digest", Telling::by_checks, [](Making& making, Random& random) {
                    change(any_of(making, random).index, sealed_header, 32, random);
                  }});
}

void add_table_lies(Lies& lies) {
  add_field_lies(
      lies, "span",
      {{"in", 0, 8, Telling::by_proof},
       {"out", 8, 8, Telling::by_proof},
       {"bits", 16, 4, Telling::by_proof},
       {"window size", 20, 4, Telling::by_proof},
       {"window CRC", 24, 4},
       {"zeros", 28, 4}},
      [](Bytes const& index, Random& random) {
        return index_header_size + below(random, spans_of(index)) * index_record_size;
      },
      seal);
  for (auto const sealed : {false, true}) {
    auto const end = std::string(sealed ? ", sealed" : "");
    // Sealed or not, bytes that have not the digest are never decoded.
    lies.push_back(
        {"piece: digest" + end, Telling::by_checks, [sealed](Making& making, Random& random) {
           auto& index = any_of(making, random).index;
           auto const begin = index_header_size + index_record_size * spans_of(index);
           flip(index, random, begin, table_end(index));
           if (sealed) seal(index);
         }});
    lies.push_back(
        {"window: a bit" + end, once_sealed(sealed), [sealed](Making& making, Random& random) {
           auto& index = any_of(making, random).index;
           auto const window = any_window(index, random);
           flip(index, random, window.begin, window.begin + window.size);
           if (!sealed) return;
           auto const bytes = std::span(index).subspan(window.begin, window.size);
           store_le(ZlibInflater::crc32(0, bytes),
                    std::span(index).subspan(window.record + 24).first<4>());
           seal(index);
         }});
    lies.push_back({"window: decodes to other bytes" + end, once_sealed(sealed),
                    [sealed](Making& making, Random& random) {
                      auto& index = any_of(making, random).index;
                      replace_window(index, random);
                      if (sealed) seal(index);
                    }});
  }
}

void add_tree_lies(Lies& lies) {
  struct Tree {
    char const* name;
    TarFacts facts;
  };
  for (auto const& tree :
       {Tree{"mode 6755", {.mode = 06755}}, Tree{"owner", {.uid = 7}},
        Tree{"symbolic link", {.target = "/../x"}}, Tree{"name", {.name = "toil"}}}) {
    for (auto const sealed : {false, true}) {
      lies.push_back({std::string("tree: ") + tree.name + (sealed ? ", sealed" : ""),
                      once_sealed(sealed), [facts = tree.facts, sealed](Making& making, Random&) {
                        making.files[0].tarindex = lying_tree(facts);
                        if (sealed) seal(making.files[0]);
                      }});
    }
  }
  for (auto const sealed : {false, true}) {
    auto const end = std::string(sealed ? ", sealed" : "");
    lies.push_back(
        {"tree: a bit" + end, once_sealed(sealed), [sealed](Making& making, Random& random) {
           auto& files = any_of(making, random);
           flip(files.tarindex, random);
           if (sealed) seal(files);
         }});
    lies.push_back(
        {"tree: cut" + end, once_sealed(sealed), [sealed](Making& making, Random& random) {
           auto& files = any_of(making, random);
           files.tarindex.resize(below(random, files.tarindex.size()));
           if (sealed) seal(files);
         }});
    lies.push_back(
        {"tree: of the other layer" + end, once_sealed(sealed), [sealed](Making& making, Random&) {
           making.files[0].tarindex = truth().files[1].tarindex;
           if (sealed) seal(making.files[0]);
         }});
    lies.push_back({"links: none" + end, once_sealed(sealed), [sealed](Making& making, Random&) {
                      making.files[1].links.clear();
                      if (sealed) seal(making.files[1]);
                    }});
    lies.push_back(
        {"links: another target" + end, once_sealed(sealed), [sealed](Making& making, Random&) {
           making.files[1].links = other().files[1].links;
           if (sealed) seal(making.files[1]);
         }});
    lies.push_back(
        {"links: a bit" + end, once_sealed(sealed), [sealed](Making& making, Random& random) {
           flip(making.files[1].links, random);
           if (sealed) seal(making.files[1]);
         }});
  }
  lies.push_back({"index of the other layer", Telling::by_checks,
                  [](Making& making, Random&) { std::swap(making.files[0], making.files[1]); }});
  lies.push_back({"index of another image's layer", Telling::by_checks,
                  [](Making& making, Random&) { making.files = other().files; }});
}

// ---------------------------------------------------------------- lies about the artifact

void cut(Bytes& bytes, Random& random) {
  bytes.resize(below(random, bytes.size()));
}

void add_packed_lies(Lies& lies) {
  auto const add = [&](char const* name, std::function<void(Bytes&, Random&)> const& lie) {
    lies.push_back(
        {std::string("packed: ") + name, Telling::by_checks, [lie](Making& making, Random& random) {
           making.packed = [lie, &random](std::vector<Bytes>& blobs) {
             lie(blobs[below(random, blobs.size())], random);
           };
         }});
  };
  add("cut", cut);
  add("a bit", [](Bytes& bytes, Random& random) { flip(bytes, random); });
  add("empty", [](Bytes& bytes, Random&) { bytes.clear(); });
  add("more bytes",
      [](Bytes& bytes, Random& random) { bytes.resize(bytes.size() + 1 + below(random, 9)); });
  add("twice", [](Bytes& bytes, Random&) {
    auto const copy = bytes;
    bytes.insert(bytes.end(), copy.begin(), copy.end());
  });
  add("not packed", [](Bytes& bytes, Random&) { bytes = truth().files[0].index; });
  add("zeros", [](Bytes& bytes, Random&) { bytes = valued(pack_index({Bytes(1 << 20), {}, {}})); });
}

Digest any_digest(Random& random) {
  Bytes bytes(32);
  for (auto& byte : bytes) byte = static_cast<std::byte>(random());
  return digest_of(bytes);
}

void add_start_lies(Lies& lies) {
  lies.push_back({"checkpoints: a bit", Telling::by_checks, [](Making& making, Random& random) {
                    flip(making.checkpoints[below(random, 2)], random);
                  }});
  lies.push_back({"checkpoints: cut", Telling::by_checks, [](Making& making, Random& random) {
                    cut(making.checkpoints[below(random, 2)], random);
                  }});
  for (auto const whole : {false, true}) {
    lies.push_back({whole ? "checkpoints: of the other layer" : "checkpoints: another place",
                    Telling::by_proof, [whole](Making& making, Random& random) {
                      if (whole) return std::swap(making.checkpoints[0], making.checkpoints[1]);
                      ExtraCheckpoints lying;
                      for (auto point : truth().extra[0].points()) {
                        point.start.out += 1 + below(random, 100);
                        lying.add(point);
                      }
                      making.checkpoints[0] = encode_checkpoints(lying);
                    }});
  }
  lies.push_back({"checkpoints: windows that decode to other bytes", Telling::by_proof,
                  [](Making& making, Random& random) {
                    ExtraCheckpoints lying;
                    for (auto point : truth().extra[0].points()) {
                      point.packed_window = lying_window(random);
                      lying.add(std::move(point));
                    }
                    making.checkpoints[0] = encode_checkpoints(lying);
                  }});
  lies.push_back(
      {"checkpoints: rest of a piece", Telling::by_checks, [](Making& making, Random& random) {
         ExtraCheckpoints lying;
         for (auto point : truth().extra[0].points()) {
           point.rest = any_digest(random);
           lying.add(std::move(point));
         }
         making.checkpoints[0] = encode_checkpoints(lying);
       }});
  lies.push_back({"start list: a bit", Telling::by_checks,
                  [](Making& making, Random& random) { flip(making.start_list, random); }});
  lies.push_back({"start list: cut", Telling::by_checks,
                  [](Making& making, Random& random) { cut(making.start_list, random); }});
  // It is advice: whatever it says, it changes no byte.
  lies.push_back(
      {"start list: other ranges", Telling::by_checks, [](Making& making, Random& random) {
         StartList list;
         for (unsigned i = 0; i < 20; ++i) {
           auto const& layer = below(random, 4) == 0 ? other().layers[0] : truth().layers[i % 2];
           auto const begin = below(random, 2 * layer.size);
           list.add({layer.digest, begin, begin + 1 + below(random, layer.size)});
         }
         making.start_list = list.encode();
       }});
}

void add_manifest_lies(Lies& lies) {
  auto const add = [&](char const* name, std::function<void(Manifest&, Random&)> const& lie) {
    lies.push_back({std::string("artifact: ") + name, Telling::by_checks,
                    [lie](Making& making, Random& random) {
                      making.manifest = [lie, &random](Manifest& manifest) {
                        lie(manifest, random);
                      };
                    }});
  };
  auto const part = [](Manifest& manifest, Random& random) -> Descriptor& {
    return manifest.layers[below(random, manifest.layers.size())];
  };
  add("another type", [](Manifest& m, Random&) { m.artifact_type = "application/x"; });
  add("no type", [](Manifest& m, Random&) { m.artifact_type.clear(); });
  add("no subject", [](Manifest& m, Random&) { m.subject.reset(); });
  add("another subject", [](Manifest& m, Random&) { m.subject = other().image; });
  add("any subject", [](Manifest& m, Random& random) { m.subject->digest = any_digest(random); });
  add("subject's size", [](Manifest& m, Random& random) { m.subject->size = random(); });
  add("config", [](Manifest& m, Random& random) { m.config.digest = any_digest(random); });
  add("no parts", [](Manifest& m, Random&) { m.layers.clear(); });
  add("order", [](Manifest& m, Random& random) { std::ranges::shuffle(m.layers, random); });
  add("too many parts",
      [](Manifest& m, Random&) { m.layers.resize(max_manifest_layers + 1, m.layers[0]); });
  add("part's digest",
      [part](Manifest& m, Random& random) { part(m, random).digest = any_digest(random); });
  add("part's size", [part](Manifest& m, Random& random) {
    auto& at = part(m, random);
    std::array<std::uint64_t, 5> const sizes{0, at.size - 1, at.size + 1, random(), UINT64_MAX / 2};
    at.size = sizes[below(random, sizes.size())];
  });
  add("part's type", [part](Manifest& m, Random& random) {
    std::array const types{index_artifact::layer_type, index_artifact::checkpoints_type,
                           index_artifact::start_list_type, std::string_view("application/x")};
    part(m, random).media_type = types[below(random, types.size())];
  });
  add("no layer", [part](Manifest& m, Random& random) { part(m, random).annotations.clear(); });
  add("indexes change their layers",
      [](Manifest& m, Random&) { std::swap(m.layers[0].annotations, m.layers[1].annotations); });
  add("one index for both layers",
      [](Manifest& m, Random&) { m.layers[1].annotations = m.layers[0].annotations; });
  // Kernels compare with it what they are served; it says nothing of what that is.
  add("a Merkle tree of something else", [](Manifest& m, Random& random) {
    auto const at = below(random, m.layers.size() + 1);
    m.layers.insert(m.layers.begin() + static_cast<std::ptrdiff_t>(at),
                    describe_tree(truth().blobs[0], any_digest(random), any_digest(random)));
  });
  add("layer that is no digest", [part](Manifest& m, Random& random) {
    part(m, random).annotations[index_artifact::layer_digest] = "sha256:../../x";
  });
  lies.push_back({"artifact: cut", Telling::by_checks, [](Making& making, Random& random) {
                    making.text = [&](std::string& text) {
                      text.resize(below(random, text.size()));
                    };
                  }});
  lies.push_back({"artifact: a bit", Telling::by_checks, [](Making& making, Random& random) {
                    making.text = [&](std::string& text) { flip(text, random); };
                  }});
}

// ---------------------------------------------------------------- lies of the registry

/// An answer to what `matches` says, from the n-th time on, up to another one.
Instead answering(std::function<bool(HttpRequest const&)> matches,
                  std::function<FakeReply(HttpRequest const&)> reply, std::size_t from = 0,
                  std::size_t to = ~std::size_t{0}) {
  auto const seen = std::make_shared<std::atomic<std::size_t>>(0);
  return [=](HttpRequest const& request) -> std::optional<FakeReply> {
    if (!matches(request)) return std::nullopt;
    auto const number = (*seen)++;
    if (number < from || number >= to) return std::nullopt;
    return reply(request);
  };
}

std::function<bool(HttpRequest const&)> is_about(std::string text) {
  return [text = std::move(text)](HttpRequest const& request) {
    return request.url.target.find(text) != std::string::npos;
  };
}

std::function<FakeReply(HttpRequest const&)> sending(Bytes bytes) {
  return [bytes = std::move(bytes)](HttpRequest const& request) {
    return testing::serve(request, bytes);
  };
}

Bytes packed_index(std::size_t layer) {
  return valued(pack_index(truth().files[layer]));
}

std::string blob_target(Bytes const& bytes) {
  return "/blobs/" + digest_of(bytes).to_string();
}

void add_blob_lies(Lies& lies) {
  auto const add = [&](char const* name, std::function<void(Bytes&, Random&)> const& lie) {
    lies.push_back({std::string("registry: a part, ") + name, Telling::by_checks,
                    [lie](Making& making, Random& random) {
                      std::vector<Bytes> const parts{packed_index(0), packed_index(1),
                                                     making.checkpoints[0], making.start_list};
                      auto bytes = parts[below(random, parts.size())];
                      auto const target = blob_target(bytes);
                      lie(bytes, random);
                      auto const from = below(random, 2);  // the second time, say
                      making.answer = answering(is_about(target), sending(std::move(bytes)), from);
                    }});
  };
  add("cut", cut);
  add("a bit", [](Bytes& bytes, Random& random) { flip(bytes, random); });
  add("another one", [](Bytes& bytes, Random&) { bytes = valued(pack_index(other().files[0])); });
  add("longer", [](Bytes& bytes, Random&) { bytes.resize(2 * bytes.size()); });
  lies.push_back(
      {"registry: a part, broken off", Telling::by_checks, [](Making& making, Random& random) {
         auto const bytes = packed_index(below(random, 2));
         auto const end = below(random, bytes.size());
         making.answer = answering(is_about(blob_target(bytes)), [=](auto const& request) {
           auto reply = testing::serve(request, bytes);
           reply.reset_after = end;
           return reply;
         });
       }});
  lies.push_back({"registry: another layer", Telling::by_checks, [](Making& making, Random&) {
                    making.answer = answering(is_about(blob_target(truth().blobs[0])),
                                              sending(other().blobs[0]));
                  }});
  lies.push_back(
      {"registry: a layer, a bit", Telling::by_checks, [](Making& making, Random& random) {
         auto bytes = truth().blobs[0];
         auto const target = blob_target(bytes);
         flip(bytes, random);
         making.answer = answering(is_about(target), sending(std::move(bytes)));
       }});
}

/// Artifacts of an attacker, who has no key.
Descriptor put_lie(FakeRegistry const& registry) {
  auto files = truth().files;
  files[0].tarindex = lying_tree({.mode = 06755});
  seal(files[0]);
  std::vector<Descriptor> parts;
  for (std::size_t i = 0; i < files.size(); ++i) {
    auto const bytes = valued(pack_index(files[i]));
    parts.push_back(describe_index(bytes, truth().layers[i].digest));
    registry.add_blob("n/m", as_text(bytes));
  }
  auto at = registry.add_manifest("n/m", "lie",
                                  encode(make_index_artifact(truth().image, std::move(parts))));
  at.artifact_type = index_artifact::type;
  return at;
}

Bytes list_of(std::vector<Descriptor> manifests) {
  Index index;
  index.media_type = media_type::oci_index;
  index.manifests = std::move(manifests);
  return to_bytes(encode(index));
}

FakeReply with_body(Bytes body) {
  return {200, {}, std::move(body)};
}

void add_replacing_lies(Lies& lies) {
  lies.push_back({"registry: replaces the artifact between two requests", Telling::by_signature,
                  [](Making& making, Random& random) {
                    making.after = [&making, &random](FakeRegistry const& registry,
                                                      Descriptor const& at) {
                      auto const lie = put_lie(registry);
                      auto const text = registry.manifest("n/m", lie.digest.to_string());
                      making.answer = answering(
                          is_about("/manifests/" + at.digest.to_string()),
                          [=](auto const&) { return with_body(to_bytes(text)); }, below(random, 2));
                    };
                  }});
  lies.push_back({"registry: moves the signature to another artifact", Telling::by_signature,
                  [](Making& making, Random&) {
                    making.after = [](FakeRegistry const& registry, Descriptor const& at) {
                      auto const lie = put_lie(registry);
                      auto const signatures = registry.manifest("n/m", cosign::tag_of(at.digest));
                      if (signatures.empty()) return;
                      registry.add_manifest("n/m", cosign::tag_of(lie.digest), signatures);
                    };
                  }});
}

void add_list_lies(Lies& lies) {
  auto const add = [&](char const* name, Telling telling,
                       std::function<Bytes(FakeRegistry const&, Descriptor, Random&)> const& list) {
    for (auto const has_referrers : {true, false}) {
      lies.push_back(
          {std::string(has_referrers ? "referrers: " : "referrers by tag: ") + name, telling,
           [=](Making& making, Random& random) {
             making.has_referrers = has_referrers;
             making.after = [=, &making, &random](FakeRegistry const& registry, Descriptor at) {
               at.artifact_type = index_artifact::type;
               auto const body = list(registry, at, random);
               auto const target = has_referrers
                                       ? std::string("/referrers/")
                                       : "/manifests/" + referrers_tag(truth().image.digest);
               making.answer =
                   answering(is_about(target), [=](auto const&) { return with_body(body); });
             };
           }});
    }
  };
  add("a lie first", Telling::by_signature,
      [](FakeRegistry const& registry, Descriptor const& at, Random&) {
        return list_of({put_lie(registry), at});
      });
  add("many lies", Telling::by_signature,
      [](FakeRegistry const& registry, Descriptor const& at, Random&) {
        std::vector<Descriptor> all(20, put_lie(registry));
        all.push_back(at);
        return list_of(std::move(all));
      });
  add("the image", Telling::by_checks, [](FakeRegistry const&, Descriptor const& at, Random&) {
    auto image = truth().image;
    image.artifact_type = at.artifact_type;
    return list_of({image, at});
  });
  add("size", Telling::by_checks, [](FakeRegistry const&, Descriptor at, Random& random) {
    at.size = random();
    return list_of({at});
  });
  add("digest", Telling::by_checks, [](FakeRegistry const&, Descriptor at, Random& random) {
    at.digest = any_digest(random);
    return list_of({at});
  });
  add("another type", Telling::by_checks, [](FakeRegistry const&, Descriptor at, Random&) {
    at.artifact_type = "application/x";
    return list_of({at});
  });
  add("no list", Telling::by_checks,
      [](FakeRegistry const&, Descriptor const&, Random&) { return to_bytes("<html>"); });
  add("a manifest", Telling::by_checks,
      [](FakeRegistry const&, Descriptor const&, Random&) { return to_bytes(truth().manifest); });
  add("nothing", Telling::by_checks,
      [](FakeRegistry const&, Descriptor const&, Random&) { return list_of({}); });
}

void add_status_lies(Lies& lies) {
  for (auto const status : {301, 400, 401, 403, 404, 429, 500, 503}) {
    for (auto const* const part :
         {"/referrers/", ".sig", "/manifests/sha256:", "/blobs/", "/v2/"}) {
      lies.push_back(
          {"status " + std::to_string(status) + ": " + part, Telling::by_checks,
           [=](Making& making, Random& random) {
             auto const from = below(random, 12);
             auto const to = below(random, 2) == 0 ? from + 1 : ~std::size_t{0};
             making.answer = answering(
                 is_about(part), [=](auto const&) { return FakeReply{status}; },
                 part == std::string("/blobs/") || part == std::string("/v2/") ? from : 0, to);
           }});
    }
  }
  lies.push_back({"no referrers API", Telling::by_checks,
                  [](Making& making, Random&) { making.has_referrers = false; }});
}

void add_signature_lies(Lies& lies) {
  auto const add = [&](char const* name, std::function<void(std::string&, Random&)> const& lie) {
    lies.push_back({std::string("signatures: ") + name, Telling::by_checks,
                    [lie](Making& making, Random& random) {
                      making.after = [&making, lie, &random](FakeRegistry const& registry,
                                                             Descriptor const& at) {
                        auto const tag = cosign::tag_of(at.digest);
                        auto text = registry.manifest("n/m", tag);
                        lie(text, random);
                        making.answer = answering(is_about(tag), [text](auto const&) {
                          return with_body(to_bytes(text));
                        });
                      };
                    }});
  };
  add("cut", [](std::string& text, Random& random) {
    if (!text.empty()) text.resize(below(random, text.size()));
  });
  add("a bit", [](std::string& text, Random& random) {
    if (!text.empty()) flip(text, random);
  });
  add("the image's manifest", [](std::string& text, Random&) { text = truth().manifest; });
  add("a list", [](std::string& text, Random&) { text = as_text(list_of({})); });
}

void add_upload_lies(Lies& lies) {
  for (auto const comes_back : {false, true}) {
    lies.push_back({comes_back ? "upload: cut once" : "upload: cut for good", Telling::by_checks,
                    [comes_back](Making& making, Random& random) {
                      auto const from = below(random, 12);
                      auto const end = below(random, 3000);
                      making.take = answering(
                          [](HttpRequest const& request) {
                            return request.method == HttpMethod::patch ||
                                   request.method == HttpMethod::put;
                          },
                          [end](auto const&) {
                            FakeReply reply;
                            reply.error = Error{Errc::unavailable,
                                                "reset after " + std::to_string(end) + " bytes"};
                            return reply;
                          },
                          from, comes_back ? from + 1 : ~std::size_t{0});
                    }});
  }
}

Lies const& all_lies() {
  static Lies const lies = [] {
    Lies out;
    for (auto const add : {add_header_lies, add_table_lies, add_tree_lies, add_packed_lies,
                           add_start_lies, add_manifest_lies, add_blob_lies, add_replacing_lies,
                           add_list_lies, add_status_lies, add_signature_lies, add_upload_lies}) {
      add(out);
    }
    return out;
  }();
  return lies;
}

/// Whether a reader can tell a lie of who has signed the artifact so.
bool can_tell(Lie const& lie, Signer signer, Reader const& reader) {
  switch (lie.telling) {
    case Telling::by_checks: return true;
    case Telling::by_signature: return !reader.takes(Signer::nobody);
    case Telling::by_proof: return !reader.takes(signer);
  }
  return false;
}

/// What a reader sees of an image when that lie is told.
Seen told(Lie const& lie, Signer signer, Reader const& reader, std::uint32_t seed) {
  Random random(seed);
  Making making;
  lie.tell(making, random);
  World const world(making.has_referrers);
  world.push(making, signer);
  *world.answer = making.answer;
  return look(world, reader);
}

std::string describe(Lie const& lie, Signer signer, Reader const& reader, std::uint32_t seed) {
  constexpr std::array names{"nobody", "the owner", "a stranger"};
  return lie.name + ", signed by " + names[static_cast<std::size_t>(signer)] +
         ", oci.index: " + reader.name + ", seed " + std::to_string(seed);
}

TEST_CASE("What is true is taken where it may be, and all of it is right", "[image][lying_index]") {
  Lie const none{"none", Telling::by_checks, [](Making&, Random&) {}};
  for (auto const signer : signers) {
    for (auto const& reader : readers) {
      INFO(describe(none, signer, reader, 0));
      auto const seen = told(none, signer, reader, 0);
      CHECK(seen.indexes == (reader.takes(signer) ? 2 : 0));
      CHECK(seen.failed == 0);
      CHECK(seen.files == right_facts());
    }
  }
}

TEST_CASE("No lie of the table is served, with each value of oci.index",
          "[image][lying_index][error]") {
  CHECK(all_lies().size() > 150);
  std::uint32_t number = 0;
  for (auto const& lie : all_lies()) {
    if (is_sanitized && (&lie - all_lies().data()) % 5 != 0) continue;
    auto const any = signers[number % signers.size()];
    for (auto const& reader : readers) {
      // Who takes nothing sees nothing of most lies: one of these readers in turn is enough.
      auto const takes_some = reader.takes(Signer::owner);
      if (!takes_some && (number + static_cast<std::size_t>(&reader - readers.data())) % 4 != 0) {
        continue;
      }
      for (auto const signer : {takes_some ? Signer::owner : any, any}) {
        ++number;
        if (!can_tell(lie, signer, reader)) continue;
        INFO(describe(lie, signer, reader, number));
        CHECK(lie_in(told(lie, signer, reader, number)).empty());
        if (signer == any) break;
      }
    }
  }
}

TEST_CASE("Of lies drawn at random, none is served", "[image][lying_index][error]") {
  auto const* const given = std::getenv("EROFS_OCI_LIES");
  auto const wanted =
      given == nullptr ? (is_sanitized ? 100UL : 1000UL) : std::strtoul(given, nullptr, 10);
  Random random(20);
  std::size_t served = 0;
  for (unsigned long drawn = 0; drawn < wanted;) {
    auto const& lie = all_lies()[below(random, all_lies().size())];
    auto const signer = signers[below(random, signers.size())];
    auto const& reader = readers[below(random, readers.size())];
    auto const seed = static_cast<std::uint32_t>(random());
    if (!can_tell(lie, signer, reader)) continue;
    ++drawn;
    auto const wrong = lie_in(told(lie, signer, reader, seed));
    if (wrong.empty()) continue;
    ++served;
    UNSCOPED_INFO(describe(lie, signer, reader, seed) << ": " << wrong);
  }
  CHECK(served == 0);
}

TEST_CASE("What only proof can tell is served to who takes the artifact, and to nobody else",
          "[image][lying_index]") {
  std::size_t tried = 0;
  for (auto const* const name :
       {"tree: mode 6755, sealed", "tree: symbolic link, sealed", "tree: owner, sealed",
        "tree: name, sealed", "window: decodes to other bytes, sealed",
        "links: another target, sealed", "checkpoints: windows that decode to other bytes"}) {
    auto const lie = std::ranges::find(all_lies(), name, &Lie::name);
    REQUIRE(lie != all_lies().end());
    REQUIRE(lie->telling == Telling::by_proof);
    for (auto const signer : signers) {
      for (auto const& reader : readers) {
        INFO(describe(*lie, signer, reader, 1));
        CHECK(lie_in(told(*lie, signer, reader, 1)).empty() == !reader.takes(signer));
        ++tried;
      }
    }
  }
  CHECK(tried == 7 * signers.size() * readers.size());
}

}  // namespace lying_index_test
}  // namespace erofs_oci
