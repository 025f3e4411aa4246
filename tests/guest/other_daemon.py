#!/usr/bin/env python3
"""Serves a file on an nbd device of the kernel as mount.erofs of erofs-utils does.

usage: other_daemon.py serve FILE IDENTIFIER BYTES   prints /dev/nbdN, then serves until it is killed
       other_daemon.py autoclear N IDENTIFIER        the last close of nbdN ends it

Past FILE's end there are zeros, up to BYTES. The kernel's messages are in linux/nbd-netlink.h.
"""
import os
import socket
import struct
import sys

CONNECT, RECONFIGURE = 1, 3
INDEX, SIZE, BLOCK_SIZE, TIMEOUT, SERVER_FLAGS, CLIENT_FLAGS, SOCKETS, DEAD_TIMEOUT, _, IDENTIFIER = \
    range(1, 11)
REQUEST_MAGIC, REPLY_MAGIC = 0x25609513, 0x67446698


def attribute(number, data):
    return struct.pack("=HH", 4 + len(data), number) + data + bytes(-len(data) % 4)


def u64(number, value):
    return attribute(number, struct.pack("=Q", value))


def text(number, value):
    return attribute(number, value.encode() + b"\0")


def attributes(data):
    found = {}
    while len(data) >= 4:
        length, number = struct.unpack_from("=HH", data)
        found[number & 0x3fff] = data[4:length]
        data = data[(length + 3) & ~3:]
    return found


def ask(family, command, body):
    """Sends one request of generic netlink; the attributes of its answer."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 16) as netlink:
        message = struct.pack("=BBH", command, 1, 0) + body
        netlink.send(struct.pack("=IHHII", 16 + len(message), family, 1 | 4, 1, 0) + message)
        answer = {}
        while True:
            data = netlink.recv(65536)
            while data:
                length, kind = struct.unpack_from("=IH", data)
                if kind == 2:  # NLMSG_ERROR, which also says that all is well
                    error, = struct.unpack_from("=i", data, 16)
                    if error:
                        raise OSError(-error, os.strerror(-error))
                    return answer
                answer = attributes(data[20:length])
                data = data[(length + 3) & ~3:]


def family():
    return struct.unpack("=H", ask(16, 3, text(2, "nbd"))[1])[0]


def receive(connection, length):
    data = b""
    while len(data) < length:
        piece = connection.recv(length - len(data))
        if not piece:
            sys.exit(0)
        data += piece
    return data


def serve(name, identifier, size):
    ours, theirs = socket.socketpair()
    item = attribute(1, attribute(1, struct.pack("=I", theirs.fileno())))
    answer = ask(family(), CONNECT,
                 u64(SIZE, size) + u64(BLOCK_SIZE, 512) + u64(TIMEOUT, 0) + u64(SERVER_FLAGS, 3) +
                 u64(DEAD_TIMEOUT, 30 * 24 * 3600) + text(IDENTIFIER, identifier) +
                 attribute(SOCKETS, item))
    theirs.close()
    print("/dev/nbd%d" % struct.unpack("=I", answer[INDEX]), flush=True)
    file = os.open(name, os.O_RDONLY)
    while True:
        magic, _, kind, cookie, offset, length = struct.unpack(">IHH8sQI", receive(ours, 28))
        if magic != REQUEST_MAGIC or kind == 2:
            sys.exit(0)
        if kind != 0:
            ours.sendall(struct.pack(">II8s", REPLY_MAGIC, 1, cookie))
            continue
        data = os.pread(file, length, offset)
        ours.sendall(struct.pack(">II8s", REPLY_MAGIC, 0, cookie) + data.ljust(length, b"\0"))


if sys.argv[1] == "serve":
    serve(sys.argv[2], sys.argv[3], int(sys.argv[4]))
else:
    ask(family(), RECONFIGURE, attribute(INDEX, struct.pack("=I", int(sys.argv[2]))) +
        text(IDENTIFIER, sys.argv[3]) + u64(CLIENT_FLAGS, 2))
