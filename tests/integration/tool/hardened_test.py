# SPDX-License-Identifier: Apache-2.0
"""How the program was compiled, as readelf sees it; how systemd judges its unit, and that the program
works with what the unit leaves it."""
import ctypes
import errno
import json
import os
import re
import shutil
import struct
import subprocess
import unittest

from support import HERE, SANITIZED, TOOL, ToolTest

UNIT = os.path.join(HERE, "../../../example/mount-oci/mount-oci@.service")
ANALYZE = ["systemd-analyze", "--no-pager"]
# linux/prctl.h, linux/seccomp.h
PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, MODE_FILTER = 24, 38, 22, 2
LOAD_NUMBER, IS_EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, ERRNO = 0x7fff0000, 0x00050000


def settings(name):
    """What the unit says by a directive, line by line."""
    with open(UNIT) as unit:
        return re.findall(rf"^{name}=(.*)$", unit.read(), re.M)


def output(*command, **options):
    return subprocess.run(command, capture_output=True, text=True, check=True, **options).stdout


def readelf(*options):
    return output("readelf", "-W", *options, TOOL)


class HardenedTest(unittest.TestCase):
    def test_the_program_can_lie_anywhere(self):
        self.assertRegex(readelf("-h"), r"Type: +DYN")
        self.assertRegex(readelf("-d"), r"\(FLAGS_1\).*\bPIE\b")

    def test_addresses_of_functions_are_read_only(self):
        self.assertIn("GNU_RELRO", readelf("-l"))
        self.assertRegex(readelf("-d"), r"\(FLAGS_1\).*\bNOW\b")

    def test_the_stack_is_protected_and_no_code(self):
        symbols = readelf("--dyn-syms")
        self.assertIn("__stack_chk_fail", symbols)
        self.assertRegex(readelf("-l"), r"GNU_STACK .* RW +0x")
        if os.environ.get("MOUNT_OCI_OPTIMIZED"):  # _FORTIFY_SOURCE needs it
            self.assertRegex(symbols, r"__\w+_chk@GLIBC")


@unittest.skipUnless(shutil.which("systemd-analyze"), "systemd-analyze is not installed")
class UnitTest(ToolTest):
    def test_it_has_little_exposure(self):
        said = output(*ANALYZE, "security", "--offline=true", UNIT)
        found = re.search(r"Overall exposure level for .*: ([0-9.]+) ", said)
        self.assertTrue(found, said)
        # What is left are options that would hide the mount, and what mounting and fetching need.
        self.assertLessEqual(float(found[1]), 4.7)

    def test_it_says_why_of_what_is_left(self):
        with open(UNIT) as unit:
            reasons = "".join(line for line in unit if line.startswith("#"))
        judged = json.loads(output(*ANALYZE, "security", "--offline=true", "--json=short", UNIT))
        exposed = {one["name"] for one in judged if one["exposure"]}
        self.assertGreater(len(exposed), 10)
        for name in exposed:
            with self.subTest(name):
                # As systemd writes it: "User=/DynamicUser=", "CapabilityBoundingSet=~CAP_SET(UID|GID|PCAP)".
                first, _, rest = name.partition("=~")
                words = re.findall(r"@\w+|CAP_SYS_ADMIN|CAP_KILL|CAP_|AF_\w+|AF_\(.*\)", rest) if rest \
                    else [first.split("/")[0]]
                self.assertTrue(words, name)
                for word in words:
                    self.assertIn(word, reasons)

    @unittest.skipIf(SANITIZED, "sanitizers need more system calls")
    @unittest.skipUnless(os.geteuid() == 0 and os.path.exists("/dev/fuse"), "needs root and /dev/fuse")
    def test_the_program_works_within_it(self):
        """With its system calls, capabilities and no_new_privs, which need no systemd."""
        target, journal = os.path.join(self.dir, "mount"), os.path.join(self.dir, "journal")
        os.mkdir(target)
        confine = as_the_unit()

        def run(*arguments, status=0):
            done = subprocess.run(arguments, capture_output=True, text=True, timeout=60,
                                  preexec_fn=confine)
            self.assertEqual(done.returncode, status, done.stderr)
            return done.stdout

        self.assertIn("not implemented", subprocess.run(  # what is refused is refused
            ["nice", "-n", "5", "true"], capture_output=True, text=True, preexec_fn=confine).stderr)
        for way in "fuse-tree", "fuse-file":
            with self.subTest(way):
                self.addCleanup(subprocess.run, ["umount", "-l", target], capture_output=True)
                run(TOOL, "mount", "--attach", way, "--journal", journal, "-o",
                    f"oci.store={self.dir}/store,oci.platform=linux/amd64", f"oci:{self.layout}:v1",
                    target)
                self.assertTrue(os.listdir(target))
                [mount] = json.loads(run(TOOL, "status", "--json", "--journal", journal))
                status = {who: read_status(mount[who]) for who in ("supervisor", "worker")}
                self.assertEqual({one["Seccomp"] for one in status.values()}, {"2"})
                self.assertLess(int(status["supervisor"]["CapBnd"], 16).bit_count(), 10)
                os.kill(mount["worker"], 9)
                for folder, _, files in os.walk(target):
                    for name in files:
                        if os.path.isfile(os.path.join(folder, name)):
                            with open(os.path.join(folder, name), "rb") as file:
                                file.read()
                run(TOOL, "umount", target)


def read_status(pid):
    with open(f"/proc/{pid}/status") as file:
        return dict(re.split(r":\s+", line.strip(), maxsplit=1) for line in file if ": " in line
                    or ":\t" in line and line.strip()[-1] != ":")


def system_calls(words):
    """Names, of which `@name` is a group."""
    for word in words:
        if word.startswith("@"):
            listed = output(*ANALYZE, "syscall-filter", word)
            yield from system_calls(line.strip() for line in listed.splitlines()[1:]
                                    if not line.strip().startswith("#"))
        else:
            yield word


def as_the_unit():
    """A function that confines this process as systemd would by the unit."""
    allowed = set(system_calls(["@default"]))
    for line in settings("SystemCallFilter"):
        named = set(system_calls(line.removeprefix("~").split()))
        allowed = allowed - named if line.startswith("~") else allowed | named
    defined = output("cc", "-E", "-dM", "-xc", "-", input="#include <asm/unistd.h>\n")
    numbers = {int(number) for name, number in re.findall(r"#define __NR_(\w+) (\d+)", defined)
               if name in allowed}
    code = [(LOAD_NUMBER, 0, 0, 0)]
    for number in sorted(numbers):
        code += [(IS_EQUAL, 0, 1, number), (RETURN, 0, 0, ALLOW)]
    code.append((RETURN, 0, 0, ERRNO | errno.ENOSYS))
    text = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *one) for one in code))
    program = ctypes.create_string_buffer(
        struct.pack("HxxxxxxP", len(code), ctypes.addressof(text)))
    [kept] = settings("CapabilityBoundingSet")
    defined = output("cc", "-E", "-dM", "-xc", "-", input="#include <linux/capability.h>\n")
    dropped = [int(number) for name, number in re.findall(r"#define (CAP_\w+)\s+(\d+)$", defined, re.M)
               if name not in kept.split()]
    libc = ctypes.CDLL(None, use_errno=True)

    def confine():
        for number in dropped:
            libc.prctl(PR_CAPBSET_DROP, number, 0, 0, 0)
        for call in ((PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
                     (PR_SET_SECCOMP, MODE_FILTER, ctypes.addressof(program), 0, 0)):
            if libc.prctl(*(ctypes.c_ulong(value) for value in call)) != 0:
                raise OSError(ctypes.get_errno(), "prctl")

    confine.keep = text, program
    return confine


if __name__ == "__main__":
    unittest.main()
