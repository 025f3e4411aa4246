// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/fuse/fuse_tree.hpp>  // first: proves that the header stands alone

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <limits>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <catch.hpp>

#include <erofs_oci/combinator/ref.hpp>
#include <erofs_oci/core/any_source.hpp>
#include <erofs_oci/erofs/writer.hpp>
#include <erofs_oci/source/memory.hpp>

#include "../erofs/trees.hpp"
#include "fake_kernel.hpp"

namespace erofs_oci {
namespace fuse_tree_test {

using erofs::test::Oracle;
using erofs::test::Seen;
using erofs::test::SeenTree;
using test::Answer;
using test::FakeKernel;
using test::raw;

constexpr std::uint64_t root = FUSE_ROOT_ID;

/// A source that fails or waits to order, and counts what it is asked.
class Switchable {
 public:
  struct State {
    Bytes bytes;
    std::mutex mutex;
    std::optional<Error> error{};
    std::uint64_t from = 0;  // requests at this offset and behind fail
    bool shut = false;       // requests wait
    std::condition_variable opened;
    std::atomic<unsigned> reads = 0;
  };

  explicit Switchable(Bytes bytes) : state_(std::make_shared<State>()) {
    state_->bytes = std::move(bytes);
  }
  [[nodiscard]] std::uint64_t size() const noexcept { return state_->bytes.size(); }
  [[nodiscard]] Result<std::size_t> read_at(std::uint64_t offset, std::span<std::byte> out) const {
    ++state_->reads;
    {
      std::unique_lock lock(state_->mutex);
      state_->opened.wait(lock, [&] { return !state_->shut; });
      if (state_->error && offset + out.size() > state_->from) return fail(*state_->error);
    }
    auto const n = readable(size(), offset, out.size());
    std::copy_n(state_->bytes.begin() + static_cast<std::ptrdiff_t>(std::min(offset, size())), n,
                out.begin());
    return n;
  }
  void fail_with(std::optional<Error> error, std::uint64_t from = 0) const {
    std::lock_guard const lock(state_->mutex);
    state_->error = std::move(error);
    state_->from = from;
  }
  void shut(bool yes) const {
    std::lock_guard const lock(state_->mutex);
    state_->shut = yes;
    state_->opened.notify_all();
  }
  [[nodiscard]] unsigned reads() const { return state_->reads; }

 private:
  std::shared_ptr<State> state_;
};

Bytes flat(erofs::Tree const& tree, std::vector<erofs::Device> const& devices,
           std::vector<Bytes> const& data, erofs::WriteOptions const& options = {}) {
  auto bytes = erofs::Writer::make(tree, devices, options).value().to_bytes();
  for (auto const& part : data) bytes.insert(bytes.end(), part.begin(), part.end());
  return bytes;
}

/// A tree served to a kernel that is played by the test.
class Served {
 public:
  explicit Served(Bytes image, std::uint32_t flags = test::modern,
                  FuseAccess access = FuseAccess::owner)
      : source_(std::move(image)),
        tree_(erofs::Reader<AnySource>::open(AnySource(source_)).value(), options(access)),
        serving_([this](auto stop, auto ready, auto on_stop) {
          return tree_.serve(kernel.connection(), std::move(stop), ready, on_stop);
        }) {
    said = kernel.init(flags);
  }
  ~Served() {
    kernel.hang_up();
    auto const end = serving_.end();
    CHECK(end.has_value());
  }
  Served(Served const&) = delete;
  Served& operator=(Served const&) = delete;

  [[nodiscard]] std::uint64_t node(std::vector<std::string> const& path) {
    auto at = root;
    for (auto const& name : path) at = kernel.lookup(at, name).as<fuse_entry_out>().nodeid;
    return at;
  }
  [[nodiscard]] Switchable const& source() const { return source_; }
  [[nodiscard]] FuseTree<AnySource> const& tree() const { return tree_; }
  [[nodiscard]] std::vector<std::string> failures() {
    std::lock_guard const lock(mutex_);
    return failures_;
  }

  FakeKernel kernel;
  fuse_init_out said{};

 private:
  FuseServeOptions options(FuseAccess access) {
    FuseServeOptions options;
    options.mount.access = access;
    options.threads = 3;
    options.on_failure = [this](FuseFailure const& failure) {
      std::lock_guard const lock(mutex_);
      failures_.push_back(std::string(failure.operation) + " nid " + std::to_string(failure.nid) +
                          " name " + std::string(failure.name) + " offset " +
                          std::to_string(failure.offset) + " length " +
                          std::to_string(failure.length) + ": " + failure.error.message());
    };
    return options;
  }

  std::mutex mutex_;
  std::vector<std::string> failures_;
  Switchable source_;
  FuseTree<AnySource> tree_;
  test::Serving serving_;
};

/// Everything that a kernel can ask about a tree.
class Walk {
 public:
  Walk(FakeKernel& kernel, erofs::Tree const& tree, std::uint32_t room)
      : kernel_(kernel), tree_(tree), room_(room) {}

  SeenTree all() {
    fuse_getattr_in in{};
    add(root, kernel_.ask(FUSE_GETATTR, root, raw(in)).as<fuse_attr_out>().attr, "",
        erofs::root_id);
    return std::move(all_);
  }

 private:
  void add(std::uint64_t node, fuse_attr const& attr, std::string const& path, erofs::NodeId id) {
    first_.emplace(attr.ino, path);
    Seen s;
    s.mode = attr.mode;
    s.uid = attr.uid;
    s.gid = attr.gid;
    s.seconds = static_cast<std::int64_t>(attr.mtime);
    s.nanoseconds = attr.mtimensec;
    s.links = attr.nlink;
    s.size = S_ISDIR(attr.mode) ? 0 : attr.size;
    if (S_ISCHR(attr.mode) || S_ISBLK(attr.mode)) {
      s.major = (attr.rdev >> 8) & 0xfffU;
      s.minor = (attr.rdev & 0xffU) | ((attr.rdev >> 12) & 0xfff00U);
    }
    s.first_name = first_[attr.ino];
    s.xattrs = xattrs(node);
    if (S_ISLNK(attr.mode)) s.target = as_text(kernel_.ask(FUSE_READLINK, node).body);
    if (S_ISREG(attr.mode)) {
      for (auto const& [offset, length] : erofs::test::probes(*tree_[id].regular())) {
        s.content += as_text(kernel_.read(node, offset, static_cast<std::uint32_t>(length)).body);
      }
    }
    all_[path] = std::move(s);
    if (S_ISDIR(attr.mode)) list(node, attr.ino, path, id);
  }

  void list(std::uint64_t node, std::uint64_t inode, std::string const& path, erofs::NodeId id) {
    std::vector<test::Name> names;
    for (std::uint64_t at = 0;;) {
      auto const answer = kernel_.read(node, at, room_, FUSE_READDIRPLUS);
      REQUIRE(answer.error == 0);
      auto const part = test::names_of(answer.body, true);
      if (part.empty()) break;
      at = part.back().next;
      names.insert(names.end(), part.begin(), part.end());
    }
    std::set<std::string> seen;
    for (auto const& name : names) {
      CHECK(seen.insert(name.text).second);
      if (name.text == "." || name.text == "..") {
        CHECK(name.entry.nodeid == 0);
        CHECK(name.type == S_IFDIR >> 12);
        if (name.text == ".") CHECK(name.inode == inode);
        continue;
      }
      auto const* const child = tree_.find(id, name.text);
      REQUIRE(child != nullptr);
      CHECK(name.type == erofs::test::st_type(tree_[*child].kind) >> 12);
      auto const found = kernel_.lookup(node, name.text).as<fuse_entry_out>();
      CHECK(raw(found) == raw(name.entry));  // both ways to an entry say the same
      CHECK(found.attr.ino == name.inode);
      add(found.nodeid, found.attr, path + "/" + name.text, *child);
    }
    CHECK(seen.contains("."));
    CHECK(seen.contains(".."));
  }

  std::map<std::string, std::string> xattrs(std::uint64_t node) {
    fuse_getxattr_in in{};
    auto const size = kernel_.ask(FUSE_LISTXATTR, node, raw(in)).as<fuse_getxattr_out>().size;
    in.size = size;
    auto const list = size == 0 ? Bytes() : kernel_.ask(FUSE_LISTXATTR, node, raw(in)).body;
    auto text = std::string(as_text(list));
    std::map<std::string, std::string> all;
    while (!text.empty()) {
      auto const name = text.substr(0, text.find('\0'));
      text.erase(0, name.size() + 1);
      all[name] = as_text(kernel_.getxattr(node, name, 65536).body);
    }
    return all;
  }

  FakeKernel& kernel_;
  erofs::Tree const& tree_;
  std::uint32_t room_;
  SeenTree all_;
  std::map<std::uint64_t, std::string> first_;
};

TEST_CASE("A request for more than any kernel asks for costs no memory", "[fuse][tree][error]") {
  Served served(flat(erofs::Tree(), {}, {}));
  constexpr auto most = std::numeric_limits<std::uint32_t>::max();
  CHECK(served.kernel.read(root, 0, most, FUSE_READDIR).error == ENOMEM);
  CHECK(served.kernel.read(root, 0, 4096, FUSE_READDIR).error == 0);
}

TEST_CASE("FuseTree shows what the image was made from", "[fuse][tree]") {
  auto const seed = GENERATE(1u, 2u, 3u);
  auto const room = GENERATE(512u, 65536u);
  INFO("seed " << seed << ", " << room << " bytes of directory at once");
  auto const made = erofs::test::TreeMaker(seed, seed * 60).make();
  auto const marks = seed % 2 == 0 ? erofs::Marks::user : erofs::Marks::trusted;
  erofs::WriteOptions options{.marks = marks, .implied = erofs::Implied::keep};
  auto const expected = Oracle(made.tree, made.bytes, marks).all();
  Served served(flat(made.tree, made.devices, made.bytes, options));

  auto const found = Walk(served.kernel, made.tree, room).all();

  CHECK(found.size() == expected.size());
  for (auto const& [path, seen] : expected) {
    INFO("path " << hex(as_bytes(path)));
    REQUIRE(found.contains(path));
    CHECK(found.at(path) == seen);
  }
  CHECK(served.failures().empty());
}

/// A directory of many names, a file with a hole, a link, xattrs.
struct Small {
  erofs::Tree tree;
  std::vector<Bytes> data{Bytes(2048)};

  Small() {
    for (std::size_t i = 0; i < data[0].size(); ++i) data[0][i] = static_cast<std::byte>(i % 251);
    auto file = erofs::make_node(erofs::Kind::regular);
    file.regular()->size = 512 * 6 + 100;
    file.regular()->extents = {{512, 1024, 1, 0}};
    file.xattrs = {{"user.a", to_bytes("one")}, {"trusted.b", to_bytes("two")}};
    auto const id = tree.add(erofs::root_id, "file", std::move(file));
    tree.link(erofs::root_id, "same", id);
    auto const many = tree.add(erofs::root_id, "many", erofs::make_node(erofs::Kind::directory));
    for (int i = 0; i < 300; ++i) {
      tree.add(many, "name-" + std::to_string(i), erofs::make_node(erofs::Kind::fifo));
    }
    auto link = erofs::make_node(erofs::Kind::symlink);
    link.content = erofs::Symlink{"file"};
    tree.add(erofs::root_id, "link", std::move(link));
  }

  [[nodiscard]] Bytes image() const { return flat(tree, {{4, "data"}}, data); }
};

TEST_CASE("FuseTree's offsets of a directory mean the same for ever", "[fuse][tree]") {
  Small const small;
  Served served(small.image());
  auto const many = served.node({"many"});
  auto const plus = GENERATE(false, true);
  auto const opcode = plus ? FUSE_READDIRPLUS : FUSE_READDIR;
  auto const list = [&](std::uint64_t from, std::uint32_t room) {
    return test::names_of(served.kernel.read(many, from, room, opcode).body, plus);
  };

  auto const all = list(0, 1 << 20);

  REQUIRE(all.size() == 302);
  for (std::size_t i = 0; i + 1 < all.size(); i += 7) {
    auto const rest = list(all[i].next, 1 << 20);
    CHECK(rest == std::vector(all.begin() + static_cast<std::ptrdiff_t>(i) + 1, all.end()));
  }
  CHECK(list(all.back().next, 4096).empty());
  CHECK(list(std::uint64_t{1} << 40, 4096).empty());
  CHECK(list(0, 8).empty());  // no room for one name
}

TEST_CASE("FuseTree says once that a name does not exist", "[fuse][tree]") {
  Served served(Small().image());

  auto const answer = served.kernel.lookup(root, "nothing");

  CHECK(answer.error == 0);
  CHECK(answer.as<fuse_entry_out>().nodeid == 0);
  CHECK(answer.as<fuse_entry_out>().entry_valid > 100'000'000);
  CHECK(served.kernel.lookup(root, std::string(256, 'x')).error == ENAMETOOLONG);
  CHECK(served.kernel.lookup(served.node({"file"}), "x").error == ENOTDIR);
}

TEST_CASE("FuseTree's nodes are computed from nids", "[fuse][tree]") {
  Served served(Small().image());
  auto const& reader = served.tree().reader();
  auto& kernel = served.kernel;

  auto const file = kernel.lookup(root, "file").as<fuse_entry_out>();
  auto const same = kernel.lookup(root, "same").as<fuse_entry_out>();

  CHECK(file.nodeid == file.attr.ino + 2);
  CHECK(raw(file) == raw(same));
  CHECK(file.attr.nlink == 2);
  CHECK(file.attr_valid > 100'000'000);
  CHECK(reader.inode(file.attr.ino).value().is_regular());
  CHECK(served.tree().path_of(file.attr.ino) == "/file");
  CHECK(served.tree().path_of(3).empty());
  // As a server of NFS asks: a node by itself, and a directory's parent.
  CHECK(kernel.lookup(file.nodeid, ".").as<fuse_entry_out>().nodeid == file.nodeid);
  CHECK(kernel.lookup(served.node({"many"}), "..").as<fuse_entry_out>().nodeid == root);
}

TEST_CASE("FuseTree reads data, holes and ends", "[fuse][tree]") {
  Small const small;
  Served served(small.image());
  auto& kernel = served.kernel;
  auto const file = served.node({"file"});
  Bytes expected(512 * 6 + 100);
  std::copy_n(small.data[0].begin(), 1024, expected.begin() + 512);

  CHECK(kernel.read(file, 0, 4096).body == expected);
  CHECK(kernel.read(file, 600, 1000).body ==
        Bytes(expected.begin() + 600, expected.begin() + 1600));
  CHECK(kernel.read(file, 3000, 4096).body == Bytes(expected.begin() + 3000, expected.end()));
  CHECK(kernel.read(file, 4096, 4096).body.empty());
  CHECK(kernel.read(file, std::uint64_t{1} << 62, 4096).body.empty());
}

TEST_CASE("FuseTree finds data and holes", "[fuse][tree]") {
  Served served(Small().image());
  auto const file = served.node({"file"});
  auto const seek = [&](std::uint64_t offset, int whence) {
    fuse_lseek_in in{};
    in.offset = offset;
    in.whence = static_cast<std::uint32_t>(whence);
    return served.kernel.ask(FUSE_LSEEK, file, raw(in));
  };

  CHECK(seek(0, SEEK_DATA).as<fuse_lseek_out>().offset == 512);
  CHECK(seek(0, SEEK_HOLE).as<fuse_lseek_out>().offset == 0);
  CHECK(seek(700, SEEK_DATA).as<fuse_lseek_out>().offset == 700);
  CHECK(seek(700, SEEK_HOLE).as<fuse_lseek_out>().offset == 1536);
  CHECK(seek(1536, SEEK_DATA).error == ENXIO);
  CHECK(seek(512 * 6 + 100, SEEK_HOLE).error == ENXIO);
  CHECK(seek(0, 7).error == EINVAL);
}

TEST_CASE("FuseTree gives xattrs as the kernel's file systems do", "[fuse][tree]") {
  Served served(Small().image());
  auto& kernel = served.kernel;
  auto const file = served.node({"file"});
  fuse_getxattr_in in{};
  in.size = 100;

  CHECK(kernel.getxattr(file, "user.a", 100).body == to_bytes("one"));
  CHECK(kernel.getxattr(file, "user.a", 0).as<fuse_getxattr_out>().size == 3);
  CHECK(kernel.getxattr(file, "user.a", 2).error == ERANGE);
  CHECK(kernel.getxattr(file, "user.none", 100).error == ENODATA);
  CHECK(kernel.getxattr(root, "user.a", 100).error == ENODATA);
  using namespace std::string_literals;
  auto const both = std::string(as_text(kernel.ask(FUSE_LISTXATTR, file, raw(in)).body));
  CHECK((both == "user.a\0trusted.b\0"s || both == "trusted.b\0user.a\0"s));
  kernel.caller = 1000;
  CHECK(as_text(kernel.ask(FUSE_LISTXATTR, file, raw(in)).body) == "user.a\0"s);
}

TEST_CASE("FuseTree has true numbers for statfs", "[fuse][tree]") {
  auto const image = Small().image();
  Served served(image);

  auto const all = served.kernel.ask(FUSE_STATFS, root).as<fuse_statfs_out>().st;

  CHECK(all.bsize == 512);
  CHECK(all.blocks == image.size() / 512);
  CHECK(all.files == 304);  // the root, file, many, its 300, link
  CHECK(all.bfree == 0);
  CHECK(all.ffree == 0);
  CHECK(all.namelen == 255);
}

TEST_CASE("FuseTree has the kernel open files by itself where it can", "[fuse][tree]") {
  Small const small;
  fuse_open_in in{};
  SECTION("a kernel that can") {
    Served served(small.image());
    CHECK(served.kernel.ask(FUSE_OPEN, served.node({"file"}), raw(in)).error == ENOSYS);
    CHECK(served.kernel.ask(FUSE_OPENDIR, root, raw(in)).error == ENOSYS);
    CHECK((served.said.flags & FUSE_CACHE_SYMLINKS) != 0);
    CHECK((served.said.flags & FUSE_AUTO_INVAL_DATA) == 0);
    CHECK((served.said.flags & FUSE_POSIX_ACL) == 0);
    CHECK(served.said.max_pages >= 256);
  }
  SECTION("one that cannot keeps its cache") {
    Served served(small.image(), test::ancient);
    auto const file = served.kernel.ask(FUSE_OPEN, served.node({"file"}), raw(in));
    CHECK((file.as<fuse_open_out>().open_flags & FOPEN_KEEP_CACHE) != 0);
    auto const directory = served.kernel.ask(FUSE_OPENDIR, root, raw(in));
    CHECK((directory.as<fuse_open_out>().open_flags & FOPEN_CACHE_DIR) != 0);
  }
  SECTION("for everyone, ACLs count") {
    Served served(small.image(), test::modern, FuseAccess::everyone);
    CHECK((served.said.flags & FUSE_POSIX_ACL) != 0);
  }
}

TEST_CASE("FuseTree's readers get an error when the source fails, and data when it recovers",
          "[fuse][tree][error]") {
  auto const [code, number] = GENERATE(table<Errc, int>({{Errc::unavailable, EIO},
                                                         {Errc::corrupt, EIO},
                                                         {Errc::digest_mismatch, EIO},
                                                         {Errc::truncated, EIO},
                                                         {Errc::unauthorized, EIO},
                                                         {Errc::timed_out, ETIMEDOUT},
                                                         {Errc::unsupported, EOPNOTSUPP},
                                                         {Errc::stopping, ESHUTDOWN}}));
  Small const small;
  auto const image = small.image();
  Served served(image);
  auto const entry = served.kernel.lookup(root, "file").as<fuse_entry_out>();

  served.source().fail_with(Error{make_error_code(code), "the peer is gone", {}},
                            image.size() - 2048);
  CHECK(served.kernel.read(entry.nodeid, 512, 1024).error == number);
  CHECK(served.kernel.read(entry.nodeid, 0, 512).error == 0);  // a hole needs no source
  served.source().fail_with({});
  CHECK(served.kernel.read(entry.nodeid, 512, 1024).error == 0);

  auto const failures = served.failures();
  REQUIRE(failures.size() == 1);
  CHECK_THAT(failures[0], Catch::StartsWith("read nid " + std::to_string(entry.attr.ino)));
  CHECK_THAT(failures[0], Catch::Contains("offset 512 length 1024"));
  CHECK_THAT(failures[0], Catch::Contains("the peer is gone"));
}

TEST_CASE("FuseTree answers every operation when all reads fail", "[fuse][tree][error]") {
  Small const small;
  Served served(small.image());
  auto& kernel = served.kernel;
  auto const file = served.node({"file"});
  served.source().fail_with(Error{make_error_code(Errc::unavailable), "gone", {}});
  fuse_getattr_in attributes{};
  fuse_lseek_in place{};
  place.whence = SEEK_DATA;

  CHECK(kernel.lookup(root, "file").error == EIO);
  CHECK(kernel.ask(FUSE_GETATTR, file, raw(attributes)).error == EIO);
  CHECK(kernel.read(file, 0, 4096).error == EIO);
  CHECK(kernel.read(root, 0, 4096, FUSE_READDIR).error == EIO);
  CHECK(kernel.read(root, 0, 4096, FUSE_READDIRPLUS).error == EIO);
  CHECK(kernel.ask(FUSE_READLINK, file).error == EIO);
  CHECK(kernel.getxattr(file, "user.a", 100).error == EIO);
  CHECK(kernel.ask(FUSE_LSEEK, file, raw(place)).error == EIO);
  CHECK(kernel.ask(FUSE_STATFS, root).error == 0);  // known from the beginning
  CHECK(served.failures().size() == 8);
}

TEST_CASE("FuseTree refuses nodes that no image has", "[fuse][tree][error]") {
  Served served(Small().image());
  auto const node = GENERATE(std::uint64_t{0}, std::uint64_t{2}, std::uint64_t{3},
                             std::uint64_t{1} << 32, ~std::uint64_t{0});
  fuse_getattr_in in{};

  CHECK(served.kernel.ask(FUSE_GETATTR, node, raw(in)).error != 0);
  CHECK(served.kernel.ask(FUSE_READLINK, node).error != 0);
  CHECK(served.kernel.read(root, 0, 4096).error != 0);  // a directory is not read as a file
}

TEST_CASE("FuseTree lists the good names of a directory with a bad inode", "[fuse][tree][error]") {
  Small const small;
  auto image = small.image();
  auto const nid = [&] {
    Served const served(image);
    auto const& reader = served.tree().reader();
    return reader.lookup(reader.root().value(), "link").value().value().first;
  }();
  image[nid * 32] = std::byte{0xFF};  // its format: reserved bits
  Served served(image);

  auto const names =
      test::names_of(served.kernel.read(root, 0, 65536, FUSE_READDIRPLUS).body, true);

  std::map<std::string, std::uint64_t> nodes;
  for (auto const& name : names) nodes[name.text] = name.entry.nodeid;
  CHECK(nodes.size() == 6);
  CHECK(nodes["file"] != 0);
  CHECK(nodes.at("link") == 0);
  CHECK(served.kernel.lookup(root, "link").error != 0);
}

TEST_CASE("FuseTree answers many requests at once", "[fuse][tree]") {
  Small const small;
  Served served(small.image());
  auto const file = served.node({"file"});
  fuse_read_in in{};
  in.size = 4096;
  std::set<std::uint64_t> waiting;
  for (int i = 0; i < 200; ++i) waiting.insert(served.kernel.send(FUSE_READ, file, raw(in)));

  for (int i = 0; i < 200; ++i) {
    auto const answer = served.kernel.receive();
    CHECK(waiting.erase(answer.unique) == 1);
    CHECK(answer.body.size() == 3172);
  }

  CHECK(waiting.empty());
}

/// What a stopped server leaves: the kernel's first request, and the node of "file".
std::pair<Bytes, std::uint64_t> stopped_server(FakeKernel& kernel, FuseTree<AnySource>& tree) {
  test::Serving serving([&](auto stop, auto ready, auto on_stop) {
    return tree.serve(kernel.connection(), std::move(stop), ready, on_stop);
  });
  kernel.init();
  auto const file = kernel.lookup(root, "file").as<fuse_entry_out>().nodeid;
  serving.wait_until_ready();  // which the kernel's requests do not wait for
  auto const end = serving.end(true);
  REQUIRE(end.has_value());
  CHECK(*end == FuseEnd::stopped);
  CHECK(serving.stops() == 1);
  REQUIRE(!serving.opening().empty());
  return {serving.opening(), file};
}

/// Writes a read into a slot, as the kernel does; yields its number.
std::uint64_t leave_read(FakeKernel& kernel, FuseInflight const& inflight, std::size_t slot,
                         std::uint64_t file) {
  fuse_read_in in{};
  in.size = 100;
  auto const request = kernel.request(FUSE_READ, file, raw(in));
  std::memcpy(inflight.slot(slot).data(), request.data(), request.size());
  fuse_in_header header{};
  std::memcpy(&header, request.data(), sizeof header);
  return header.unique;
}

TEST_CASE("Another FuseTree goes on where one stopped", "[fuse][tree][takeover]") {
  Small const small;
  auto const image = small.image();
  FakeKernel kernel;
  auto const open = [&] {
    return erofs::Reader<AnySource>::open(AnySource(Memory(image))).value();
  };
  FuseTree<AnySource> first(open());
  FuseTree<AnySource> second(open());
  auto const [opening, file] = stopped_server(kernel, first);
  fuse_read_in in{};
  in.size = 100;
  auto const early = kernel.send(FUSE_READ, file, raw(in));  // while nobody serves

  test::Serving serving([&](auto stop, auto ready, auto on_stop) {
    return second.serve(kernel.connection(opening), std::move(stop), ready, on_stop);
  });

  // What a kernel drops: an answer to its first request, which it has had.
  auto const dropped = kernel.receive();
  CHECK(dropped.unique == 2);
  auto const late = kernel.receive();
  CHECK(late.unique == early);
  CHECK(late.body.size() == 100);
  CHECK(kernel.ask(FUSE_OPEN, file, raw(fuse_open_in{})).error == ENOSYS);
  kernel.hang_up();
  CHECK(serving.end().value() == FuseEnd::unmounted);
}

TEST_CASE("What a killed server has taken and not answered, the next one answers",
          "[fuse][tree][takeover]") {
  Small const small;
  auto const image = small.image();
  auto const slots = GENERATE(1u, 5u, 64u);
  auto const threads = GENERATE(std::size_t{1}, std::size_t{3}, std::size_t{100});
  INFO(slots << " slots, " << threads << " threads");
  FakeKernel kernel;
  FuseServeOptions options;
  options.threads = threads;
  FuseTree<AnySource> tree(erofs::Reader<AnySource>::open(AnySource(Memory(image))).value(),
                           options);
  auto const [opening, file] = stopped_server(kernel, tree);
  // As the kernel writes requests, in every slot but one.
  auto const inflight = FuseInflight::make(slots).value();
  std::set<std::uint64_t> wanted;
  for (unsigned i = 0; i < slots; ++i) {
    if (i == 2) continue;
    wanted.insert(leave_read(kernel, inflight, i, file));
  }

  test::Serving serving([&](auto stop, auto ready, auto on_stop) {
    return tree.serve(kernel.connection(opening, inflight.share().value()), std::move(stop), ready,
                      on_stop);
  });

  CHECK(kernel.receive().unique == 2);
  std::set<std::uint64_t> answered;
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    auto const answer = kernel.receive();
    CHECK(answer.body.size() == 100);
    answered.insert(answer.unique);
  }
  CHECK(answered == wanted);
  CHECK(kernel.ask(FUSE_OPEN, file, raw(fuse_open_in{})).error == ENOSYS);
  kernel.hang_up();
  CHECK(serving.end().value() == FuseEnd::unmounted);
  for (unsigned i = 0; i < slots; ++i) CHECK(inflight.request(i).empty());
}

TEST_CASE("What has crashed several servers is refused, and the rest answered",
          "[fuse][tree][takeover]") {
  Small const small;
  FakeKernel kernel;
  FuseTree<AnySource> tree(
      erofs::Reader<AnySource>::open(AnySource(Memory(small.image()))).value());
  auto const [opening, file] = stopped_server(kernel, tree);
  auto const inflight = FuseInflight::make(8).value();
  std::map<std::uint64_t, int> wanted;  // by number: the error
  for (unsigned i = 0; i < 4; ++i) {
    auto const unique = leave_read(kernel, inflight, i, file);
    inflight.note_crash();
    inflight.note_crash();  // 8, 6, 4 and 2 in the end
    wanted[unique] = i <= 1 ? EIO : 0;
  }
  std::size_t refused = 0;

  test::Serving serving([&](auto stop, auto ready, auto on_stop) {
    auto const note = [&](FuseSession& session) {
      refused = session.refused();
      ready(session);
    };
    return tree.serve(kernel.connection(opening, inflight.share().value()), std::move(stop), note,
                      on_stop);
  });

  CHECK(kernel.receive().unique == 2);
  std::map<std::uint64_t, int> answered;
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    auto const answer = kernel.receive();
    answered[answer.unique] = answer.error;
  }
  CHECK(answered == wanted);
  kernel.hang_up();
  CHECK(serving.end().value() == FuseEnd::unmounted);
  CHECK(refused == 2);
}

TEST_CASE("A server reports that it is busy, and when no request has ended for too long",
          "[fuse][tree]") {
  Small const small;
  FakeKernel kernel;
  std::mutex mutex;
  std::condition_variable changed;
  bool stalled = false;
  FuseServeOptions options;
  options.on_tick = [&](Activity<> const& requests, bool) {
    std::lock_guard const lock(mutex);
    stalled = requests.under_way() == 1 && requests.stalled() >= std::chrono::milliseconds(50);
    changed.notify_all();
  };
  Switchable const source(small.image());
  FuseTree<AnySource> tree(erofs::Reader<AnySource>::open(AnySource(source)).value(), options);
  test::Serving serving([&](auto stop, auto ready, auto on_stop) {
    return tree.serve(kernel.connection(), std::move(stop), ready, on_stop);
  });
  kernel.init();
  auto const file = kernel.lookup(root, "file").as<fuse_entry_out>().nodeid;
  source.shut(true);
  fuse_read_in in{};
  in.size = 100;
  auto const asked = kernel.send(FUSE_READ, file, raw(in));
  {
    std::unique_lock lock(mutex);
    CHECK(changed.wait_for(lock, std::chrono::seconds(20), [&] { return stalled; }));
  }
  source.shut(false);
  CHECK(kernel.receive().unique == asked);
  {
    std::unique_lock lock(mutex);
    CHECK(changed.wait_for(lock, std::chrono::seconds(20), [&] { return !stalled; }));
  }
  kernel.hang_up();
  CHECK(serving.end().value() == FuseEnd::unmounted);
}

}  // namespace fuse_tree_test
}  // namespace erofs_oci
