"""The ways from a client to a server that are compared: a table of (name, start function).

A start function gets the server's port and the settings, starts what it needs and returns a Way.
To compare with one more program, write its start function and add it to PEERS."""

import shutil

from processes import CannotStart, Process, free_port

LOOPBACK = "127.0.0.1"


class Way:
    """Where clients connect, and the relays on the way."""

    def __init__(self, port, relays):
        self.port = port
        self.relays = relays

    def cpu_secs(self):
        return sum(relay.cpu_secs() for relay in self.relays)

    def stop(self):
        """The entrance first: it is the client of the other."""
        for relay in reversed(self.relays):
            relay.stop()


def chain(*steps):
    """Starts relays from the server's side on. A step gets the port to connect to and its own;
    what was started is stopped again if a later step fails."""

    def start(server_port, settings):
        way = Way(server_port, [])
        try:
            for step in steps:
                port = free_port()
                name, command = step(way.port, port, settings)
                way.relays.append(Process(name, command, port))
                way.port = port
        except CannotStart:
            way.stop()
            raise
        return way

    return start


def socat(target, port, _settings):
    if not shutil.which("socat"):
        raise CannotStart("socat: not installed (Debian package socat)")
    return "socat", [
        "socat",
        "-b", "65536",
        # Its own queue of 5 makes fifty clients at once wait for SYNs to be sent again.
        f"TCP-LISTEN:{port},bind={LOOPBACK},fork,reuseaddr,nodelay,backlog=1024",
        f"TCP:{LOOPBACK}:{target},nodelay",
    ]


def receptor(target, port, settings):
    return "sockmux-uring receptor", [
        settings.binary, f"-P{LOOPBACK}:{port}", f"DEST={LOOPBACK}:{target}"
    ]


def connector(target, port, settings):
    return "sockmux-uring connector", [
        settings.binary, f"SERVER=sockmux://{LOOPBACK}:{target}", f"PORT={LOOPBACK}:{port}"
    ]


def connector_of_0_3(target, port, settings):
    name, command = connector(target, port, settings)
    return name, command + ["SOXCONF=protocol:0.3"]


OURS = "sockmux-uring"

# The first is what the others are compared with.
PEERS = [
    ("direct", chain()),
    ("socat x2", chain(socat, socat)),
    (OURS, chain(receptor, connector)),
    (f"{OURS} 0.3", chain(receptor, connector_of_0_3)),
]
