"""Strangers and hostile peers for `perf/hostile`: each is a process of its own, and does one thing as fast
as it can. Standard library only."""

import itertools
import os
import select
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time

MAGIC = 0xB1
SENDERS = 1
HELLO, HELLO_OK, SET_OPTION = 0x01, 0x41, 0x0A
OPEN, DATA, END, RESET, CREDIT, PING, PONG = 1, 3, 4, 5, 6, 8, 9
GOING_AWAY, DATAGRAMS, LISTEN, UNLISTEN, ENTRANCE = 0x0A, 0x0C, 0x0D, 0x0F, 0x11
TEXT = b"20260102-030405.060708 hostile\0"
# Entrance ports of exits of the receptor: one whose server refuses, and one of datagrams.
REFUSED_PORT, DATAGRAM_PORT = 7000, 7001
FRAMES_AT_ONCE = 4000
PIECE_BYTES = 64 << 10
SLOTS = 500
# All that a peer may have open at once.
STREAMS_MAX = 16_000
# Where the receptor is encrypted: the file of a key that it lets in, with `.pem` behind it that of a certificate.
KEY = os.environ.get("HOSTILE_KEY")


class Secured:
    """A connection in TLS, by openssl: what a socket does, as far as peers need it."""

    def __init__(self, port):
        words = ["s_client", "-quiet", "-tls1_3", "-alpn", "sockmux", "-connect", f"127.0.0.1:{port}"]
        pipe = subprocess.PIPE
        self.child = subprocess.Popen(
            ["openssl", *words, "-key", KEY, "-cert", f"{KEY}.pem"],
            stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL,
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.child.kill()
        self.child.communicate()

    def __del__(self):
        self.__exit__()

    def sendall(self, said):
        self.child.stdin.write(said)
        self.child.stdin.flush()

    def recv(self, most, _flags=0):
        return os.read(self.fileno(), most)

    def fileno(self):
        return self.child.stdout.fileno()

    def settimeout(self, secs):
        """What does not answer ends by itself."""


class Goal:
    """When an attack is over: after so many seconds, or when so much is done."""

    def __init__(self, unit, most):
        self.most = most
        self.until = time.monotonic() + most if unit == "secs" else None

    def is_over(self, done):
        if self.until is None:
            return done >= self.most
        return time.monotonic() >= self.until


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
    if KEY:
        peer = Secured(port)
    else:
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


def opens(entrance=REFUSED_PORT):
    """As many streams as there may be."""
    transport = int(entrance == DATAGRAM_PORT)
    return STREAMS_MAX, b"".join(
        opening(number, entrance, transport) for number in range(STREAMS_MAX)
    )


def opens_and_resets(entrance=REFUSED_PORT):
    """Streams opened and reset at once, all slots often enough that numbers differ."""
    transport, out = int(entrance == DATAGRAM_PORT), []
    for count in range(16 * SLOTS):
        out.append(opening(number_of(count), entrance, transport))
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
    "opens": opens,
    "opens of datagrams": lambda: opens(DATAGRAM_PORT),
    "opens and resets": opens_and_resets,
    "opens of datagrams, and resets": lambda: opens_and_resets(DATAGRAM_PORT),
    "0.3: options": lambda: repeated(packet(SET_OPTION, b"\3\x40\0")),
    "0.3: packets of no kind": lambda: repeated(packet(0x77, sender=3, receiver=3)),
}


def flood(port, name, goal):
    """Sends as fast as it is read: frames sent."""
    count, blob = FLOODS[name]()
    # In pieces: where frames cost much, all of it may take long.
    blob = memoryview(blob)
    pieces = [blob[at : at + PIECE_BYTES] for at in range(0, len(blob), PIECE_BYTES)]
    newest = 0 if name.startswith("0.3") else 1
    sent = 0
    while not goal.is_over(sent):
        try:
            peer = join(port, newest)
            discard(peer)
            for number in itertools.count():
                if goal.is_over(sent):
                    break
                peer.sendall(pieces[number % len(pieces)])
                sent += count // len(pieces)
        except OSError:
            # Some of these end the tunnel, when numbers come again.
            continue
    return sent


def one_byte_data(port, goal):
    """Data of one byte a frame, of a stream that exists and is echoed, as far as windows allow."""
    sent = 0
    while not goal.is_over(sent):
        try:
            peer = join(port)
            discard(peer)
            peer.sendall(opening(1, 1))
            blob = frame(DATA, 1, b"x", SENDERS) * 2000
            while not goal.is_over(sent):
                peer.sendall(blob)
                sent += 2000
        except OSError:
            # The window was overrun: the tunnel is over.
            continue
    return sent


def await_open(peer):
    """The number of the next stream that the receptor opens."""
    peer.settimeout(1)
    buffer = b""
    while True:
        got = peer.recv(65536)
        if not got:
            raise OSError("closed")
        buffer += got
        while len(buffer) >= 12 and len(buffer) >= 12 + struct.unpack_from(">I", buffer, 8)[0]:
            _, kind, _, number, length = struct.unpack_from(">BBHII", buffer)
            if kind == OPEN:
                peer.settimeout(20)
                return number
            buffer = buffer[12 + length :]


def listens(port, goal):
    """Ports asked for and given back, for a client that this peer has got: frames sent."""
    sent = 0
    while not goal.is_over(sent):
        try:
            peer = join(port)
            with socket.create_connection(("127.0.0.1", ENTRANCE_PORT), 5) as client:
                client.sendall(b"x")
                # None comes where a peer that came later has got it.
                number = await_open(peer)
                discard(peer)
                blob = b"".join(
                    frame(LISTEN, number, struct.pack(">IBBH", request, 0, 0, 0), 0)
                    + frame(UNLISTEN, number, struct.pack(">I", request), 0)
                    for request in range(FRAMES_AT_ONCE // 2)
                )
                while not goal.is_over(sent):
                    peer.sendall(blob)
                    sent += FRAMES_AT_ONCE
        except OSError:
            continue
    return sent


def storm(port, kind, goal):
    """What ends the tunnel at once, over and over: connections made."""
    made = 0
    ends = {
        "a wrong byte": b"\xff" * 12,
        "ids out of range": opening(0xFFFFF, REFUSED_PORT),
        "lengths out of range": struct.pack(">BBHII", MAGIC, DATA, SENDERS, 5, 0xFFFFFFFF),
        "going away twice": 2 * frame(GOING_AWAY, payload=b"bye"),
        "more than the window": opening(1, 1) + 40 * frame(DATA, 1, bytes(16384), SENDERS),
        "ports without end": opening(1, 1)
        + b"".join(frame(LISTEN, 1, struct.pack(">IBBH", n, 0, 0, 0), 0) for n in range(64)),
    }[kind]
    while not goal.is_over(made):
        try:
            with join(port) as peer:
                peer.sendall(ends)
                made += 1
        except OSError:
            continue
    return made


def strangers(port, said, goal, held=0):
    """Connects, says this, and goes; or keeps so many connections: connections made."""
    made = 0
    kept = []
    while not goal.is_over(made):
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


def tls_hello():
    """The first flight of a handshake."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    sent = ssl.MemoryBIO()
    try:
        context.wrap_bio(ssl.MemoryBIO(), sent).do_handshake()
    except ssl.SSLWantReadError:
        pass
    return sent.read()


HALF_A_HELLO = packet(HELLO, TEXT + offer(1))
STRANGERS = {
    "strangers: silent, 1,500 held": lambda port, goal: strangers(port, b"", goal, 1_500),
    "strangers: come and go": lambda port, goal: strangers(port, b"", goal),
    "strangers: garbage": lambda port, goal: strangers(port, b"\xff", goal),
    "strangers: half a hello, 1,500 held": lambda port, goal: strangers(
        port, HALF_A_HELLO, goal, 1_500
    ),
    "strangers: hello of TLS": lambda port, goal: strangers(port, tls_hello(), goal),
    "strangers: hello of TLS, 1,500 held": lambda port, goal: strangers(
        port, tls_hello(), goal, 1_500
    ),
}
STORMS = (
    "a wrong byte",
    "ids out of range",
    "lengths out of range",
    "going away twice",
    "more than the window",
    "ports without end",
)

# Everything by name: what it is called with, port and goal, returns a count.
ATTACKS = {
    **STRANGERS,
    **{name: lambda port, goal, name=name: flood(port, name, goal) for name in FLOODS},
    "data of one byte": one_byte_data,
    "ports opened and closed": listens,
    **{name: lambda port, goal, name=name: storm(port, name, goal) for name in STORMS},
}

# What an attack counts in, and its share of all that are done of that, by what one costs.
SHARES = {
    **dict.fromkeys(ATTACKS, ("frames", 1000)),
    **dict.fromkeys(STRANGERS, ("connections", 1000)),
    **dict.fromkeys(STORMS, ("connections", 100)),
    "data of nobody": ("frames", 3000),
    "pings": ("frames", 300),
    "0.3: options": ("frames", 300),
    "0.3: packets of no kind": ("frames", 300),
    "data of one byte": ("frames", 50),
    "opens": ("frames", 5),
    "opens of datagrams": ("frames", 5),
    "opens and resets": ("frames", 10),
    "opens of datagrams, and resets": ("frames", 10),
    "ports opened and closed": ("frames", 20),
}

if __name__ == "__main__":
    # NAME PORT ENTRANCE secs|count MOST: prints how much it did.
    attack, port, ENTRANCE_PORT = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    print(ATTACKS[attack](port, Goal(sys.argv[4], float(sys.argv[5]))), flush=True)
    # Threads that still read do not keep it.
    os._exit(0)
