"""A stream of a client of `perf/soak`: its thread, and what it tells of itself in lines of JSON."""

import json
import random
import socket
import threading
import time

OVER = threading.Event()
OUT = threading.Lock()


def tell(**event):
    with OUT:
        print(json.dumps(event), flush=True)


class Lost(Exception):
    """The stream has not done what it should, without a wrong byte."""


class Stream(threading.Thread):
    """Streams of one kind, one after the other, until it is over."""

    def __init__(self, kind, one, entrance, given, number):
        super().__init__(daemon=True)
        self.kind, self.one, self.entrance, self.given = kind, one, entrance, given
        self.random = random.Random(f"{given['seed']} {given['host']} {kind} {number}")
        self.key = f"{given['host']}-{kind}-{number}"
        self.moved, self.is_wrong, self.child = 0, None, None

    def run(self):
        while not OVER.is_set():
            self.moved, self.is_wrong = 0, None
            opened, error = time.monotonic(), None
            try:
                self.one(self)
            except (OSError, Lost) as broken:
                error = str(broken) or type(broken).__name__
            ended = time.monotonic()
            tell(kind=self.kind, key=self.key, opened=opened, ended=ended, error=error, bytes=self.moved, wrong=self.is_wrong)
            # A server that is not there must not be asked without a pause.
            OVER.wait(0.2 if error else 0)

    def connect(self, line, entrance=None):
        """A new stream whose server has been told what to do. Nothing in it waits for ever."""
        address = ("127.0.0.1", entrance or self.entrance)
        stream = socket.create_connection(address, self.given["patience"])
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream.sendall(line.encode() + b"\n")
        return stream

    def exactly(self, stream, count):
        got = b""
        while len(got) < count:
            piece = stream.recv(count - len(got))
            if not piece:
                raise Lost("end of data before its time")
            got += piece
        return got

    def answer(self, stream, message):
        """Sends it, and compares what comes back."""
        stream.sendall(message)
        got = self.exactly(stream, len(message))
        self.moved += 2 * len(message)
        if got != message:
            self.is_wrong = f"{got[:32].hex()} instead of {message[:32].hex()}"

    def size(self):
        return self.given["bulk_bytes"] or self.random.randrange(8 << 20, 256 << 20)

    def paced(self, began):
        """Waits while more has been moved than the rate allows."""
        if rate := self.given["bytes_per_sec"]:
            time.sleep(max(0, began + self.moved / rate - time.monotonic()))
