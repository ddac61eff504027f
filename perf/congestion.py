"""Which congestion control the sockets of processes really have, asked of the kernel by
sock_diag(7): what `ss -ti` shows, without needing it, or root."""

import os
import socket
import struct

NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY = 20
NLM_F_REQUEST, NLM_F_DUMP = 1, 0x300
NLMSG_ERROR, NLMSG_DONE = 2, 3
INET_DIAG_CONG = 4  # the attribute; its bit in a request is one less
ESTABLISHED = 1
HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
REQUEST = struct.Struct("=BBBxI48x")  # struct inet_diag_req_v2, any address
INODE_AT, ATTRIBUTES_AT = 68, 72  # in struct inet_diag_msg
ANSWER_BYTES = 1 << 17


def of_processes(pids):
    """Names of the congestion controls of these processes' established TCP connections, sorted.
    Processes of somebody else's, and a kernel without sock_diag, give none."""
    inodes = set().union(*(inodes_of(pid) for pid in pids))
    found = set()
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            found |= {name for inode, name in established(family) if inode in inodes}
        except OSError:
            pass
    return sorted(found)


def inodes_of(pid):
    """What sockets of a process are called in the kernel's tables."""
    found = set()
    try:
        for number in os.listdir(f"/proc/{pid}/fd"):
            try:
                target = os.readlink(f"/proc/{pid}/fd/{number}")
            except OSError:
                continue  # closed meanwhile
            if target.startswith("socket:["):
                found.add(int(target[len("socket:[") : -1]))
    except OSError:
        pass
    return found


def established(family):
    """(inode, congestion control) of every established TCP connection."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG) as kernel:
        kernel.settimeout(5)
        question = REQUEST.pack(
            family, socket.IPPROTO_TCP, 1 << (INET_DIAG_CONG - 1), 1 << ESTABLISHED
        )
        flags = NLM_F_REQUEST | NLM_F_DUMP
        length = HEADER.size + len(question)
        kernel.send(HEADER.pack(length, SOCK_DIAG_BY_FAMILY, flags, 1, 0) + question)
        while True:
            answer = kernel.recv(ANSWER_BYTES)
            at = 0
            while at < len(answer):
                length, kind, *_ = HEADER.unpack_from(answer, at)
                if kind == NLMSG_DONE:
                    return
                if kind == NLMSG_ERROR:
                    (code,) = struct.unpack_from("=i", answer, at + HEADER.size)
                    raise OSError(-code, os.strerror(-code))
                yield parse(answer[at + HEADER.size : at + length])
                at += aligned(length)


def parse(message):
    """(inode, congestion control) of one connection."""
    (inode,) = struct.unpack_from("=I", message, INODE_AT)
    at = ATTRIBUTES_AT
    while at + 4 <= len(message):
        length, kind = struct.unpack_from("=HH", message, at)
        if kind == INET_DIAG_CONG:
            return inode, message[at + 4 : at + length].rstrip(b"\0").decode()
        at += aligned(max(length, 4))
    return inode, "unknown"


def aligned(length):
    return (length + 3) & ~3
