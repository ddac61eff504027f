"""What `perf/soak` does to a tunnel. Each fault is a record: its kind, when it began and ended (seconds of the
monotonic clock), and what it was."""

import resource
import signal
import socket
import subprocess
import time

import hosts

# The link's packets are dropped where they come in at either host: who sends them gets no error.
DROP = "table inet soak {{ chain in {{ type filter hook prerouting priority -300; {rules} }}\n}}"
KINDS = ["fin", "rst", "storm", "drop", "freeze", "away", "down", "stop", "kill", "descriptors"]
# One end does not hear of these: without resumption it notices after 90 s of silence.
SILENT = ["freeze", "away"]
# Cuts by one fault of many.
STORM_CUTS = (2, 6)
# What a process with few descriptors has beside those it holds.
SPARE_DESCRIPTORS = 2


class Faults:
    """Faults of the ends, from a seed."""

    def __init__(self, ends, options, random):
        self.ends, self.random = ends, random
        self.kinds = options.faults
        # What ends the streams of a tunnel: without resumption, all that ends its link.
        self.losing = {"kill"} | ({"fin", "rst", "storm", *SILENT} if not options.resume else set())
        self.queue = []

    def next_kind(self):
        """All kinds come equally often, in no order."""
        if not self.queue:
            self.queue = self.random.sample(self.kinds, len(self.kinds))
        return self.queue.pop()

    def make(self, kind):
        """Does one fault, and returns its record."""
        self.ends.await_link()
        record = {"kind": kind, "losing": kind in self.losing, "start": time.monotonic()}
        record["what"] = getattr(self, f"_{kind}")(record)
        record.setdefault("end", time.monotonic())
        return record

    def side(self):
        return self.random.choice(self.ends.sides)

    def _fin(self, record):
        """Ends the link as its own program would: in one direction or both, at one end or both."""
        sides = self.random.choice([[self.ends.near], [self.ends.far], self.ends.sides])
        how = self.random.choice([socket.SHUT_WR, socket.SHUT_RDWR])
        for side in sides:
            for descriptor in side.link_sockets(self.ends.link):
                try:
                    with side.borrow(descriptor) as link:
                        link.shutdown(how)
                except OSError:
                    # It has ended meanwhile, at the other end first.
                    pass
        record["end"] = record["start"]
        return f"{' and '.join(side.name for side in sides)}, {'both ways' if how == socket.SHUT_RDWR else 'one way'}"

    def _rst(self, record):
        """The kernel ends the connection at one end: what waits there is gone, the other end gets a reset."""
        side = self.side()
        port = "sport" if side is self.ends.far else "dport"
        command = ["ss", "-K", "-n", "state", "established", port, "=", f":{self.ends.link}"]
        record["start"] = record["end"] = time.monotonic()
        subprocess.run(side.host.enter(command), capture_output=True, check=False)
        return side.name

    def _storm(self, record):
        """Cuts so close that they meet what mends the cut before."""
        start, cuts = record["start"], self.random.randint(*STORM_CUTS)
        for _ in range(cuts):
            self.random.choice([self._fin, self._rst])(record)
            time.sleep(self.random.choice([0.001, 0.01, 0.05, 0.3]))
        record["start"], record["end"] = start, time.monotonic()
        return f"{cuts} cuts"

    def _drop(self, record):
        """No packet of any link passes for a while."""
        secs = self.random.uniform(1, 4)
        self._with_dropped(record, self._all_links(), lambda: time.sleep(secs))
        return f"{secs:.1f} s"

    def _freeze(self, record):
        """A NAT has forgotten this connection; another passes."""
        links = self.ends.links()
        way = self.random.choice(["both ways", "up", "down"])
        rules = ""
        for port in links:
            rules += f"tcp sport {port} tcp dport {self.ends.link} drop; " if way != "down" else ""
            rules += f"tcp sport {self.ends.link} tcp dport {port} drop; " if way != "up" else ""
        self._with_dropped(record, rules, lambda: self.ends.await_link(other_than=links))
        return way

    def _away(self, record):
        """The link is cut, and none can be made for longer than a moment."""
        secs = self.random.uniform(5, 12)

        def cut():
            self._rst(record)
            record.pop("end")
            time.sleep(secs)

        self._with_dropped(record, self._all_links(), cut)
        return f"{secs:.1f} s"

    def _all_links(self):
        return f"tcp dport {self.ends.link} drop; tcp sport {self.ends.link} drop;"

    def _with_dropped(self, record, rules, wait):
        sides = [side.host for side in self.ends.sides]
        for host in sides:
            hosts.run(host, "nft", DROP.format(rules=rules))
        # To start a program takes its time on a machine that is busy.
        record["start"] = time.monotonic()
        try:
            wait()
        finally:
            for host in sides:
                hosts.run(host, "nft", "delete", "table", "inet", "soak")

    def _down(self, _record):
        side, secs = self.side(), self.random.uniform(1, 2)
        hosts.run(side.host, "ip", "link", "set", "eth0", "down")
        time.sleep(secs)
        hosts.run(side.host, "ip", "link", "set", "eth0", "up")
        return f"{side.name}'s host, {secs:.1f} s"

    def _stop(self, record):
        side, secs = self.side(), self.random.uniform(1, 2)
        side.relay.child.send_signal(signal.SIGSTOP)
        also = self._also_cut(record)
        time.sleep(secs)
        side.relay.child.send_signal(signal.SIGCONT)
        return f"{side.name}, {secs:.1f} s{also}"

    def _also_cut(self, record):
        """Half of the times the link breaks, too."""
        if self.random.random() < 0.5:
            return ""
        start = record["start"]
        self._rst(record)
        record["start"] = start
        record.pop("end")
        record["losing"] |= "rst" in self.losing
        return ", and cut"

    def _kill(self, record):
        side = self.side()
        side.kill()
        self.ends.start(side)
        self.ends.await_link()
        return side.name

    def _descriptors(self, record):
        """Next to none are free for a while."""
        side, secs = self.side(), self.random.uniform(2, 4)
        before = resource.prlimit(side.pid, resource.RLIMIT_NOFILE)
        few = side.holds()["descriptors"] + SPARE_DESCRIPTORS
        resource.prlimit(side.pid, resource.RLIMIT_NOFILE, (few, before[1]))
        also = self._also_cut(record)
        time.sleep(secs)
        resource.prlimit(side.pid, resource.RLIMIT_NOFILE, before)
        return f"{side.name}, {few} for {secs:.1f} s{also}"

