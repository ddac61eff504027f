"""The ways from a client to a server that are compared.

A peer is a list of steps (see relays.py), from the servers' side on; each step's entrances are what
the next one connects to. Every way carries both servers, so that different work can share it. To
compare with one more program, write its step and add it to `known`."""

import socket
import time

import congestion
import hosts
import relays
from processes import CannotStart, free_port

LOOPBACK = hosts.LOOPBACK
FIRST_ANSWER_SECS = 10  # longest wait for the first answer through a way
DIRECT = "direct"
OURS = "ours"


class Way:
    """Where clients connect for each server (`ports` of `address`), and the relays on the way.
    `congestion` is what their connections use, as far as the kernel told."""

    def __init__(self, ports, started, address=LOOPBACK):
        self.ports = ports
        self.address = address
        self.relays = started
        self.congestion = []

    def cpu_secs(self):
        return sum(relay.cpu_secs() for relay in self.relays)

    def resident_kib(self):
        return sum(relay.resident_kib() for relay in self.relays)

    def last_words(self):
        return "".join(relay.last_words() for relay in self.relays)

    def stop(self):
        """The entrance first: it is the client of the other."""
        for relay in reversed(self.relays):
            relay.stop()


class Peer:
    """`key` is for the command line, `name` for people. `connections_max` is how many idle
    connections it is given at most, None for any number."""

    def __init__(self, key, name, *steps, is_ours=False, connections_max=None):
        self.key = key
        self.name = name
        self.steps = steps
        self.is_ours = is_ours
        self.connections_max = connections_max
        # What its relays' connections were seen to use.
        self.congestion = []

    def start(self, server_ports, settings):
        """Starts the relays and waits until an answer comes through them."""
        near, far, server = settings.hosts.near, settings.hosts.far, settings.hosts.server
        way = Way(dict(server_ports), [], server.address)
        targets = {name: f"{server.address}:{port}" for name, port in server_ports.items()}
        places = [(near, far)] if len(self.steps) == 1 else [(far, far), (near, near)]
        try:
            for step, place in zip(self.steps, places):
                ports = {name: free_port() for name in server_ports}
                hop = relays.Hop(targets, ports, *place)
                way.relays += step(hop, settings)
                way.ports, way.address, targets = ports, hop.near.address, hop.entrances()
            if "redis" in way.ports:
                way.congestion = await_answer(self.name, way)
        except CannotStart:
            way.stop()
            raise
        return way


def known(settings):
    """All peers, direct first. Variants and other builds of ours come from the command line."""
    tunnel = relays.ours(settings.binary, [])
    plain = relays.ours_plain(settings.binary)
    peers = [
        Peer(DIRECT, "direct"),
        Peer(OURS, "sockmux-uring", tunnel, is_ours=True),
        Peer("plain", "sockmux-uring plain x2", plain, plain, is_ours=True),
        Peer("haproxy", "HAProxy x2, splice", relays.haproxy, relays.haproxy),
        # Two processes for every connection.
        Peer("socat", "socat x2", relays.socat, relays.socat, connections_max=1_000),
        Peer("nginx", "nginx stream x2", relays.nginx, relays.nginx),
        Peer("ssh", "OpenSSH -L", relays.ssh),
        Peer("stunnel", "stunnel x2", relays.stunnel_server, relays.stunnel_client),
        Peer("rathole", "rathole", relays.rathole),
        Peer("penguin", "rusty-penguin", relays.penguin),
    ]
    for name, words in settings.variants:
        peers.append(Peer(name, name, relays.ours(settings.binary, words), is_ours=True))
    for name, binary in settings.binaries:
        peers.append(Peer(name, name, relays.ours(binary, []), is_ours=True))
    return peers


def congestion_of(relay):
    """The congestion controls of a relay's connections, asked on its host."""
    with relay.host.inside():
        return congestion.of_processes(relay.pids())


def await_answer(name, way):
    """A tunnel's entrance may listen before its link stands, so listening is not enough. Returns
    the congestion controls of the relays' connections, while there is one through all of them."""
    deadline = time.monotonic() + FIRST_ANSWER_SECS
    while True:
        try:
            with socket.create_connection((way.address, way.ports["redis"]), timeout=2) as client:
                client.sendall(b"PING\r\n")
                if client.recv(64) == b"+PONG\r\n":
                    return sorted(set().union(*map(congestion_of, way.relays)))
            problem = "the connection was closed"
        except OSError as error:
            problem = str(error)
        if time.monotonic() > deadline:
            raise CannotStart(f"{name}: no answer comes through: {problem}{way.last_words()}")
        time.sleep(0.02)
