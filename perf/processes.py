"""Processes that a run starts, their processor time, and ports for them. Standard library only."""

import os
import signal
import socket
import subprocess
import tempfile
import time

TICKS_PER_SEC = os.sysconf("SC_CLK_TCK")
READY_SECS = 10  # longest wait for a program to listen
STOP_SECS = 5  # longest wait for it to end when asked, before it is killed


class CannotStart(Exception):
    """A program that is needed did not come up; the message says which and why."""


def free_port():
    """A TCP port of 127.0.0.1 that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Process:
    """One program that listens on `port`, and whatever it forks."""

    def __init__(self, name, command, port):
        self.name = name
        self.log = tempfile.TemporaryFile()
        try:
            self.child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log
            )
        except OSError as error:
            self.log.close()
            raise CannotStart(f"{name}: {error.strerror}") from error
        self._await_listening(port)

    def _await_listening(self, port):
        deadline = time.monotonic() + READY_SECS
        while not listening(port):
            ended = self.child.poll() is not None
            if ended or time.monotonic() > deadline:
                how = f"ended with status {self.child.returncode}" if ended else "does not listen"
                said = self.last_words()
                self.stop()
                raise CannotStart(f"{self.name}: {how}{said}")
            time.sleep(0.01)

    def last_words(self):
        """The end of what it printed."""
        self.log.seek(0)
        lines = self.log.read().decode(errors="replace").strip().splitlines()
        return ": " + " | ".join(lines[-3:]) if lines else ""

    def cpu_secs(self):
        """User and system time so far, children included, alive or waited for."""
        return tree_cpu_secs(self.child.pid)

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
        if not self.log.closed:
            self.log.close()


def listening(port):
    """Whether a socket listens on `port`. Connecting to find out would count as a client."""
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(table) as lines:
                rows = [line.split() for line in lines][1:]
        except OSError:
            continue
        if any(row[3] == "0A" and int(row[1].rsplit(":", 1)[1], 16) == port for row in rows):
            return True
    return False


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


def run_client(command, timeout_secs):
    """Runs a client to its end: (standard output, processor seconds). Raises RuntimeError with
    what it said when it fails."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
        deadline = time.monotonic() + timeout_secs
        while True:
            pid, status, usage = os.wait4(child.pid, os.WNOHANG)
            if pid:
                break
            if time.monotonic() > deadline:
                child.kill()
                os.wait4(child.pid, 0)
                child.returncode = -signal.SIGKILL
                raise RuntimeError(f"{command[0]} did not end in {timeout_secs} s")
            time.sleep(0.005)
        child.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        text = out.read().decode(errors="replace")
        if child.returncode != 0:
            said = (err.read().decode(errors="replace").strip() or text.strip())[-300:]
            raise RuntimeError(f"{command[0]} ended with status {child.returncode}: {said}")
        return text, usage.ru_utime + usage.ru_stime
