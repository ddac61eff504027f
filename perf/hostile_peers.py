"""Strangers and hostile peers for `perf/hostile`: each is a process of its own, and does one thing as fast
as it can. Standard library only."""

import os
import select
import socket
import struct
import sys
import threading
import time

MAGIC = 0xB1
SENDERS = 1
HELLO, HELLO_OK, SET_OPTION = 0x01, 0x41, 0x0A
OPEN, DATA, END, RESET, CREDIT, PING, PONG = 1, 3, 4, 5, 6, 8, 9
GOING_AWAY, DATAGRAMS, LISTEN, UNLISTEN, ENTRANCE = 0x0A, 0x0C, 0x0D, 0x0F, 0x11
TEXT = b"20260102-030405.060708 hostile\0"
# An entrance port of the floods' exit, whose server refuses.
REFUSED_PORT = 7000
FRAMES_AT_ONCE = 4000
SLOTS = 500


def packet(kind, payload=b"", sender=0xFF, receiver=0xFF):
    return struct.pack(">BBHHH", 3, kind, sender, receiver, len(payload)) + payload


def frame(kind, number=0, payload=b"", flags=None):
    flags = (SENDERS if number else 0) if flags is None else flags
    return struct.pack(">BBHII", MAGIC, kind, flags, number, len(payload)) + payload


def address(port):
    return struct.pack(">BBH", 4, 0, port) + socket.inet_aton("127.0.0.1") + bytes(12)


def opening(number, entrance, transport=0, first=b""):
    head = bytes([transport, 0, 0, 0]) + address(40000) + address(entrance)
    return frame(OPEN, number, head + first, SENDERS)


def number_of(count):
    """The number of the stream that is opened as this one: slots are used in turn."""
    return (count // SLOTS & 0xFFF) << 20 | count % SLOTS


def offer(newest):
    return b"SMXU" + bytes([newest, 1 | 2 | 8 | 16, 0, 0]) + struct.pack(">II", 1 << 20, 16000)


def join(port, newest=1, patience=20):
    """A connection whose hello is complete; what the receptor goes on to say is not read."""
    peer = socket.create_connection(("127.0.0.1", port), patience)
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    said = packet(HELLO, TEXT + offer(newest)) + 2 * packet(HELLO_OK, TEXT)
    peer.sendall(said)
    heard = 0
    buffer = b""
    while heard < 3:
        got = peer.recv(65536)
        if not got:
            raise OSError("closed before the hello")
        buffer += got
        while heard < 3 and len(buffer) >= 8:
            length = 8 + struct.unpack_from(">H", buffer, 6)[0]
            if len(buffer) < length:
                break
            buffer = buffer[length:]
            heard += 1
    return peer


def discard(peer):
    """Reads and drops whatever comes, in a thread."""

    def run():
        poll = select.poll()
        poll.register(peer, select.POLLIN)
        try:
            while True:
                poll.poll()
                if not peer.recv(1 << 20, socket.MSG_DONTWAIT):
                    return
        except OSError:
            return

    threading.Thread(target=run, daemon=True).start()


# What is sent again and again, by name: frames in it, and its bytes.
def repeated(one, count=FRAMES_AT_ONCE):
    return count, one * count


def opens(transport=0, with_reset=False):
    """Streams opened, and reset at once if told to, all slots often enough that numbers differ."""
    pairs = 16 * SLOTS
    out = []
    for count in range(pairs):
        out.append(opening(number_of(count), REFUSED_PORT, transport))
        if with_reset:
            out.append(frame(RESET, number_of(count), b"\0\1", SENDERS))
    return len(out), b"".join(out)


FLOODS = {
    "pings": lambda: repeated(frame(PING, payload=b"12345678")),
    "pongs": lambda: repeated(frame(PONG, payload=b"x")),
    "data of nobody": lambda: repeated(frame(DATA, 5, b"x")),
    "credit for nobody": lambda: repeated(frame(CREDIT, 5, b"\0\0\0\1")),
    "ends of nobody": lambda: repeated(frame(END, 5)),
    "resets of nobody": lambda: repeated(frame(RESET, 5, b"\0\1")),
    "ports not needed": lambda: repeated(frame(UNLISTEN, 5, b"\0\0\0\1")),
    "entrances not permitted": lambda: repeated(frame(ENTRANCE, 0, bytes(8) + address(8022))),
    "datagrams of nobody": lambda: repeated(frame(DATAGRAMS, 5, b"\0\1x")),
    "opens and resets": lambda: opens(with_reset=True),
    "opens of datagrams, and resets": lambda: opens(transport=1, with_reset=True),
    "0.3: options": lambda: repeated(packet(SET_OPTION, b"\3\x40\0")),
    "0.3: packets of no kind": lambda: repeated(packet(0x77, sender=3, receiver=3)),
}


def flood(port, name, until):
    """Sends as fast as it is read: frames sent."""
    count, blob = FLOODS[name]()
    newest = 0 if name.startswith("0.3") else 1
    sent = 0
    while time.monotonic() < until:
        try:
            peer = join(port, newest)
            discard(peer)
            while time.monotonic() < until:
                peer.sendall(blob)
                sent += count
        except OSError:
            # Some of these end the tunnel, when numbers come again.
            continue
    return sent


def one_byte_data(port, until):
    """Data of one byte a frame, of a stream that exists and is echoed, as far as windows allow."""
    sent = 0
    while time.monotonic() < until:
        try:
            peer = join(port)
            discard(peer)
            peer.sendall(opening(1, 1))
            blob = frame(DATA, 1, b"x", SENDERS) * 2000
            while time.monotonic() < until:
                peer.sendall(blob)
                sent += 2000
        except OSError:
            # The window was overrun: the tunnel is over.
            continue
    return sent


def storm(port, kind, until):
    """What ends the tunnel at once, over and over: connections made."""
    made = 0
    ends = {
        "a wrong byte": b"\xff" * 12,
        "ids out of range": opening(0xFFFFF, REFUSED_PORT),
        "lengths out of range": struct.pack(">BBHII", MAGIC, DATA, SENDERS, 5, 0xFFFFFFFF),
        "going away twice": 2 * frame(GOING_AWAY, payload=b"bye"),
        "ports without end": opening(1, 1)
        + b"".join(frame(LISTEN, 1, struct.pack(">IBBH", n, 0, 0, 0), 0) for n in range(64)),
    }[kind]
    while time.monotonic() < until:
        try:
            with join(port) as peer:
                peer.sendall(ends)
                made += 1
        except OSError:
            continue
    return made


def strangers(port, said, until, held=0):
    """Connects, says this, and goes; or keeps so many connections: connections made."""
    made = 0
    kept = []
    while time.monotonic() < until:
        try:
            one = socket.create_connection(("127.0.0.1", port), 5)
            if said:
                one.send(said)
            made += 1
        except OSError:
            continue
        kept.append(one)
        if len(kept) > held:
            kept.pop(0).close()
    return made


HALF_A_HELLO = packet(HELLO, TEXT + offer(1))
STRANGERS = {
    "strangers: silent, 1,500 held": lambda port, until: strangers(port, b"", until, 1_500),
    "strangers: come and go": lambda port, until: strangers(port, b"", until),
    "strangers: garbage": lambda port, until: strangers(port, b"\xff", until),
    "strangers: half a hello, 1,500 held": lambda port, until: strangers(
        port, HALF_A_HELLO, until, 1_500
    ),
}
STORMS = (
    "a wrong byte",
    "ids out of range",
    "lengths out of range",
    "going away twice",
    "ports without end",
)

# Everything by name: what it is called with, port and end, returns a count.
ATTACKS = {
    **STRANGERS,
    **{name: lambda port, until, name=name: flood(port, name, until) for name in FLOODS},
    "data of one byte": one_byte_data,
    **{name: lambda port, until, name=name: storm(port, name, until) for name in STORMS},
}

if __name__ == "__main__":
    # NAME PORT SECS: prints how much it did.
    attack, port, secs = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    print(ATTACKS[attack](port, time.monotonic() + secs), flush=True)
    # Threads that still read do not keep it.
    os._exit(0)
