"""Clients of the script's own: one that asks without a pause, and one that opens and waits."""

import errno
import select
import socket
import struct
import time

from servers import REDIS_KEY, VALUE_BYTES

GET = f"GET {REDIS_KEY}\r\n".encode()
ANSWER_BYTES = len(f"${VALUE_BYTES}\r\n") + VALUE_BYTES + 2
ANSWER_SECS = 20  # longest wait for one answer
# Connections that are being opened at once: fewer than any relay's queue of new ones.
OPENING_MAX = 200


def closed_loop(address, warmup_secs, go_on):
    """Asks with one GET after the other while `go_on()`: seconds that each answer took, without
    those of the first `warmup_secs`."""
    taken = []
    with socket.create_connection(address, timeout=ANSWER_SECS) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        warm = time.perf_counter() + warmup_secs
        while go_on():
            for _ in range(16):
                asked = time.perf_counter()
                client.sendall(GET)
                missing = ANSWER_BYTES
                while missing:
                    got = len(client.recv(missing))
                    if not got:
                        raise RuntimeError("the connection ended in the middle of an answer")
                    missing -= got
                answered = time.perf_counter()
                if asked > warm:
                    taken.append(answered - asked)
    return taken


class IdleConnections:
    """`count` connections that have had one answer each and then say nothing."""

    def __init__(self, address, count):
        self.sockets = []
        self.poller = select.epoll()
        self.opening = {}
        started = time.perf_counter()
        try:
            while self.opening or len(self.sockets) < count:
                while len(self.opening) < OPENING_MAX and len(self.sockets) < count:
                    self._open(address)
                self._step()
        except BaseException:
            self.close()
            raise
        self.secs = time.perf_counter() - started

    def _open(self, address):
        client = socket.socket()
        client.setblocking(False)
        self.sockets.append(client)
        status = client.connect_ex(address)
        if status not in (0, errno.EINPROGRESS):
            raise OSError(status, f"connection {len(self.sockets)}: {errno.errorcode[status]}")
        self.opening[client.fileno()] = client
        self.poller.register(client.fileno(), select.EPOLLOUT)

    def _step(self):
        events = self.poller.poll(ANSWER_SECS)
        if not events:
            done = len(self.sockets) - len(self.opening)
            raise RuntimeError(f"no answer for {ANSWER_SECS} s after {done} connections")
        for number, event in events:
            client = self.opening[number]
            if event & select.EPOLLOUT:
                client.send(b"PING\r\n")
                self.poller.modify(number, select.EPOLLIN)
            elif client.recv(64) == b"+PONG\r\n":
                self.poller.unregister(number)
                del self.opening[number]
            else:
                raise RuntimeError(f"connection {len(self.sockets)} was not answered")

    def close(self):
        for client in self.sockets:
            # By reset: thousands in TIME-WAIT would be in the way of what is measured next.
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
        self.poller.close()
