"""The work that every way is given: iperf3 for bulk, redis-benchmark for small messages."""

import csv
import io
import json
import shutil
import socket

from processes import CannotStart, Process, free_port, run_client

LOOPBACK = "127.0.0.1"
GIB = 1 << 30
VALUE_BYTES = 64
# The key that redis-benchmark asks for when it is not told to vary it.
REDIS_KEY = "key:__rand_int__"


class Load:
    """One kind of work. `unit` is what its rate counts; processor time is per `cpu_unit`."""

    def __init__(self, name, server, unit, cpu_unit, command, parse):
        self.name = name
        self.server = server
        self.unit = unit
        self.cpu_unit = cpu_unit
        self.command = command
        self.parse = parse

    def run(self, way, server, settings):
        """Does the work once: rate, and processor seconds per unit of relays and whole path."""
        before = way.cpu_secs(), server.cpu_secs()
        text, client_secs = run_client(
            self.command(way.port, settings), timeout_secs=30 + 10 * settings.seconds
        )
        relay_secs = way.cpu_secs() - before[0]
        server_secs = server.cpu_secs() - before[1]
        rate, amount, more = self.parse(text, settings)
        return {
            "rate": rate,
            "relay_cpu": relay_secs / amount,
            "path_cpu": (relay_secs + server_secs + client_secs) / amount,
            **more,
        }


def iperf3(streams, reverse):
    def command(port, settings):
        words = ["iperf3", "-c", LOOPBACK, "-p", str(port), "-J"]
        words += ["-t", str(settings.seconds), "-P", str(streams)]
        return words + (["-R"] if reverse else [])

    def parse(text, _settings):
        end = json.loads(text)["end"]
        received = end["sum_received"]
        # What the receiver counted: the sender's figure includes what is still on its way.
        gib = received["bytes"] / GIB
        each = [stream["receiver"]["bytes"] / GIB for stream in end["streams"]]
        return gib / received["seconds"], gib, {"gib": gib, "streams_gib": each}

    name = f"bulk {'down' if reverse else 'up'}, {streams} stream{'s' if streams > 1 else ''}"
    return Load(name, "iperf3", "GiB/s", "s/GiB", command, parse)


def redis(connections, pipeline, requests):
    def command(port, settings):
        words = ["redis-benchmark", "-h", LOOPBACK, "-p", str(port), "-t", "get", "--csv"]
        words += ["-c", str(connections), "-P", str(pipeline)]
        # The amount follows the length of the other work; it is meant for 3 s of a slow way.
        return words + ["-n", str(requests * settings.seconds // 3)]

    def parse(text, settings):
        row = list(csv.DictReader(io.StringIO(text)))[-1]
        times = {f"{p}_ms": float(row[f"{p}_latency_ms"]) for p in ("p50", "p95", "p99")}
        # Seconds per thousand requests are milliseconds per request.
        amount = requests * settings.seconds // 3 / 1e6
        return float(row["rps"]) / 1000, amount, times

    name = f"GET {VALUE_BYTES} B, c{connections}" + (f" P{pipeline}" if pipeline > 1 else "")
    return Load(name, "redis", "k/s", "us/request", command, parse)


LOADS = [
    iperf3(streams=1, reverse=False),
    iperf3(streams=1, reverse=True),
    iperf3(streams=8, reverse=False),
    iperf3(streams=8, reverse=True),
    redis(connections=1, pipeline=1, requests=12_000),
    redis(connections=50, pipeline=1, requests=120_000),
    redis(connections=50, pipeline=16, requests=600_000),
]


def start_iperf3():
    need("iperf3", "iperf3", "iperf3")
    port = free_port()
    return port, Process("iperf3", ["iperf3", "-s", "-B", LOOPBACK, "-p", str(port)], port)


def start_redis():
    need("redis-server", "redis-server", "redis")
    need("redis-benchmark", "redis-tools", "redis")
    port = free_port()
    command = ["redis-server", "--bind", LOOPBACK, "--port", str(port)]
    command += ["--save", "", "--appendonly", "no", "--daemonize", "no"]
    server = Process("redis", command, port)
    with socket.create_connection((LOOPBACK, port), timeout=5) as client:
        client.sendall(f"SET {REDIS_KEY} {'x' * VALUE_BYTES}\r\n".encode())
        answer = client.recv(64)
    if answer != b"+OK\r\n":
        server.stop()
        raise CannotStart(f"redis: SET was answered {answer!r}")
    return port, server


def need(program, package, server):
    if not shutil.which(program):
        raise CannotStart(f"{server}: {program} is not installed (Debian package {package})")


SERVERS = {"iperf3": start_iperf3, "redis": start_redis}
