"""The two relays of `perf/soak` on two hosts with a cable between them: how they are started, with the servers
behind their exits, what they hold, and their links."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import hosts
import processes
import soak_programs

HERE = Path(__file__).resolve().parent
LINK_SECS = 100  # longest wait for a link: that of a peer that is silent is given up after 90
FLOW_SECS = 10  # a silent flow is gone after this
# What measures must not wait for the rest of the traffic.
FIRST = ["nice", "-n", "-10"]
ESTABLISHED = "01"
PIDFD_GETFD = 438


def secure(binary, scratch):
    """Makes keys for both ends. The words of receptor and connector."""
    files = [os.path.join(scratch, f"{name}.key") for name in ("receptor", "connector")]
    own = [
        subprocess.run([binary, "keygen", file], check=True, capture_output=True, text=True).stdout.strip()
        for file in files
    ]
    return [f"TLSCONF=key:{files[0]},peer:{own[1]}"], [f"TLSCONF=key:{files[1]},peer:{own[0]}"]


class Side:
    """A host: the relay on it, servers for the other's clients, and entrances for its own."""

    def __init__(self, name, host, scratch):
        self.name, self.host, self.scratch = name, host, scratch
        self.servers, self.entrances, self.relay = {}, {}, None
        self.log = os.path.join(scratch, f"{name}.log")

    def start_servers(self, names):
        """One process for each name, so that none waits for another's turn."""
        for name in names:
            port, datagram_port = processes.free_port(), processes.free_port(socket.SOCK_DGRAM)
            command = [sys.executable, str(HERE / "soak_servers.py"), str(port), str(datagram_port)]
            if name == "ping":
                command = [*FIRST, *command]
            processes.Process(f"{name} server", command, port, [datagram_port], self.host)
            self.servers[name], self.servers["udp"] = port, datagram_port

    def exits(self, other):
        """The words for what the other side's entrances lead to here."""
        words = []
        for name, entrance in other.entrances.items():
            if name == "socks":
                words += [f"SERVER=socks,-in:-:-P{entrance}", f"PERMIT=socks:{self.host.address}:*"]
            else:
                kind = "/udp" if name == "udp" else ""
                words.append(f"DEST=127.0.0.1:{self.servers[name]}{kind}:-P{entrance}")
        return words

    def own_entrances(self):
        return [f"PORT=127.0.0.1:{port}{'/udp' if name == 'udp' else ''}" for name, port in self.entrances.items()]

    def start(self, words, ports):
        """Starts the relay; again, if its port is not free at once."""
        shell = ["sh", "-c", 'log=$1; shift; exec "$@" 2>>"$log"', "sh", self.log, *words]
        deadline = time.monotonic() + processes.READY_SECS
        while True:
            try:
                self.relay = processes.Process(self.name, shell, ports, host=self.host)
                return
            except processes.CannotStart:
                if time.monotonic() > deadline:
                    raise

    @property
    def pid(self):
        return self.relay.child.pid

    def kill(self):
        self.relay.child.send_signal(signal.SIGKILL)
        self.relay.child.wait()
        self.relay.stop()

    def open_files(self):
        """{descriptor: what it is}; none of a process that has ended."""
        found = {}
        try:
            for descriptor in os.listdir(f"/proc/{self.pid}/fd"):
                try:
                    found[int(descriptor)] = os.readlink(f"/proc/{self.pid}/fd/{descriptor}")
                except OSError:
                    # Closed meanwhile.
                    pass
        except OSError:
            pass
        return found

    def holds(self):
        """Resident memory, and descriptors: all, sockets, pipes."""
        files = self.open_files().values()
        return {
            "mib": processes.read_resident_kib(self.pid) / 1024,
            "descriptors": len(files),
            "sockets": sum(file.startswith("socket:") for file in files),
            "pipes": sum(file.startswith("pipe:") for file in files) // 2,
        }

    def check(self):
        """Nobody but us ends a relay."""
        if (status := self.relay.child.poll()) is not None:
            said = Path(self.log).read_text().splitlines()[-3:]
            raise processes.CannotStart(f"the {self.name} has ended with status {status}: {' | '.join(said)}")

    def link_sockets(self, port):
        """Its established links: {descriptor: the connector's port}."""
        inodes = {}
        with open(f"/proc/{self.pid}/net/tcp") as table:
            for row in [line.split() for line in table][1:]:
                own, peer = (int(address.rsplit(":", 1)[1], 16) for address in row[1:3])
                if row[3] == ESTABLISHED and port in (own, peer):
                    inodes[f"socket:[{row[9]}]"] = peer if own == port else own
        return {fd: inodes[file] for fd, file in self.open_files().items() if file in inodes}

    def borrow(self, descriptor):
        """A descriptor of ours for a socket of the relay."""
        libc = ctypes.CDLL(None, use_errno=True)
        process = os.pidfd_open(self.pid)
        try:
            own = libc.syscall(PIDFD_GETFD, process, descriptor, 0)
        finally:
            os.close(process)
        if own < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return socket.socket(fileno=own)


class Ends:
    """Both sides. Clients of each are served at the other."""

    def __init__(self, options, scratch):
        self.options = options
        self.pair = hosts.Pair()
        try:
            # The receptor is on the far host.
            self.near, self.far = Side("connector", self.pair.near, scratch), Side("receptor", self.pair.far, scratch)
            self.sides = [self.near, self.far]
            self.far.start_servers(["bulk", "small", "ping"])
            self.near.start_servers(["bulk", "small", "ping"])
            programs, self.missing = soak_programs.start(self.far.host, scratch)
            self.far.servers |= programs
            both = ["bulk", "small", "ping", "udp"]
            for side, names in ((self.near, [*both, "socks", *programs]), (self.far, both)):
                side.entrances = {
                    name: processes.free_port(socket.SOCK_DGRAM if name == "udp" else socket.SOCK_STREAM)
                    for name in names
                }
            self.link = processes.free_port()
            self.words = self._words(scratch)
            for side in (self.far, self.near):
                self.start(side)
            self.await_link()
        except BaseException:
            self.close()
            raise

    def _words(self, scratch):
        """The whole command line of each side."""
        options = self.options
        own = {"plain": ([], []), "copied": (["SOXCONF=bulk:copy"], ["SOXCONF=bulk:copy"])}
        receptor, connector = own.get(options.link) or secure(options.binary, scratch)
        timeouts = f"TIMEOUT=udp:{FLOW_SECS}" + (f",resume:{options.resume}" if options.knows_resume else "")
        both = ["--engine", options.engine, timeouts, *options.words]
        words = {}
        for side, other, link, more in (
            (self.far, self.near, f"-P{self.far.host.address}:{self.link}", receptor),
            (self.near, self.far, f"SERVER=sockmux://{self.far.host.address}:{self.link}", connector),
        ):
            words[side.name] = [options.binary, *both, link, *side.own_entrances(), *side.exits(other), *more]
        return words

    def start(self, side):
        ports = [port for name, port in side.entrances.items() if name != "udp"]
        side.start(self.words[side.name], ports + ([self.link] if side is self.far else []))

    def links(self):
        """The connector's ports of links that both ends have."""
        at_near, at_far = (set(side.link_sockets(self.link).values()) for side in self.sides)
        return at_near & at_far

    def await_link(self, other_than=()):
        """Waits for a link, and one that is none of these."""
        deadline = time.monotonic() + LINK_SECS
        while not self.links() - set(other_than):
            for side in self.sides:
                side.check()
            if time.monotonic() > deadline:
                raise processes.CannotStart(f"no link within {LINK_SECS} s")
            time.sleep(0.005)

    def close(self):
        processes.stop_all()
        self.pair.close()
