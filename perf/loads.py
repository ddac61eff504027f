"""The work that every way is given. Each load has a `rate`, by which peers are compared, and other
figures; `also` says which of those the table shows, and how."""

import csv
import io
import json
import statistics
import time

import clients
from processes import Client, run_client
from servers import VALUE_BYTES

GIB = 1 << 30
# Seconds until a bulk stream runs at its usual speed.
WARMUP_SECS = 0.3


class Load:
    """One kind of work. `key` and `group` are for the command line, `needs` names the servers it
    talks to, `unit` is what the rate counts; processor time is per `cpu_unit`."""

    cpu_unit = ""
    also = []

    def __init__(self, key, group, name, needs, unit):
        self.key = key
        self.group = group
        self.name = name
        self.needs = needs
        self.unit = unit


class Bulk(Load):
    cpu_unit = "s/GiB"

    def __init__(self, streams, reverse):
        way = "down" if reverse else "up"
        name = f"bulk {way}, {streams} stream{'s' if streams > 1 else ''}"
        super().__init__(f"{way}{streams}", "bulk", name, ["iperf3"], "GiB/s")
        self.streams = streams
        self.reverse = reverse

    def run(self, way, servers, settings):
        watch = Watch(way, servers["iperf3"])
        command = iperf3(way, self.streams, self.reverse, settings.seconds)
        text, client_secs = run_client(command, settings.seconds + 30)
        rate, gib, each = received(text)
        return {"rate": rate, "gib": gib, "streams_gib": each, **watch.per(gib, client_secs)}


class Redis(Load):
    cpu_unit = "us/request"
    also = [("p50_ms", "p50 {:.3f} ms"), ("p99_ms", "p99 {:.3f} ms")]

    def __init__(self, key, group, name, probe, connections, pipeline=1, keep=True):
        super().__init__(key, group, name, ["redis"], "k/s")
        self.probe = probe
        self.words = ["-c", str(connections), "-P", str(pipeline), "-k", "1" if keep else "0"]

    def run(self, way, servers, settings):
        # How many requests fill the time differs by a factor of ten: a short look tells.
        looked = self.benchmark(way, self.probe)[0]
        requests = max(self.probe, int(float(looked["rps"]) * settings.small_seconds))
        watch = Watch(way, servers["redis"])
        row, client_secs = self.benchmark(way, requests)
        return {
            "rate": float(row["rps"]) / 1000,
            "requests": requests,
            **{f"{p}_ms": float(row[f"{p}_latency_ms"]) for p in ("p50", "p95", "p99")},
            **watch.per(requests / 1e6, client_secs),
        }

    def benchmark(self, way, requests):
        command = ["redis-benchmark", "-h", way.address, "-p", str(way.ports["redis"]), "--csv"]
        command += ["-t", "get", "-n", str(requests), *self.words]
        text, client_secs = run_client(command, 60)
        return list(csv.DictReader(io.StringIO(text)))[-1], client_secs


class Keystroke(Load):
    """One GET after the other while one bulk stream goes through the same way."""

    also = [
        ("p50_ms", "p50 {:.3f} ms"),
        ("p99_ms", "p99 {:.3f} ms"),
        ("bulk_gib_s", "bulk {:.2f} GiB/s"),
        ("bulk_alone_gib_s", "alone {:.2f} GiB/s"),
        ("bulk_kept", "kept {:.2f}"),
    ]

    def __init__(self, reverse):
        key = "key-down" if reverse else "key-up"
        name = f"GET beside bulk {'down' if reverse else 'up'}"
        super().__init__(key, "key", name, ["iperf3", "redis"], "k/s")
        self.reverse = reverse

    def run(self, way, servers, settings):
        command = iperf3(way, 1, self.reverse, settings.seconds)
        alone, _, _ = received(run_client(command, settings.seconds + 30)[0])
        bulk = Client(command)
        ends = time.monotonic() + settings.seconds
        try:
            taken = clients.closed_loop(
                (way.address, way.ports["redis"]), WARMUP_SECS, lambda: time.monotonic() < ends
            )
            beside, _, _ = received(bulk.result(30)[0])
        finally:
            bulk.kill()
        if len(taken) < 2:
            raise RuntimeError(f"only {len(taken)} answers beside bulk")
        percentiles = statistics.quantiles(taken, n=100, method="inclusive")
        return {
            "rate": len(taken) / sum(taken) / 1000,
            "answers": len(taken),
            "p50_ms": percentiles[49] * 1000,
            "p99_ms": percentiles[98] * 1000,
            "max_ms": max(taken) * 1000,
            "bulk_gib_s": beside,
            "bulk_alone_gib_s": alone,
            "bulk_kept": beside / alone,
        }


class Idle(Load):
    """Memory of connections that say nothing, and how fast they open."""

    also = [
        ("open_secs", "open in {:.2f} s"),
        ("kib_per_connection", "{:.2f} KiB each"),
        ("idle_mib", "from {:.1f} MiB"),
    ]

    def __init__(self, count):
        super().__init__(f"idle{count}", "idle", f"{count:,} idle", ["redis"], "k/s opened")
        self.count = count

    def run(self, way, _servers, _settings):
        before = way.resident_kib()
        connections = clients.IdleConnections((way.address, way.ports["redis"]), self.count)
        try:
            after = way.resident_kib()
        finally:
            connections.close()
        result = {"rate": self.count / connections.secs / 1000, "open_secs": connections.secs}
        if way.relays:
            result["idle_mib"] = before / 1024
            result["kib_per_connection"] = (after - before) / self.count
        return result


class Watch:
    """Processor time of relays and server from now on."""

    def __init__(self, way, server):
        self.way = way
        self.server = server
        self.before = way.cpu_secs(), server.cpu_secs()

    def per(self, amount, client_secs):
        relay_secs = self.way.cpu_secs() - self.before[0]
        server_secs = self.server.cpu_secs() - self.before[1]
        return {
            "relay_cpu": relay_secs / amount,
            "path_cpu": (relay_secs + server_secs + client_secs) / amount,
        }


def iperf3(way, streams, reverse, seconds):
    command = ["iperf3", "-c", way.address, "-p", str(way.ports["iperf3"]), "-J"]
    command += ["-t", str(seconds), "-P", str(streams)]
    return command + (["-R"] if reverse else [])


def received(text):
    """GiB/s, GiB and GiB of each stream. What the receiver counted: the sender's figure includes
    what is still on its way."""
    report = json.loads(text)
    end = report.get("end") or {}
    total = end.get("sum_received")
    if not total:
        raise RuntimeError(f"iperf3 reported no sum: {report.get('error', 'it says no reason')}")
    each = [stream["receiver"]["bytes"] / GIB for stream in end["streams"]]
    gib = total["bytes"] / GIB
    if not gib:
        raise RuntimeError("nothing was received")
    return gib / total["seconds"], gib, each


# Left out unless it is asked for: it takes relays that hold 20,000 descriptors.
MANY = Idle(9_700)

LOADS = [
    Bulk(streams=1, reverse=False),
    Bulk(streams=1, reverse=True),
    Bulk(streams=8, reverse=False),
    Bulk(streams=8, reverse=True),
    Redis("c1", "get", f"GET {VALUE_BYTES} B, c1", 1_000, connections=1),
    Redis("c50", "get", f"GET {VALUE_BYTES} B, c50", 5_000, connections=50),
    Redis("c1p16", "get", f"GET {VALUE_BYTES} B, c1 P16", 10_000, connections=1, pipeline=16),
    Redis("c50p16", "get", f"GET {VALUE_BYTES} B, c50 P16", 50_000, connections=50, pipeline=16),
    Redis("conn1", "conn", "new connections, c1", 500, connections=1, keep=False),
    Redis("conn50", "conn", "new connections, c50", 1_000, connections=50, keep=False),
    Keystroke(reverse=False),
    Keystroke(reverse=True),
    Idle(1_000),
    MANY,
]
