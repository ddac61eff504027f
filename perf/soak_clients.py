#!/usr/bin/env python3
"""The clients of `perf/soak` on one host: a process, a thread for each stream. Its argument is JSON (see
`main`); what its streams did is told in lines of JSON. It ends when its standard input does: what is
under way is brought to its end."""

import hashlib
import json
import os
import select
import socket
import statistics
import struct
import sys
import time

sys.dont_write_bytecode = True

import soak_programs
from soak_content import Content, datagram
from soak_stream import OVER, Lost, Stream, tell

PIECE_BYTES = 256 << 10
PROGRESS_BYTES = 16 << 20
PING_SECS = 0.01
# Answers that are as late as this are told one by one.
GAP_SECS = 0.02


def progress(stream, before):
    if stream.moved // PROGRESS_BYTES != before // PROGRESS_BYTES:
        tell(progress=stream.key, bytes=stream.moved)


def is_over(stream):
    """A transfer of a given size is brought to its end."""
    return OVER.is_set() and not stream.given["bulk_bytes"]


def up(stream):
    seed, left = f"{stream.random.random()}", stream.size()
    content, began = Content(seed), time.monotonic()
    with stream.connect(f"up {seed}") as to:
        while left and not is_over(stream):
            piece = content.next(min(left, PIECE_BYTES))
            to.sendall(piece)
            left -= len(piece)
            stream.moved += len(piece)
            progress(stream, stream.moved - len(piece))
            stream.paced(began)
        to.shutdown(socket.SHUT_WR)
        line = to.makefile("rb").readline().decode()
    if not line:
        raise Lost("no sum")
    if line.split() != [str(content.offset), content.sum(), "None"]:
        stream.is_wrong = f"{content.offset} bytes sent, and the server says {line.strip()}"
    ended(stream)


def down(stream):
    seed, left = f"{stream.random.random()}", stream.size()
    content, buffer, began = Content(seed), bytearray(PIECE_BYTES), time.monotonic()
    with stream.connect(f"down {seed} {left}") as source:
        while left:
            got = source.recv_into(buffer, min(left, PIECE_BYTES))
            if not got:
                raise Lost("end of data before its time")
            content.check(memoryview(buffer)[:got])
            left -= got
            stream.moved += got
            progress(stream, stream.moved - got)
            stream.paced(began)
        line = source.makefile("rb").readline().decode().strip()
    if not line:
        raise Lost("no sum")
    if line != content.sum() or content.first_wrong is not None:
        stream.is_wrong = f"first at {content.first_wrong}; {content.sum()} instead of {line}"
    ended(stream)


def ended(stream):
    """A transfer of a given size is done once."""
    if stream.given["bulk_bytes"]:
        tell(done=stream.key)
        OVER.wait()


def ping(stream):
    """A message 10 ms after each answer, and how long it took from one to the next where that is more than usual."""
    gaps, number = [], 0
    with stream.connect("echo") as to:
        last = time.monotonic()
        while not OVER.is_set():
            number += 1
            stream.answer(to, struct.pack("<QQ", number, ~number & (1 << 64) - 1))
            now = time.monotonic()
            gaps.append(now - last)
            if now - last > GAP_SECS:
                tell(ping=stream.key, at=now, gap=now - last)
            last = now
            time.sleep(PING_SECS)
    tell(ping=stream.key, normal=statistics.median(gaps or [PING_SECS]))


def small(stream):
    """Requests of all sizes."""
    until = time.monotonic() + stream.random.choice([5, 30, 1e9])
    with stream.connect("echo") as to:
        while not OVER.is_set() and time.monotonic() < until:
            message = stream.random.randbytes(stream.random.choice([1, 64, 500, 4000, 20000]))
            stream.answer(to, message)
            OVER.wait(stream.random.uniform(0, 0.1))


def idle(stream):
    """Next to nothing; its end is noticed when it comes."""
    with stream.connect("echo") as to:
        while not OVER.is_set():
            stream.answer(to, stream.random.randbytes(1))
            until = time.monotonic() + stream.random.uniform(2, 8)
            while time.monotonic() < until and not OVER.is_set():
                if select.select([to], [], [], 0.1)[0]:
                    to.recv(1)
                    raise Lost("ended by itself")


def connect(stream):
    with stream.connect("echo") as to:
        stream.answer(to, stream.random.randbytes(100))
        to.shutdown(socket.SHUT_WR)
        if to.recv(1):
            stream.is_wrong = "more than was sent"
    OVER.wait(0.05)


def late(stream):
    """Our direction has ended, and lines come still."""
    count = stream.random.randrange(20, 200)
    with stream.connect(f"late {count}") as to:
        to.shutdown(socket.SHUT_WR)
        wanted = b"".join(b"line %d\n" % number for number in range(count))
        got = to.makefile("rb").read()
        stream.moved += len(got)
        if got != wanted:
            if not wanted.startswith(got):
                stream.is_wrong = f"{got[-40:]!r} at {len(got)}"
            raise Lost(f"{len(got)} bytes of {len(wanted)}")


def early(stream):
    """The server's direction has ended, and it takes lines still."""
    key, digest = f"{stream.random.random()}", hashlib.sha256()
    with stream.connect(f"early {key}") as to:
        if stream.exactly(to, 4) != b"bye\n":
            stream.is_wrong = "no bye"
        if to.recv(1):
            stream.is_wrong = "more than bye"
        for _ in range(stream.random.randrange(20, 200)):
            piece = stream.random.randbytes(100)
            to.sendall(piece)
            digest.update(piece)
            stream.moved += len(piece)
            if OVER.wait(0.05):
                break
    # What was sent last is on its way still.
    for _ in range(50):
        with stream.connect(f"sum {key}") as to:
            said = to.makefile("rb").readline().decode().strip()
        if said != "unknown":
            break
        time.sleep(0.1)
    if said != digest.hexdigest():
        raise Lost(f"sum {said!r} of what was sent to a half-closed stream")


def socks(stream):
    with socket.create_connection(("127.0.0.1", stream.entrance), stream.given["patience"]) as to:
        to.sendall(b"\5\1\0")
        if stream.exactly(to, 2) != b"\5\0":
            stream.is_wrong = "not SOCKS"
        host, port = stream.given["socks_to"]
        to.sendall(b"\5\1\0\1" + socket.inet_aton(host) + struct.pack(">H", port))
        if (said := stream.exactly(to, 10))[1] != 0:
            raise Lost(f"SOCKS reply {said[1]}")
        to.sendall(b"echo\n")
        for _ in range(stream.random.randrange(10, 300)):
            stream.answer(to, stream.random.randbytes(1000))
            if OVER.wait(0.05):
                break


def udp(stream):
    """A flow: each datagram that comes back is as it was sent. Some may not: those are counted."""
    lost, number, last = 0, 0, time.monotonic()
    with socket.socket(type=socket.SOCK_DGRAM) as own:
        own.connect(("127.0.0.1", stream.entrance))
        own.settimeout(0.1)
        while not OVER.wait(0.02):
            number += 1
            message = struct.pack("<Q", number) + datagram(number)
            try:
                own.send(message)
                got = own.recv(65536)
                while got != message:
                    was = struct.unpack("<Q", got[:8])[0]
                    if was >= number or got[8:] != datagram(was):
                        stream.is_wrong = f"{got[:32].hex()} after {number}"
                        return
                    got = own.recv(65536)
                stream.moved += 2 * len(message)
                last = time.monotonic()
            except OSError:
                # Nobody listens while an end is restarted; nobody waits for a datagram.
                lost += 1
                if time.monotonic() > last + stream.given["patience"]:
                    raise Lost("no datagram comes back any more")
    tell(datagrams=number, datagrams_lost=lost)


KINDS = {
    "up": up, "down": down, "ping": ping, "small": small, "idle": idle, "connect": connect, "late": late,
    "early": early, "socks": socks, "udp": udp, "psql": soak_programs.psql, "pgbench": soak_programs.pgbench,
    "redis": soak_programs.redis, "ssh": soak_programs.ssh,
}


def main():
    """streams: [kind, port of the entrance, how many]; host, seed, patience (seconds), bulk_bytes (0: of many
    sizes), bytes_per_sec (of each bulk stream, 0: any), socks_to, ssh_key."""
    given = json.loads(sys.argv[1])
    sys.setswitchinterval(0.001)
    threads = [
        Stream(kind, KINDS[kind], entrance, given, number)
        for kind, entrance, count in given["streams"]
        for number in range(count)
    ]
    for thread in threads:
        thread.start()
    sys.stdin.read()
    OVER.set()
    deadline = time.monotonic() + given["patience"]
    for thread in threads:
        thread.join(max(0, deadline - time.monotonic()))
    for thread in threads:
        if thread.is_alive():
            tell(kind=thread.kind, key=thread.key, opened=0, ended=time.monotonic(), error="hangs", bytes=0, wrong=None)
            if thread.child:
                thread.child.kill()
    # Threads that hang must not keep the process.
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
