#!/usr/bin/env python3
"""The servers behind the exits of `perf/soak`: one process with a TCP and a UDP port of 127.0.0.1 and of
the host's address. A client's first line says what it wants; see `serve`."""

import hashlib
import socket
import socketserver
import sys
import threading
import time

sys.dont_write_bytecode = True

from soak_content import Content

PIECE_BYTES = 256 << 10
# What is sent after a client's end of data: a line each so often.
LINE_SECS = 0.05
# Sums of what came by streams whose own way back was closed.
SUMS = {}


class Served(socketserver.StreamRequestHandler):
    def handle(self):
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            serve(self.connection, self.rfile)
        except (OSError, ValueError):
            # The client sees it, and its events say so.
            pass


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 1024

    def handle_error(self, request, client_address):
        pass


def serve(stream, lines):
    """up SEED: takes bytes to the end of data, and answers with their number, sum and first wrong one.
    down SEED COUNT: sends so many, then their sum. echo: gives back. late COUNT: after the end of data,
    a line now and then. early KEY: ends its direction first; the sum of what comes then is told to
    whoever asks sum KEY."""
    words = lines.readline().decode().split()
    if not words:
        return
    if words[0] == "up":
        content, buffer = Content(words[1]), bytearray(PIECE_BYTES)
        while got := lines.readinto1(buffer):
            content.check(memoryview(buffer)[:got])
        stream.sendall(f"{content.offset} {content.sum()} {content.first_wrong}\n".encode())
    elif words[0] == "down":
        content, left = Content(words[1]), int(words[2])
        while left:
            piece = content.next(min(left, PIECE_BYTES))
            stream.sendall(piece)
            left -= len(piece)
        stream.sendall(f"{content.sum()}\n".encode())
    elif words[0] == "echo":
        while got := lines.read1(65536):
            stream.sendall(got)
    elif words[0] == "late":
        while lines.read1(65536):
            pass
        for number in range(int(words[1])):
            stream.sendall(b"line %d\n" % number)
            time.sleep(LINE_SECS)
    elif words[0] == "early":
        stream.sendall(b"bye\n")
        stream.shutdown(socket.SHUT_WR)
        digest = hashlib.sha256()
        while got := lines.read1(65536):
            digest.update(got)
        SUMS[words[1]] = digest.hexdigest()
    elif words[0] == "sum":
        stream.sendall(f"{SUMS.pop(words[1], 'unknown')}\n".encode())


def echo_datagrams(port):
    with socket.socket(type=socket.SOCK_DGRAM) as own:
        own.bind(("127.0.0.1", port))
        while True:
            message, sender = own.recvfrom(65536)
            own.sendto(message, sender)


def main():
    port, datagram_port = (int(word) for word in sys.argv[1:])
    sys.setswitchinterval(0.001)
    threading.Thread(target=echo_datagrams, args=(datagram_port,), daemon=True).start()
    with Server(("0.0.0.0", port), Served) as server:
        server.serve_forever()


if __name__ == "__main__":
    main()
