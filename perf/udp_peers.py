"""The ways for datagrams from a client to a server that `perf/udp` compares.

Each carries one UDP port. A step gets the ends of the way and the settings, and returns what it
started, the side of the server first."""

import socket
import time

import relays
from peers import DIRECT, FIRST_ANSWER_SECS, LOOPBACK, OURS, Way
from processes import CannotStart, Process, free_port

PROBE = b"is anybody there?"
# More than all pings of a way that does not carry yet.
PROBE_SECS = 0.05


class Ends:
    """The three ports of a way: of the server, of the entrance where it begins, and the one that
    the client has to send from, which some programs must be told."""

    def __init__(self, server, client):
        self.server = server
        self.client = client
        self.entrance = free_port(socket.SOCK_DGRAM)


class UdpPeer:
    """`key` is for the command line, `name` for people; `step` is None for direct."""

    def __init__(self, key, name, step, is_ours=False):
        self.key = key
        self.name = name
        self.step = step
        self.is_ours = is_ours

    def start(self, server, settings):
        """Starts the relays and waits until an answer of the server, which must echo, comes through
        them."""
        ends = Ends(server, free_port(socket.SOCK_DGRAM))
        way = Way({}, self.step(ends, settings) if self.step else [])
        way.entrance = ends.entrance if self.step else server
        way.client = ends.client
        try:
            await_answer(self.name, way)
        except CannotStart:
            way.stop()
            raise
        return way


def known(settings):
    """All peers, direct first. Variants and other builds of ours come from the command line."""
    peers = [
        UdpPeer(DIRECT, "direct", None),
        UdpPeer(OURS, "sockmux-uring", ours(settings.binary, []), is_ours=True),
        UdpPeer("udp-over-tcp", "udp-over-tcp", udp_over_tcp),
        UdpPeer("rathole", "rathole", rathole),
        UdpPeer("penguin", "rusty-penguin", penguin),
    ]
    for name, words in settings.variants:
        peers.append(UdpPeer(name, name, ours(settings.binary, words), is_ours=True))
    for name, binary in settings.binaries:
        peers.append(UdpPeer(name, name, ours(binary, []), is_ours=True))
    return peers


def await_answer(name, way):
    """A tunnel's entrance may take datagrams before its link stands, and lose them."""
    deadline = time.monotonic() + FIRST_ANSWER_SECS
    with socket.socket(type=socket.SOCK_DGRAM) as client:
        client.bind((LOOPBACK, way.client))
        client.connect((LOOPBACK, way.entrance))
        client.settimeout(PROBE_SECS)
        while True:
            try:
                client.send(PROBE)
                if client.recv(64) == PROBE:
                    break
                problem = "another answer came"
            except OSError as error:
                problem = str(error)
            if time.monotonic() > deadline:
                raise CannotStart(f"{name}: no answer comes through: {problem}{way.last_words()}")
        # Answers to probes that were held back meanwhile are none of what is measured.
        try:
            while client.recv(64):
                pass
        except OSError:
            pass


def ours(binary, words):
    """A step that starts both ends of `binary`, each with `words` beside what it needs. The
    entrance is at the end that takes the tunnel."""

    def step(ends, _settings):
        link = free_port()
        entrance = [binary, f"-P{LOOPBACK}:{link}", f"PORT={LOOPBACK}:{ends.entrance}/udp"]
        exit_ = [binary, f"SERVER=sockmux://{LOOPBACK}:{link}"]
        exit_ += [f"DEST={LOOPBACK}:{ends.server}/udp"]
        started = begin([], "receptor", [*entrance, *words], [link], [ends.entrance])
        return started + begin(started, "connector", [*exit_, *words], [])

    return step


def udp_over_tcp(ends, _settings):
    """It has one client, whose address it is told."""
    program = relays.find("udp-over-tcp", None)
    link, exit_port = free_port(), free_port(socket.SOCK_DGRAM)
    at_server = [program, "--tcp-listen", f"{LOOPBACK}:{link}"]
    at_server += ["--udp-bind", f"{LOOPBACK}:{exit_port}"]
    at_server += ["--udp-sendto", f"{LOOPBACK}:{ends.server}"]
    at_client = [program, "--tcp-connect", f"{LOOPBACK}:{link}"]
    at_client += ["--udp-bind", f"{LOOPBACK}:{ends.entrance}"]
    at_client += ["--udp-sendto", f"{LOOPBACK}:{ends.client}"]
    started = begin([], "udp-over-tcp, server's side", at_server, [link], [exit_port])
    return started + begin(started, "udp-over-tcp, client's side", at_client, [], [ends.entrance])


def rathole(ends, settings):
    program = relays.find("rathole", None)
    link = free_port()
    token = 'default_token = "perf"'
    lines = {
        "server": [
            "[server]", f'bind_addr = "{LOOPBACK}:{link}"', token,
            "[server.services.udp]", 'type = "udp"', f'bind_addr = "{LOOPBACK}:{ends.entrance}"',
        ],
        "client": [
            "[client]", f'remote_addr = "{LOOPBACK}:{link}"', token,
            "[client.services.udp]", 'type = "udp"', f'local_addr = "{LOOPBACK}:{ends.server}"',
        ],
    }
    configs = {
        end: relays.write(settings, f"rathole-{end}", {"udp": ends.entrance}, lines[end])
        for end in lines
    }
    started = begin([], "rathole server", [program, "--server", configs["server"]], [link])
    client = [program, "--client", configs["client"]]
    # The server opens the entrance when the client has told it to.
    return started + begin(started, "rathole client", client, [], [ends.entrance])


def penguin(ends, _settings):
    program = relays.find("penguin", None)
    link = free_port()
    server = [program, "-q", "server", "--host", LOOPBACK, "--port", str(link)]
    started = begin([], "penguin server", server, [link])
    client = [program, "-q", "client", f"ws://{LOOPBACK}:{link}/ws"]
    client.append(f"{LOOPBACK}:{ends.entrance}:{LOOPBACK}:{ends.server}/udp")
    return started + begin(started, "penguin client", client, [], [ends.entrance])


def begin(before, name, command, ports, udp_ports=()):
    """Starts one process; if it does not come up, those that were started before it are ended."""
    try:
        return [Process(name, command, ports, udp_ports)]
    except CannotStart:
        for process in reversed(before):
            process.stop()
        raise
