// SPDX-License-Identifier: Apache-2.0
#include "options.hpp"  // first: proves that the header stands alone

#include <cstring>

#include <sys/mount.h>

#include <catch.hpp>
#include <rapidcheck/catch.h>

namespace mount_oci {
namespace options_test {

using Arguments = std::vector<std::string>;

constexpr auto digits = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// `mount-oci WORDS...`
tl::expected<Options, UsageError> parse(Arguments words) {
  words.insert(words.begin(), "mount-oci");
  return parse_options(words);
}

/// What a mount with this -o list would be.
Options parse_list(std::string const& list) {
  auto options = parse({"-o", list, "image", "/mnt"});
  if (!options) FAIL(options.error().text);
  return *std::move(options);
}

std::string error_of(Arguments words) {
  auto const options = parse(std::move(words));
  return options ? "no error" : options.error().text;
}

TEST_CASE("The seed's command line means what it meant", "[tool][options]") {
  auto const list = std::string("oci.blob=sha256:") + digits +
                    ",oci.platform=linux/amd64,oci.tarindex=/t/l.erofs,oci.zinfo=/t/l.zinfo";

  auto const options =
      parse({"-t", "erofs.nbd", "-o", list, "docker.io/library/debian:12", "/mnt"});

  REQUIRE(options.has_value());
  CHECK(options->command == Command::mount);
  CHECK(options->image.image == "docker.io/library/debian:12");
  CHECK(options->image.blob == std::string("sha256:") + digits);
  CHECK(options->image.platform == "linux/amd64");
  CHECK(options->image.tarindex == "/t/l.erofs");
  CHECK(options->image.zinfo == "/t/l.zinfo");
  CHECK(options->mount.target == "/mnt");
  CHECK(options->mount.flags == (MS_RDONLY | MS_NOSUID | MS_NODEV));
  CHECK(options->mount.data.empty());
  CHECK(options->mount.attach == Attach::nbd);
  CHECK(options->verbosity == 2);
}

TEST_CASE("The type and --attach say which ways are open", "[tool][options]") {
  using Row = std::tuple<Arguments, Attach>;
  auto const [words, attach] = GENERATE(
      Row(Arguments{}, Attach::automatic), Row(Arguments{"-t", "erofs"}, Attach::automatic),
      Row(Arguments{"-t", "erofs.fuse"}, Attach::fuse),
      Row(Arguments{"-t", "erofs", "--attach", "ioctl"}, Attach::ioctl),
      Row(Arguments{"-t", "erofs.nbd", "--attach", "netlink"}, Attach::netlink),
      Row(Arguments{"-t", "erofs.fuse", "--attach", "fuse-file"}, Attach::fuse_file),
      Row(Arguments{"--attach", "fuse-tree"}, Attach::fuse_tree));
  auto all = words;
  all.insert(all.end(), {"image", "/mnt"});

  auto const options = parse(all);

  REQUIRE(options.has_value());
  CHECK(options->mount.attach == attach);
}

TEST_CASE("--writable takes its directory behind an equals sign only", "[tool][options]") {
  auto const plain = parse({"--writable", "image", "/mnt"});
  REQUIRE(plain.has_value());
  CHECK(plain->mount.writable);
  CHECK(plain->mount.writable_directory.empty());
  CHECK(plain->image.image == "image");

  auto const named = parse({"img", "--writable=/upper", "/mnt"});
  REQUIRE(named.has_value());
  CHECK(named->mount.writable);
  CHECK(named->mount.writable_directory == "/upper");
}

TEST_CASE("oci.writable says what --writable says, for fstab(5)", "[tool][options]") {
  auto const plain = parse({"-o", "oci.writable,noatime", "image", "/mnt"});
  REQUIRE(plain.has_value());
  CHECK(plain->mount.writable);
  CHECK(plain->mount.writable_directory.empty());

  auto const named = parse({"-o", "oci.writable=/upper", "image", "/mnt"});
  REQUIRE(named.has_value());
  CHECK(named->mount.writable);
  CHECK(named->mount.writable_directory == "/upper");

  CHECK(error_of({"-o", "oci.writable=", "i", "/m"}) == "-o oci.writable: a value is needed");
  CHECK(error_of({"ls", "-o", "oci.writable", "i"}) ==
        "-o oci.writable: this command does not mount anything");
  CHECK(error_of({"-o", "oci.writable", "-N", "1", "i", "/m"}) ==
        "--writable and --namespace cannot be set together");
}

TEST_CASE("The last of ro and rw is what was asked for", "[tool][options]") {
  CHECK_FALSE(parse({"image", "/mnt"})->mount.asks_rw);
  CHECK(parse({"-o", "ro,rw", "image", "/mnt"})->mount.asks_rw);
  CHECK_FALSE(parse({"-o", "rw,ro", "image", "/mnt"})->mount.asks_rw);
}

TEST_CASE("mount(8) can call it as its helper", "[tool][options]") {
  auto const program = GENERATE("mount.erofs.nbd", "/sbin/mount.erofs.nbd", "/sbin/mount.erofs");

  auto const options = parse_options({program, "serve", "/mnt", "-s", "-f", "-n", "-v", "-N",
                                      "1234", "-o", "rw,oci.layer=1", "-t", "erofs.nbd"});

  REQUIRE(options.has_value());
  CHECK(options->command == Command::mount);
  CHECK(options->image.image == "serve");  // a source, whatever it is called
  CHECK(options->image.layer == 1u);
  CHECK(options->mount.fake);
  CHECK(options->mount.name_space == "1234");
  CHECK(options->mount.flags == (MS_RDONLY | MS_NOSUID | MS_NODEV));
  CHECK(options->helper);
  CHECK(options->verbosity == 3);
}

TEST_CASE("Each command reads its own arguments", "[tool][options]") {
  SECTION("umount") {
    auto const words = GENERATE(Arguments{"umount", "/mnt"}, Arguments{"-u", "/mnt"},
                                Arguments{"mount", "-u", "/mnt"}, Arguments{"/mnt", "-u"});
    auto const options = parse(words);
    REQUIRE(options.has_value());
    CHECK(options->command == Command::umount);
    CHECK(options->umount.target == "/mnt");
    CHECK_FALSE(options->umount.disconnect);
  }
  SECTION("reattach") {
    auto const list = "oci.insecure,oci.username=me,oci.password_file=/p";
    auto const words = GENERATE_COPY(Arguments{"--reattach", "/dev/nbd3", "-o", list},
                                     Arguments{"reattach", "/dev/nbd3", "-o", list});
    auto const options = parse(words);
    REQUIRE(options.has_value());
    CHECK(options->command == Command::reattach);
    CHECK(options->record.target == "/dev/nbd3");
    CHECK(options->image.insecure);
    CHECK(options->image.username == "me");
  }
  SECTION("disconnect") {
    auto const words =
        GENERATE(Arguments{"--disconnect", "/dev/nbd3"}, Arguments{"disconnect", "/dev/nbd3"});
    auto const options = parse(words);
    REQUIRE(options.has_value());
    CHECK(options->command == Command::disconnect);
    CHECK(options->umount.target == "/dev/nbd3");
    CHECK(options->umount.disconnect);
  }
  SECTION("serve") {
    auto const options =
        parse({"serve", "-o", "oci.layer=0", "--socket", "/run/s", "-o", "ro", "oci:dir:tag"});
    REQUIRE(options.has_value());
    CHECK(options->command == Command::serve);
    CHECK(options->serve.socket == "/run/s");
    CHECK(options->image.image == "oci:dir:tag");
    CHECK(options->image.layer == 0u);
  }
  SECTION("the commands that read an image") {
    auto const [word, command] =
        GENERATE(table<char const*, Command>({{"index", Command::index},
                                              {"ls", Command::ls},
                                              {"cat", Command::cat},
                                              {"stat", Command::stat},
                                              {"find", Command::find},
                                              {"tree", Command::tree},
                                              {"du", Command::du},
                                              {"diff", Command::diff},
                                              {"cp", Command::cp},
                                              {"extract", Command::extract},
                                              {"fsck", Command::fsck},
                                              {"image", Command::image},
                                              {"doctor", Command::doctor}}));
    auto words = Arguments{word, "-o",     "oci.store=/s,oci.layer=1,oci.index=bound",
                           "-v", "--json", "reg/name:tag"};
    if (command == Command::cat) words.emplace_back("/etc/passwd");
    if (command == Command::diff) words.emplace_back("reg/name:tag2");
    if (command == Command::cp) {
      words.back() += ":/etc/passwd";
      words.emplace_back("there");
    }
    if (command == Command::extract) words.insert(words.end(), {"-C", "dir"});
    auto const options = parse(words);
    REQUIRE(options.has_value());
    CHECK(options->command == command);
    CHECK(options->image.image == "reg/name:tag");
    CHECK(options->image.store == "/s");
    CHECK(options->image.index == IndexUse::bound);
    CHECK(options->image.layer == 1u);
    CHECK(options->read.json);
    CHECK(options->verbosity == 3);
    CHECK(parse({word, "--help"})->topic == command);
    words.erase(words.begin(), words.begin() + 4);  // up to --json
    words.insert(words.begin(), {word, "-o", "dax"});
    CHECK(error_of(words) == "-o dax: this command does not mount anything");
    words.insert(words.begin() + 1, "--wrong");
    CHECK(error_of(words) == "unexpected argument: --wrong");
  }
  SECTION("help and version") {
    CHECK(parse({"--help"})->command == Command::help);
    CHECK(parse({"--help"})->topic == Command::help);
    CHECK(parse({"serve", "-h"})->topic == Command::serve);
    CHECK(parse({"umount", "--help"})->command == Command::help);
    CHECK(parse({"-V"})->command == Command::version);
    CHECK(parse({"--version"})->command == Command::version);
  }
}

TEST_CASE("Commands that read an image have options of their own", "[tool][options]") {
  auto const read = [](Arguments const& words) { return parse(words)->read; };
  CHECK(read({"ls", "-lR", "i", "/a", "/b"}).long_form);
  CHECK(read({"ls", "-lR", "i", "/a", "/b"}).recursive);
  CHECK(read({"ls", "i", "/a", "/b"}).paths == Arguments{"/a", "/b"});
  CHECK(read({"ls", "-lahRt", "i"}).human);
  CHECK(read({"ls", "-lahRt", "i"}).by_time);
  CHECK(parse({"ls", "--help"})->topic == Command::ls);
  CHECK(read({"find", "-name", "*.so", "-type", "f", "i"}).tests.name == "*.so");
  CHECK(read({"find", "i", "/lib", "-type", "f"}).tests.type == 'f');
  auto const found = read({"find", "-perm", "-4000", "-size", "-10k", "-uid", "+0", "-maxdepth",
                           "2", "-newer", "/etc/passwd", "i", "/usr", "-print0"});
  CHECK(found.tests.mode->matches(04755));
  CHECK(found.tests.size->matches(9 * 1024));
  CHECK_FALSE(found.tests.uid->matches(0));
  CHECK(found.tests.newer == "/etc/passwd");
  CHECK(found.max_depth == 2);
  CHECK(found.paths == std::vector<std::string>{"/usr"});
  CHECK(found.print0);
  CHECK(read({"find", "i", "-print0"}).print0);
  CHECK(read({"tree", "-L", "2", "-dsha", "i", "/usr"}).max_depth == 2);
  CHECK(read({"tree", "-L", "2", "-dsha", "i", "/usr"}).directories_only);
  CHECK(parse({"tree", "--help"})->topic == Command::tree);
  CHECK(error_of({"tree", "-L", "0", "i"}) == "tree: -L 0: a level of at least 1 is needed");
  CHECK(read({"du", "-s", "i"}).max_depth == 0);
  CHECK(read({"du", "-d", "3", "i"}).max_depth == 3);
  CHECK(read({"du", "-b", "i"}).apparent);
  CHECK_FALSE(read({"du", "-h", "i"}).apparent);
  CHECK(error_of({"du", "-sa", "i"}) == "du: -s does not go with -a or -d");
  CHECK(error_of({"du", "-s", "-d1", "i"}) == "du: -s does not go with -a or -d");
  CHECK(read({"extract", "--tar", "i"}).tar);
  CHECK(read({"extract", "-C", "d", "i", "etc"}).directory == "d");
  CHECK(read({"fsck", "--data", "i"}).data);
  CHECK(read({"index", "--verify", "--output", "d", "i"}).output == "d");
  auto const to_layout = parse({"index", "--output", "oci:d", "--with-start-list", "i"});
  CHECK(to_layout->read.output.empty());
  CHECK(to_layout->push.layout == "d");
  CHECK(to_layout->push.with_start_list);
  CHECK(error_of({"index", "--with-start-list", "i"}) ==
        "index: --to, --sign-key, --mount-from, --all-platforms, --dry-run and --with-start-list "
        "belong to --push");
  CHECK(error_of({"index", "--push", "--output", "oci:d", "r/i"}) ==
        "index: --push, --to and --mount-from mean a registry, not --output oci:LAYOUT");
  CHECK(read({"index", "--verity", "i"}).verity);
  CHECK_FALSE(read({"index", "--verify", "i"}).verity);
  CHECK(error_of({"ls", "-tS", "i"}) == "ls: -t and -S cannot be set together");
  CHECK(error_of({"cat", "i"}) == "missing argument: PATH");
  CHECK(error_of({"ls"}) == "missing argument: IMAGE");
  CHECK(error_of({"fsck", "i", "/p"}) == "unexpected argument: /p");
  CHECK(error_of({"extract", "i"}) == "extract: one of -C DIR and --tar is needed");
  CHECK(error_of({"extract", "--tar", "-C", "d", "i"}) ==
        "extract: one of -C DIR and --tar is needed");
  CHECK(error_of({"extract", "--tar", "--json", "i"}) ==
        "extract: --tar and --json both want standard output");
  CHECK(error_of({"find", "-type", "x", "i"}) == "find: -type x: not one of f d l c b p s");
  CHECK(error_of({"find", "-perm", "u+s", "i"}) ==
        "find: -perm u+s: not octal digits, or these behind - or /");
  CHECK(error_of({"find", "-size", "10x", "i"}) ==
        "find: -size 10x: not a number, such as 10, +10k or -1M");
  CHECK(error_of({"find", "-uid", "root", "i"}) == "find: -uid root: not a number, +N or -N");
  CHECK(error_of({"find", "-print0", "--json", "i"}) ==
        "find: -print0 and --json cannot be set together");
}

TEST_CASE("cp takes an image with a path, and a place on this machine", "[tool][options]") {
  auto const copy = parse({"cp", "-a", "host:5000/app:v1:/etc", "-v", "there"});
  REQUIRE(copy.has_value());
  CHECK(copy->image.image == "host:5000/app:v1");
  CHECK(copy->read.copy.path == "/etc");
  CHECK(copy->read.local == "there");
  CHECK(copy->read.recursive);
  CHECK(copy->read.preserve);
  CHECK(copy->read.paths.empty());
  CHECK_FALSE(copy->read.tar);
  CHECK_FALSE(parse({"cp", "-p", "app:/x", "y"})->read.recursive);
  CHECK(parse({"cp", "app:/x", "-"})->read.tar);
  CHECK(error_of({"cp"}) == "missing argument: IMAGE:PATH");
  CHECK(error_of({"cp", "app:/x"}) == "missing argument: LOCAL");
  CHECK(error_of({"cp", "app:/x", "y", "z"}) == "unexpected argument: z");
  CHECK(error_of({"cp", "app:/x/..", "y"}) == "cp: app:/x/..: a path that ends with ..");
  CHECK(error_of({"cp", "app:/x", ""}) == "cp: LOCAL is empty");
  CHECK(error_of({"cp", "--json", "app:/x", "-"}) ==
        "cp: a tar and --json both want standard output");
  CHECK(error_of({"cp", "app:v1", "y"}) ==
        "cp: app:v1: not IMAGE:PATH with a PATH that begins with a slash, such as "
        "app:1.2:/etc/passwd");
}

TEST_CASE("diff takes two images, and gives no registry another one's login", "[tool][options]") {
  auto const login =
      "oci.username=me,oci.password=s3cret,oci.mirror=m.example,oci.insecure,oci.layer=1";
  auto const with = [&](std::string const& first, std::string const& second) {
    return parse({"diff", "-o", login, first, second, "/etc"});
  };
  for (auto const& [first, second, gets] :
       {std::tuple{"a.example/x:1", "a.example/x:2", true},
        std::tuple{"a.example/x:1", "a.example/other/y", true},
        std::tuple{"a.example/x:1", "a.example:5000/x:1", false},
        std::tuple{"a.example/x:1", "b.example/x:1", false},
        std::tuple{"x:1", "b.example/x", false}, std::tuple{"oci:dir", "b.example/x:1", true}}) {
    INFO(first << " " << second);
    auto const options = with(first, second);
    REQUIRE(options.has_value());
    REQUIRE(options->other.has_value());
    CHECK(options->image.image == first);
    CHECK(options->other->image == second);
    CHECK(options->read.paths == Arguments{"/etc"});
    CHECK(options->image.password == "s3cret");
    CHECK(options->other->password == (gets ? "s3cret" : ""));
    CHECK(options->other->username == (gets ? "me" : ""));
    CHECK(options->other->mirrors.empty() != gets);
    CHECK(options->other->insecure);
    CHECK(options->other->layer == 1u);
  }
  auto const of_both = [](std::string const&) -> tl::expected<std::vector<ConfigWord>, UsageError> {
    ConfigWord word;
    word.word = {"oci.username=you", "oci.username", "you", true};
    word.registry = "b.example";
    auto password = word;
    password.word = {"oci.password=own", "oci.password", "own", true};
    return std::vector{word, password};
  };
  auto const own =
      parse_options({"mount-oci", "diff", "-o", login, "a.example/x", "b.example/x"}, of_both);
  REQUIRE(own.has_value());
  CHECK(own->image.password == "s3cret");
  CHECK(own->other->username == "you");
  CHECK(own->other->password == "own");

  CHECK(parse({"diff", "--ignore", "time,mode", "--ignore", "owner", "a", "b"})
            ->read.ignored_differences == Arguments{"time", "mode", "owner"});
  CHECK(parse({"diff", "--ignore=time", "a", "b"})->other->image == "b");
  CHECK(error_of({"diff", "--ignore", "size", "a", "b"}) ==
        "diff: --ignore size: none of time, mode, owner, attributes, links");
  CHECK(error_of({"diff", "a"}) == "missing argument: IMAGE, the second one");
  CHECK(error_of({"diff", "-o", "oci.zinfo=/z", "a", "b"}) ==
        "diff: oci.tarindex and oci.zinfo belong to one image, and there are two");
}

TEST_CASE("Every command has a manual page that names its options", "[tool][options]") {
  CHECK(manual(Command::index).find("--verify") != std::string_view::npos);
  CHECK(manual(Command::extract).find("--tar") != std::string_view::npos);
  CHECK(manual(Command::fsck).find("--data") != std::string_view::npos);
  CHECK(manual(Command::mount).find("oci.store=") != std::string_view::npos);
  CHECK(manual(Command::help).find("EXIT STATUS") != std::string_view::npos);
  CHECK(manual(Command::mount).find("oci.zinfo=") != std::string_view::npos);
  CHECK(manual(Command::umount).find("TARGET") != std::string_view::npos);
  CHECK(manual(Command::serve).find("--socket") != std::string_view::npos);
}

TEST_CASE("What is kept of registries has words and a command", "[tool][options]") {
  auto const usual = parse_list("oci.timeout=5").image;
  CHECK(usual.cache_dir.empty());
  CHECK_FALSE(usual.cache_size.has_value());
  CHECK(usual.pull == Pull::always);
  auto const given = parse_list("oci.cache_dir=/c,oci.cache_size=2G,oci.pull=missing").image;
  CHECK(given.cache_dir == "/c");
  CHECK(given.cache_size == std::uint64_t{2} << 30);
  CHECK(given.pull == Pull::missing);
  CHECK(parse_list("oci.cache_dir=none,oci.pull=never").image.pull == Pull::never);
  CHECK(error_of({"-o", "oci.cache_dir=c", "i", "/m"}) ==
        "-o oci.cache_dir=c: neither none nor an absolute path");
  CHECK(error_of({"-o", "oci.pull=often", "i", "/m"}) ==
        "-o oci.pull=often: none of always, missing, never");

  CHECK(parse({"pull", "--json", "i"})->command == Command::pull);
  CHECK(error_of({"pull", "i", "/p"}) == "unexpected argument: /p");
  auto const digest = std::string("sha256:") + digits;
  auto const removed = parse({"cache", "rm", digits, digest});
  REQUIRE(removed.has_value());
  CHECK(removed->command == Command::cache);
  CHECK(removed->cache.action == "rm");
  CHECK(removed->cache.digests == Arguments{digest, digest});
  CHECK(parse({"cache", "prune", "--keep=30d"})->record.keep_used == std::chrono::hours(720));
  CHECK(parse({"cache", "verify", "--json"})->read.json);
  CHECK(error_of({"cache"}) == "cache: one of ls, du, verify, prune, rm is needed");
  CHECK(error_of({"cache", "prune"}) == "cache: prune, and it alone, needs --keep SIZE or AGE");
  CHECK(error_of({"cache", "ls", "--keep=1G"}) ==
        "cache: prune, and it alone, needs --keep SIZE or AGE");
  CHECK(error_of({"cache", "rm"}) == "cache: rm, and it alone, needs DIGEST or --all");
  CHECK(error_of({"cache", "du", "--all"}) == "cache: rm, and it alone, needs DIGEST or --all");
  CHECK(error_of({"cache", "ls", digest}) == "unexpected argument: " + digest);
  CHECK(error_of({"cache", "rm", "x"}) == "cache: sha256:x: not a digest");
  CHECK(manual(Command::cache).find("verify") != std::string_view::npos);
  CHECK(manual(Command::pull).find("--json") != std::string_view::npos);
}

TEST_CASE("A misspelt command is no image", "[tool][options]") {
  struct Row {
    char const* word;
    char const* meant;  // empty: an image
  };
  for (auto const& row : {
           Row{"unmount", "umount"},
           Row{"umuont", "umount"},
           Row{"mout", "mount"},
           Row{"mounts", "mount"},
           Row{"extact", "extract"},
           Row{"statu", "status"},
           Row{"disconect", "disconnect"},
           Row{"serv", "serve"},
           Row{"imgae", "image"},
           Row{"stats", "status"},
           Row{"indx", "index"},
           Row{"reatach", "reattach"},
           // Images of Docker Hub, and names that no command looks like.
           Row{"nginx", ""},
           Row{"gcc", ""},
           Row{"node", ""},
           Row{"mongo", ""},
           Row{"nats", ""},
           Row{"mono", ""},
           Row{"redis", ""},
           Row{"rust", ""},
           Row{"debian", ""},
           Row{"ubuntu", ""},
           Row{"unmount:1", ""},
           Row{"library/unmount", ""},
           Row{"./unmount", ""},
           Row{"docker.io/library/unmount", ""},
       }) {
    INFO(row.word);
    auto const options = parse({row.word, "/mnt"});
    CHECK(options.has_value() == std::string_view(row.meant).empty());
    if (options) {
      CHECK(options->image.image == row.word);
    } else {
      CHECK_THAT(options.error().text,
                 Catch::Contains(std::string("did you mean `") + row.meant + "`"));
    }
    CHECK(parse({"mount", row.word, "/mnt"}).has_value());  // said to be an image
    CHECK(parse_options({"/sbin/mount.erofs.nbd", row.word, "/mnt"}).has_value());
  }
}

TEST_CASE("Mount flags set and clear, in order and in any case", "[tool][options]") {
  constexpr auto safe = MS_NOSUID | MS_NODEV;
  struct Row {
    char const* list;
    unsigned long flags;
  };
  for (auto const& row : {
           Row{"", MS_RDONLY | safe},
           Row{"nosuid,NODEV,NoExec", MS_RDONLY | safe | MS_NOEXEC},
           Row{"suid", MS_RDONLY | MS_NODEV},
           Row{"dev", MS_RDONLY | MS_NOSUID},
           Row{"dev,suid", MS_RDONLY},
           Row{"nosuid,suid", MS_RDONLY | MS_NODEV},
           Row{"suid,nosuid", MS_RDONLY | safe},
           Row{"rw,exec,async,atime,norelatime,diratime,loud", MS_RDONLY | safe},
           Row{"suid,dev,user", MS_RDONLY | safe | MS_NOEXEC},
           Row{"users", MS_RDONLY | safe | MS_NOEXEC},
           Row{"users,exec,suid", MS_RDONLY | MS_NODEV},
           Row{"suid,dev,owner", MS_RDONLY | safe},
           Row{"suid,dev,group", MS_RDONLY | safe},
           Row{"user=me,nouser", MS_RDONLY | safe},
           Row{"remount,noatime", MS_RDONLY | safe | MS_REMOUNT | MS_NOATIME},
           Row{"move", MS_MOVE | safe},
       }) {
    INFO(row.list);
    CHECK(parse_list(row.list).mount.flags == row.flags);
  }
  CHECK(parse_list("defaults,quiet,user,nouser,_netdev,x-systemd.automount").mount.data.empty());
}

TEST_CASE("Words that are not ours reach the kernel as they are", "[tool][options]") {
  CHECK(parse_list("dax,oci.layer=0,domain_id=a").mount.data == "dax,domain_id=a");
  CHECK(parse_list(R"(context="u:o:t:s0:c1,c2",ro,user_xattr)").mount.data ==
        R"(context="u:o:t:s0:c1,c2",user_xattr)");
  CHECK(parse_list("ro=1").mount.data == "ro=1");
}

TEST_CASE("A word that nobody knows is refused, with what may be meant", "[tool][options][error]") {
  auto const list = [](std::string words) { return Arguments{"-o", std::move(words), "i", "/m"}; };
  CHECK(error_of(list("nosuidd")) == "-o nosuidd: unknown word; did you mean `nosuid`?");
  CHECK(error_of(list("user_xatr")) == "-o user_xatr: unknown word; did you mean `user_xattr`?");
  CHECK(error_of(list("devcie=/d")) == "-o devcie: unknown word; did you mean `device`?");
  CHECK(error_of(list("nothing_like_it=secret")) == "-o nothing_like_it: unknown word");
  CHECK(error_of({"ls", "-o", "nosuidd", "i"}) ==
        "-o nosuidd: unknown word; did you mean `nosuid`?");
  // What follows a comma in a password must not be shown.
  auto const comma =
      "-o oci.password: behind its comma stands no word; a value with a comma is written in double "
      "quotes";
  CHECK(error_of(list("oci.username=u,oci.password=s3cret,pw")) == comma);
  CHECK(error_of(list("oci.username=u,oci.password=s3cret,pw=,ro")) == comma);
  CHECK(parse_list("oci.username=u,oci.password=s3cret,nosuid").image.password == "s3cret");

  auto const sloppy = parse({"-s", "-o", "nosuidd,dax,nothing_like_it=1", "i", "/m"});
  REQUIRE(sloppy.has_value());
  CHECK(sloppy->mount.data == "dax");
  CHECK(error_of({"-s", "-o", "oci.cahce=1G", "i", "/m"}) ==
        "-o oci.cahce: unknown word; did you mean `oci.cache`?");
}

TEST_CASE("An error tells whose arguments are wrong", "[tool][options][error]") {
  CHECK(parse({"find", "--perm", "i"}).error().command == "find");
  CHECK(parse({"i", "/m", "--wrong"}).error().command == "mount");
  CHECK(parse({"unmount", "/m"}).error().command.empty());
}

TEST_CASE("--quiet leaves errors alone", "[tool][options]") {
  CHECK(parse({"ls", "-q", "i"})->verbosity == 0);
  CHECK(parse({"umount", "--quiet", "/m"})->verbosity == 0);
  CHECK(error_of({"ls", "-q", "-v", "i"}) == "--quiet does not go with --verbose or --debug");
}

TEST_CASE("help takes a command or the name of a page", "[tool][options]") {
  CHECK(parse({"help"})->topic == Command::help);
  CHECK(parse({"help", "ls"})->topic == Command::ls);
  CHECK(parse({"help", "mount-oci.conf"})->page == "mount-oci.conf");
  CHECK(error_of({"help", "nothing"}) == "help: no page about `nothing`");
  CHECK(error_of({"help", "ls", "cat"}) == "unexpected argument: cat");
  CHECK(parse_options({"/sbin/mount.erofs.nbd", "--help"})->page == "mount.erofs.nbd");
}

TEST_CASE("As mount(8)'s helper, erofs.nbd is any way and erofs.fuse is FUSE", "[tool][options]") {
  auto const attach = [](Arguments const& words) { return parse_options(words)->mount.attach; };
  CHECK(attach({"/sbin/mount.erofs.nbd", "i", "/m"}) == Attach::automatic);
  CHECK(attach({"/sbin/mount.erofs", "i", "/m", "-t", "erofs.nbd"}) == Attach::automatic);
  CHECK(attach({"/sbin/mount.erofs.fuse", "i", "/m"}) == Attach::fuse);
  CHECK(attach({"/sbin/mount.erofs", "i", "/m", "-t", "erofs.fuse"}) == Attach::fuse);
}

TEST_CASE("Words are matched whole, not wherever they occur", "[tool][options]") {
  auto const options = parse_list("oci.tarindex=/a/oci.blob=x,device=oci.layer=3");

  CHECK(options.image.tarindex == "/a/oci.blob=x");
  CHECK(options.image.blob.empty());
  CHECK_FALSE(options.image.layer.has_value());
  CHECK(options.mount.data == "device=oci.layer=3");
}

TEST_CASE("Lists may be quoted, empty and repeated", "[tool][options]") {
  CHECK(parse_list(R"(oci.tarindex="a,b",oci.zinfo=c\,d)").image.tarindex == "a,b");
  CHECK(parse_list(R"(oci.tarindex="a,b",oci.zinfo=c\,d)").image.zinfo == "c,d");
  CHECK(parse_list(R"(oci.zinfo="a\"b\\c")").image.zinfo == R"(a"b\c)");
  CHECK(parse_list(R"(oci.zinfo=a\b)").image.zinfo == R"(a\b)");
  CHECK(parse_list(",,oci.layer=2,,").image.layer == 2u);
  auto const options = parse({"-ooci.layer=1", "-o", "oci.layer=4,nodev", "i", "/m", "-o", "dax"});
  REQUIRE(options.has_value());
  CHECK(options->image.layer == 4u);
  CHECK(options->mount.flags == (MS_RDONLY | MS_NOSUID | MS_NODEV));
  CHECK(options->mount.data == "dax");
}

TEST_CASE("Image words are read", "[tool][options]") {
  CHECK(parse_list(std::string("oci.blob=") + digits).image.blob ==
        std::string("sha256:") + digits);
  CHECK(parse_list("oci.insecure").image.insecure);
  CHECK(parse_list("oci.insecure=1").image.insecure);
  CHECK_FALSE(parse_list("oci.insecure=0").image.insecure);
  CHECK_FALSE(parse_list("oci.insecure,oci.insecure=0").image.insecure);
  CHECK(parse_list("oci.mirror=a:1,oci.mirror=b").image.mirrors == Arguments{"a:1", "b"});
  CHECK(parse_list("oci.cache=64M").image.cache == 64u << 20);
  CHECK(parse_list("oci.cache=64M").image.budget().bytes == 512u << 20);
  CHECK(parse_list("oci.cache=1G").image.budget().bytes == 2ull << 30);
  CHECK(parse_list("oci.memory=64M").image.budget().bytes == 64u << 20);
  CHECK(parse_list("oci.memory=64M").image.cache_bytes() == 32u << 20);
  CHECK(parse_list("ro").image.cache_bytes() == 256u << 20);
  CHECK(parse_list("ro").image.idle == std::chrono::seconds(30));
  CHECK(parse_list("oci.idle=5").image.idle == std::chrono::seconds(5));
  CHECK(parse_list("oci.idle=off").image.idle == std::chrono::seconds(0));
  CHECK(parse_list("ro").image.readahead == 128u << 10);
  CHECK(parse_list("oci.index_size=1T").image.index_size == 1ull << 40);
  CHECK(parse_list("oci.index=/d").image.index_directory == "/d");
  CHECK(parse_list("oci.index=oci:/d").image.index_layout == "/d");
  CHECK(parse_list("oci.index_time=60").image.index_time == std::chrono::seconds(60));
  CHECK(parse_list("oci.timeout=5").image.timeout == std::chrono::seconds(5));
  CHECK_FALSE(parse_list("oci.timeout=5").image.retry.has_value());
  CHECK(parse_list("oci.retry=off").image.retry == std::chrono::seconds(0));
  CHECK(parse_list("oci.retry=12").image.retry == std::chrono::seconds(12));
  CHECK(parse_list("oci.connections=8").image.connections == 8);
  CHECK(parse_list("ro").image.hedge);
  CHECK_FALSE(parse_list("oci.hedge=no").image.hedge);
  CHECK(parse_list("oci.hedge=yes").image.hedge);
  CHECK(parse_list("ro").image.start_list == StartListUse::all);
  CHECK(parse_list("oci.start_list=off").image.start_list == StartListUse::off);
  CHECK(parse_list("oci.start_list=record").image.start_list == StartListUse::record);
  CHECK(parse_list("oci.start_list=use").image.start_list == StartListUse::use);
  CHECK(parse_list("ro").image.verity == VerityUse::attempt);
  CHECK(parse_list("oci.verity=off").image.verity == VerityUse::off);
  CHECK(parse_list("oci.verity=try").image.verity == VerityUse::attempt);
  CHECK(parse_list("oci.verity=require").image.verity == VerityUse::require);
  CHECK_FALSE(parse_list("oci.verity=require").image.verity_root);
  auto const hex = std::string(64, 'a');
  CHECK(parse_list("oci.verity=" + hex).image.verity == VerityUse::require);
  CHECK(parse_list("oci.verity=" + hex).image.verity_root->hex() == hex);
  CHECK_FALSE(parse_list("oci.verity=" + hex + ",oci.verity=try").image.verity_root);
  CHECK(parse_list("ro").image.verify == Verify::lazy);
  for (auto const verify : {Verify::off, Verify::lazy, Verify::background, Verify::before}) {
    CHECK(parse_list("oci.verify=" + std::string(name_of(verify))).image.verify == verify);
  }
  CHECK_FALSE(parse_list("ro").image.native);
  CHECK(parse_list("oci.native=yes").image.native);
  CHECK(parse_list("oci.ca=/ca.pem").image.ca == "/ca.pem");
  CHECK(parse_list("oci.hosts=/a:/b").image.hosts == "/a:/b");
  CHECK(parse_list("oci.hosts=none").image.hosts == "none");
  CHECK(parse_list("oci.allow_private").image.allow_private);
  auto const options = parse_list("oci.username=u,oci.password=p=\\,\"q\"");
  CHECK(options.image.username == "u");
  CHECK(options.image.password == "p=,q");
}

TEST_CASE("What becomes of a start list is an argument of what serves an image",
          "[tool][options]") {
  auto const mount = parse({"--start-list=record", "-o", "oci.start_list=off", "i", "/m"});
  REQUIRE(mount.has_value());
  CHECK(mount->image.start_list == StartListUse::record);
  auto const serve = parse({"serve", "--start-list", "use", "--socket", "/s", "i"});
  REQUIRE(serve.has_value());
  CHECK(serve->image.start_list == StartListUse::use);
  CHECK(error_of({"--start-list=on", "i", "/m"}) ==
        "-o oci.start_list=on: none of off, record, use, all");
  CHECK(error_of({"ls", "--start-list", "i"}) == "unexpected argument: --start-list");
}

TEST_CASE("What means nothing is refused by name", "[tool][options][error]") {
  auto const list = [](std::string words) { return Arguments{"-o", std::move(words), "i", "/m"}; };
  auto const blob = std::string("oci.blob=") + digits;

  CHECK(error_of(list("oci.tarindx=a")) ==
        "-o oci.tarindx: unknown word; did you mean `oci.tarindex`?");
  CHECK(error_of(list("oci")) == "-o oci: unknown word");
  CHECK(error_of(list("ocipassword=secret")) ==
        "-o ocipassword: unknown word; did you mean `oci.password`?");
  CHECK(error_of(list("OCI.layer=0")) == "-o OCI.layer: unknown word");
  CHECK(error_of(list("s3.endpoint=a")) == "-o s3.endpoint: unknown word");
  CHECK(error_of(list(blob + ",oci.layer=0")) ==
        "-o: oci.blob and oci.layer cannot be set together");
  CHECK(parse_list("oci.first_layers=2").image.first_layers == 2u);
  for (auto const& one : {blob, std::string("oci.layer=0")}) {
    CHECK(error_of(list("oci.first_layers=2," + one)) ==
          "-o: oci.first_layers goes with neither oci.blob nor oci.layer");
  }
  CHECK(error_of(list("oci.first_layers=0")) ==
        "-o oci.first_layers=0: not a number of layers (1, 2, ...)");
  CHECK(error_of(list("oci.layer=0," + blob)) ==
        "-o: oci.blob and oci.layer cannot be set together");
  CHECK(error_of(list("oci.blob=12")) ==
        "-o oci.blob=12: not a digest (sha256: and 64 lower-case hexadecimal digits)");
  for (auto const* bad : {"", "-1", "+1", "x", "1x", " 1", "4294967296"}) {
    CHECK(error_of(list(std::string("oci.layer=") + bad)) ==
          std::string("-o oci.layer=") + bad + ": not the number of a layer (0, 1, ...)");
  }
  for (auto const* bad : {"linux", "linux/", "/amd64", "a/b/c/d", "linux//v8", "Linux/amd64"}) {
    CHECK(error_of(list(std::string("oci.platform=") + bad)) ==
          std::string("-o oci.platform=") + bad + ": not OS/ARCH or OS/ARCH/VARIANT");
  }
  CHECK(error_of(list("oci.insecure=maybe")) == "-o oci.insecure=maybe: neither 0 nor 1");
  CHECK(error_of(list("oci.tarindex=")) == "-o oci.tarindex: a value is needed");
  CHECK(error_of(list("oci.tarindex=\"a")) == "-o: a quote is not closed");
  CHECK(error_of(list("oci.timeout=0")) ==
        "-o oci.timeout=0: not a number of seconds from 1 to 86400");
  for (auto const* bad : {"", "a", "/a:", "/a:b", ":/a"}) {
    CHECK(error_of(list(std::string("oci.hosts=") + bad)) ==
          std::string("-o oci.hosts=") + bad +
              ": neither none nor absolute paths of directories, joined by colons");
  }
  CHECK(error_of(list("oci.retry=never")) ==
        "-o oci.retry=never: neither off nor a number of seconds from 0 to 86400");
  CHECK(error_of(list("oci.connections=0")) == "-o oci.connections=0: not a number from 1 to 64");
  CHECK(error_of(list("oci.verify=no")) ==
        "-o oci.verify=no: none of off, lazy, background, before");
  CHECK(error_of(list("oci.verity=yes")) ==
        "-o oci.verity=yes: none of off, try, require, a root hash of 64 hexadecimal digits");
  CHECK(error_of(list("oci.cache=1")) ==
        "-o oci.cache=1: not a size such as 64M, or out of range (1048576 to 1099511627776 bytes)");
  CHECK(error_of(list("oci.memory=100M,oci.cache=51M")) ==
        "-o: oci.cache may be at most half of oci.memory");
  CHECK(error_of(list("oci.password=secret")) == "-o: a password is set, but no oci.username");
  CHECK(error_of(list("oci.username=u")) ==
        "-o: oci.username is set, but neither oci.password_file nor oci.password");
  CHECK(error_of(list("oci.username=u,oci.password=secret,oci.password_file=f")) ==
        "-o: oci.password and oci.password_file cannot be set together");
  CHECK(error_of(list("oci.\"password\"=secret")) == "-o oci.password: quotes belong to a value");
  CHECK(error_of(list("loop")) ==
        "-o loop: the image is served by this program, not by a loop device");
}

TEST_CASE("Missing, wrong and superfluous arguments are named", "[tool][options][error]") {
  CHECK(error_of({}) == "missing argument: IMAGE");
  CHECK(error_of({"an/image"}) == "missing argument: MOUNTPOINT");
  CHECK(error_of({"image", "/mnt", "more"}) == "unexpected argument: more");
  CHECK(error_of({"image", "/mnt", "--wrong"}) == "unexpected argument: --wrong");
  CHECK(error_of({"umount"}) == "missing argument: TARGET");
  CHECK(error_of({"-u"}) == "missing argument: TARGET");
  CHECK(error_of({"umount", "a", "b"}) == "unexpected argument: b");
  CHECK(error_of({"-u", "a", "b"}) == "unexpected argument: b");
  CHECK(error_of({"-t", "ext4", "i", "/m"}) ==
        "invalid filesystem type `ext4`: not erofs.nbd or erofs.fuse");
  CHECK(error_of({"-t", "erofs.x", "i", "/m"}) == "invalid filesystem subtype `x`");
  CHECK(error_of({"-t", "erofs.ublk", "i", "/m"}) == "filesystem subtype `ublk` is not supported");
  CHECK(error_of({"-d", "12", "i", "/m"}) == "invalid debug level 12 (0 to 9)");
  CHECK(error_of({"--attach", "usb", "i", "/m"}) ==
        "--attach usb: not one of auto, netlink, ioctl, fuse-file, fuse-tree");
  CHECK(error_of({"-t", "erofs.nbd", "--attach", "fuse-tree", "i", "/m"}) ==
        "--attach fuse-tree does not go with -t erofs.nbd");
  CHECK(error_of({"--writable", "-N", "1", "i", "/m"}) ==
        "--writable and --namespace cannot be set together");
  CHECK(error_of({"umount", "--all", "/m"}) == "unexpected argument: /m");
  CHECK(error_of({"--dead-timeout", "x", "i", "/m"}) ==
        "--dead-timeout x: not seconds from 0 to 86400");
  CHECK(error_of({"--log", "xml", "i", "/m"}) == "--log xml: neither text nor json");
  CHECK(error_of({"serve", "i"}) == "serve: one of --socket PATH and --listen HOST:PORT is needed");
  CHECK(error_of({"serve", "--socket", "a", "--listen", "b:1", "i"}) ==
        "serve: one of --socket PATH and --listen HOST:PORT is needed");
  CHECK(error_of({"serve", "--socket", "a"}) == "missing argument: IMAGE");
  CHECK(error_of({"serve", "--socket", "a", "-o", "dax", "i"}) ==
        "-o dax: this command does not mount anything");
}

TEST_CASE("A quoted value reads back as it was", "[tool][options][property]") {
  rc::prop("for all texts without NUL, alone and between other words", [] {
    auto const value = *rc::gen::container<std::string>(
        rc::gen::element('a', ',', '"', '\\', '=', ' ', '\n', 'z'));

    auto const words = split_list("ro,oci.zinfo=" + quote(value) + ",nodev");

    RC_ASSERT(words.has_value());
    RC_ASSERT(words->size() == 3u);
    RC_ASSERT(words->at(1).key == "oci.zinfo");
    RC_ASSERT(words->at(1).value == value);
    RC_ASSERT(words->at(2).key == "nodev");
  });
}

TEST_CASE("A list never crashes its reader, and its raw words join to it again",
          "[tool][options][property]") {
  rc::prop("for all lists of awkward characters", [] {
    auto const list =
        *rc::gen::container<std::string>(rc::gen::element('a', ',', '"', '\\', '=', '.'));

    auto const words = split_list(list);

    if (!words) return;
    std::size_t kept = 0;
    for (auto const& word : *words) kept += word.raw.size();
    RC_ASSERT(kept <= list.size());
    RC_ASSERT(list.size() - kept <= static_cast<std::size_t>(std::ranges::count(list, ',')));
  });
}

TEST_CASE("Sizes are read with their units", "[tool][options]") {
  CHECK(parse_size("0") == 0u);
  CHECK(parse_size("4096") == 4096u);
  CHECK(parse_size("64k") == 65536u);
  CHECK(parse_size("1T") == 1ull << 40);
  CHECK(parse_size("18446744073709551615") == ~0ull);
  for (auto const* bad : {"", "M", "-1", "1.5G", "1MB", "18446744073709551616", "16777216T", "x"}) {
    CHECK_FALSE(parse_size(bad).has_value());
  }
}

TEST_CASE("Secrets are taken out of the process's arguments", "[tool][options]") {
  auto const [before, after] = GENERATE(table<std::string, std::string>({
      {"oci.username=u,oci.password=hunter2", "oci.username=u,oci.password="},
      {"oci.password=hunter2,oci.layer=0", "oci.password=,oci.layer=0"},
      {"oci.password=\"hunter2,hunter2\",ro", "oci.password=,ro"},
      {"oci.password=hunter2\\,hunter2,ro", "oci.password=,ro"},
      {"-ooci.password=hunter2", "-ooci.password="},
      {"oci.password=hunter2,oci.password=hunter2", "oci.password=,oci.password="},
      {"oci.password_file=f", "oci.password_file=f"},
      {"a=\"oci.password=b\",oci.password=\"c,hunter2\",ro", "a=\"oci.password=,oci.password=,ro"},
  }));
  std::string program = "mount-oci";
  auto argument = before;
  std::vector<char*> argv{program.data(), argument.data(), nullptr};

  scrub_secrets(2, argv.data());

  CHECK(std::string(argument.c_str()) == after);
  CHECK((argument.find("hunter2") == std::string::npos));
  CHECK(argument.size() == before.size());  // the rest is NULs, in place
}

}  // namespace options_test
}  // namespace mount_oci
