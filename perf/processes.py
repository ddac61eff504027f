"""Processes that a run starts: their processor time and memory, ports for them, and their end.
Standard library only."""

import collections
import os
import random
import signal
import socket
import subprocess
import tempfile
import time

TICKS_PER_SEC = os.sysconf("SC_CLK_TCK")
READY_SECS = 10  # longest wait for a program to listen
STOP_SECS = 5  # longest wait for it to end when asked, before it is killed
PAGE_KIB = os.sysconf("SC_PAGE_SIZE") // 1024

# What was started and has not been stopped, for `stop_all`.
RUNNING = []
# The ports that were given last: two programs that have not begun to listen get different ones.
GIVEN = collections.deque(maxlen=256)


class CannotStart(Exception):
    """A program that is needed did not come up; the message says which and why."""


def free_port(kind=socket.SOCK_STREAM):
    """A TCP port of 127.0.0.1, or one of the given kind, that nobody has now. It lies beside the
    range that outgoing connections take theirs from: thousands of those, or one that comes too
    soon, would be in the way of the program that is to listen there."""
    with open("/proc/sys/net/ipv4/ip_local_port_range") as file:
        low, high = (int(word) for word in file.read().split())
    below, above = range(10_000, low), range(high + 1, 65_536)
    ports = max(below, above, key=len) or range(low, high + 1)
    while True:
        port = random.choice(ports)
        if port in GIVEN:
            continue
        with socket.socket(type=kind) as probe:
            if kind == socket.SOCK_STREAM:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        GIVEN.append(port)
        return port


class Process:
    """One program that listens on `ports` (one or several) and takes datagrams at `udp_ports`, and
    whatever it forks. It runs on `host` (see hosts.py), if one is given."""

    def __init__(self, name, command, ports, udp_ports=(), host=None):
        self.name = name
        self.host = host
        self.log = tempfile.TemporaryFile()
        try:
            # A session of its own: Ctrl-C is for the script, which ends the rest in order.
            self.child = subprocess.Popen(
                host.enter(command) if host else command,
                stdin=subprocess.DEVNULL,
                stdout=self.log,
                stderr=self.log,
                start_new_session=True,
            )
        except OSError as error:
            self.log.close()
            raise CannotStart(f"{name}: {error.strerror}") from error
        RUNNING.append(self)
        self.await_listening([ports] if isinstance(ports, int) else list(ports), udp_ports)

    def await_listening(self, ports, udp_ports=()):
        """Waits until it listens; else ends it."""
        deadline = time.monotonic() + READY_SECS
        while not self._listens(ports, udp_ports):
            ended = self.child.poll() is not None
            if ended or time.monotonic() > deadline:
                how = f"ended with status {self.child.returncode}" if ended else "does not listen"
                said = self.last_words()
                self.stop()
                raise CannotStart(f"{self.name}: {how}{said}")
            time.sleep(0.01)

    def _listens(self, ports, udp_ports):
        pid = self.child.pid
        return all(listening(port, pid) for port in ports) and all(
            taking_datagrams(port, pid) for port in udp_ports
        )

    def last_words(self):
        """The end of what it printed."""
        if self.log.closed:
            return ""
        self.log.seek(0)
        lines = self.log.read().decode(errors="replace").strip().splitlines()
        return ": " + " | ".join(lines[-3:]) if lines else ""

    def pids(self):
        """Its own number and those of living descendants."""
        return [self.child.pid] + [child for child, _ in descendants(self.child.pid)]

    def cpu_secs(self):
        """User and system time so far, children included, alive or waited for."""
        return tree_cpu_secs(self.child.pid)

    def resident_kib(self):
        """Resident memory with that of living descendants. A page that two of them share counts
        twice, which matters for programs that fork for every connection."""
        return sum(read_resident_kib(pid) for pid in self.pids())

    def stop(self):
        """Ends it, and children that outlive it (one process per connection in socat)."""
        children = descendants(self.child.pid)
        if self.child.poll() is None:
            self.child.terminate()
            try:
                self.child.wait(STOP_SECS)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()
        for pid, started in children:
            # The start time tells our child from a stranger that got its number since.
            stat = read_stat(pid)
            if stat and stat["started"] == started:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
        self.log.close()
        if self in RUNNING:
            RUNNING.remove(self)


def stop_all():
    """Ends everything that is still running, the latest first."""
    for process in reversed(list(RUNNING)):
        process.stop()


def listening(port, pid="self"):
    """Whether a socket listens on `port`, on the host of a process. Connecting to find out would
    count as a client."""
    return any(state == "0A" and own == port for own, state in sockets("tcp", pid))


def taking_datagrams(port, pid="self"):
    """Whether a UDP socket has `port`, on the host of a process."""
    return any(own == port for own, _ in sockets("udp", pid))


def sockets(protocol, pid):
    """(port, state) of all sockets of IPv4 and IPv6."""
    for table in (f"/proc/{pid}/net/{protocol}", f"/proc/{pid}/net/{protocol}6"):
        try:
            with open(table) as lines:
                rows = [line.split() for line in lines][1:]
        except OSError:
            continue
        for row in rows:
            yield int(row[1].rsplit(":", 1)[1], 16), row[3]


def read_stat(pid):
    """What /proc/PID/stat says, or None when there is no such process."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            # The name, in parentheses, may hold spaces and parentheses of its own.
            fields = stat.read().rsplit(")", 1)[1].split()
    except (OSError, IndexError):
        return None
    ticks = sum(int(field) for field in fields[11:15])
    return {"parent": int(fields[1]), "cpu_secs": ticks / TICKS_PER_SEC, "started": fields[19]}


def read_resident_kib(pid):
    """Resident memory of one process; 0 when it is gone."""
    try:
        with open(f"/proc/{pid}/statm") as statm:
            return int(statm.read().split()[1]) * PAGE_KIB
    except (OSError, IndexError):
        return 0


def descendants(pid):
    """(pid, start time) of all living descendants."""
    parents = {}
    for entry in os.listdir("/proc"):
        stat = read_stat(entry) if entry.isdigit() else None
        if stat:
            parents.setdefault(stat["parent"], []).append((int(entry), stat["started"]))
    found, queue = [], [pid]
    while queue:
        children = parents.get(queue.pop(), [])
        found += children
        queue += [child for child, _ in children]
    return found


def tree_cpu_secs(pid):
    """Processor time of a process, its living descendants and its children that were waited
    for."""
    stats = [read_stat(one) for one in [pid] + [child for child, _ in descendants(pid)]]
    return sum(stat["cpu_secs"] for stat in stats if stat)


class Client:
    """A client that runs to its end. Raises RuntimeError with what it said when it fails."""

    def __init__(self, command):
        self.name = command[0]
        self.out, self.err = tempfile.TemporaryFile(), tempfile.TemporaryFile()
        self.child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=self.out, stderr=self.err
        )
        self.cpu_secs = None

    def running(self):
        if self.cpu_secs is None:
            pid, status, usage = os.wait4(self.child.pid, os.WNOHANG)
            if pid:
                self.child.returncode = os.waitstatus_to_exitcode(status)
                self.cpu_secs = usage.ru_utime + usage.ru_stime
        return self.cpu_secs is None

    def kill(self):
        if self.running():
            self.child.kill()
            self.child.wait()
            self.cpu_secs = 0.0

    def result(self, timeout_secs):
        """Waits for the end: (standard output, processor seconds)."""
        deadline = time.monotonic() + timeout_secs
        try:
            while self.running():
                if time.monotonic() > deadline:
                    raise RuntimeError(f"{self.name} did not end in {timeout_secs} s")
                time.sleep(0.005)
            text, said = self._read(self.out), self._read(self.err)
        finally:
            self.kill()
            self.out.close()
            self.err.close()
        if self.child.returncode != 0:
            said = (said.strip() or text.strip())[-300:]
            raise RuntimeError(f"{self.name} ended with status {self.child.returncode}: {said}")
        return text, self.cpu_secs

    @staticmethod
    def _read(file):
        file.seek(0)
        return file.read().decode(errors="replace")


def run_client(command, timeout_secs):
    """Runs a client to its end: (standard output, processor seconds)."""
    return Client(command).result(timeout_secs)
