"""The work with datagrams that `perf/udp` gives to every way.

Each load has a `rate`, in thousands of packets that arrive a second, and other figures. Processor
time is in microseconds for each packet that arrives; of pings, for each that is answered."""

import json
import os
import socket
import time

from peers import LOOPBACK
from processes import READY_SECS, Client, Process, run_client, taking_datagrams

# Datagrams of one size in one send: what the kernel takes at most.
SEGMENTS = 64
# What may be lost for a rate to be one that a way carries.
LOSS_MAX = 0.01
# Where the highest such rate is looked for, in packets a second, and how many steps that takes.
SEARCH_FROM, SEARCH_TO = 20_000, 400_000
SEARCH_STEPS = 6
# What is not right with datagrams that came.
FAULTS = ("out_of_order", "duplicated", "merged", "split", "corrupt", "misplaced")
# A way may hold many that still come when the source has ended.
DRAIN_SECS = 60


class Flow:
    """Datagrams of one size. `rate` is how many a second, or a function of the settings that says
    it; "max" for as many as the source can send."""

    def __init__(self, key, group, name, size, rate, segment=1):
        self.key, self.group, self.name = key, group, name
        self.size, self.rate, self.segment = size, rate, segment

    def run(self, way, server, settings):
        rate = self.rate if isinstance(self.rate, str) else self.rate(settings)
        words = ["--size", str(self.size)]
        length = ["--secs", str(settings.seconds)]
        return flow(way, server, settings, words, length, rate, self.segment)


class Search:
    """The most packets a second of which no more than a hundredth is lost."""

    def __init__(self, key, group, name, size):
        self.key, self.group, self.name, self.size = key, group, name, size

    def run(self, way, server, settings):
        """Halves the range, by ratio. A rate that loses more is tried again once: with two cores,
        something else may have run."""
        words, length = ["--size", str(self.size)], ["--secs", str(settings.search_seconds)]
        low, high, best = SEARCH_FROM, SEARCH_TO, None
        for _ in range(SEARCH_STEPS):
            rate = (low * high) ** 0.5
            for _ in range(2):
                one = flow(way, server, settings, words, length, rate, 1)
                if one["loss"] <= LOSS_MAX:
                    break
            if one["loss"] > LOSS_MAX:
                high = rate
                continue
            if best is None or one["rate"] > best["rate"]:
                best = one
            low = rate
        if best is None:
            raise RuntimeError(f"more than 1 % lost at {high:,.0f} packets/s and more")
        return best


class Ping:
    """One after the other, there and back."""

    def __init__(self, key, group, name, size):
        self.key, self.group, self.name, self.size = key, group, name, size

    def run(self, way, server, settings):
        with_echo = server.echo(settings)
        try:
            relays_before = way.cpu_secs()
            command = on_core(-1) + client(way, settings, "ping") + ["--size", str(self.size)]
            command += ["--secs", str(settings.seconds)]
            text, client_secs = run_client(command, settings.seconds + 30)
            relay_secs = way.cpu_secs() - relays_before
            path_secs = relay_secs + client_secs + with_echo.cpu_secs()
        finally:
            with_echo.stop()
        said = json.loads(text)
        if not said["answered"]:
            raise RuntimeError("no ping came back")
        return {
            "rate": said["per_sec"] / 1e3,
            "loss": said["lost"] / said["sent"],
            "relay_cpu": relay_secs * 1e6 / said["answered"],
            "path_cpu": path_secs * 1e6 / said["answered"],
            "p50_us": said["p50_us"],
            "p99_us": said["p99_us"],
            "faults": said["wrong"],
        }


class Server:
    """The port at which an echo and sinks take turns: relays are told one server."""

    def __init__(self, port):
        self.port = port

    def echo(self, settings):
        command = on_core(0) + [settings.load, "echo", "--port", str(self.port)]
        return Process("echo", command, [], [self.port])

    def sink(self, settings, words):
        """A sink that is ready."""
        sink = Client([settings.load, "sink", "--port", str(self.port), *words])
        deadline = time.monotonic() + READY_SECS
        while sink.running() and not taking_datagrams(self.port):
            if time.monotonic() > deadline:
                sink.kill()
            time.sleep(0.01)
        return sink


def on_core(index):
    """What keeps a command on one core: the two ends of a ping are on one each, as they would be on
    different hosts. Where the kernel has both on one, direct is that much of a special case."""
    cores = sorted(os.sched_getaffinity(0))
    return ["taskset", "-c", str(cores[index])] if len(cores) > 1 else []


def client(way, settings, mode):
    """The beginning of the command of what sends."""
    to = f"{LOOPBACK}:{way.entrance}"
    return [settings.load, mode, "--to", to, "--from", str(way.client)]


def flow(way, server, settings, words, length, rate, segment):
    """One source and one sink, which are told `words` both, and what was seen at both ends."""
    sink = server.sink(settings, words + (["--gro"] if segment > 1 else []))
    try:
        relays_before = way.cpu_secs()
        command = client(way, settings, "source") + words + length
        command += ["--rate", str(rate), "--segment", str(segment)]
        text, source_secs = run_client(command, settings.longest_secs)
        sent = json.loads(text)
        text, sink_secs = sink.result(DRAIN_SECS)
        relay_secs = way.cpu_secs() - relays_before
    finally:
        sink.kill()
    came = json.loads(text)
    right = came["right"]
    if not right:
        raise RuntimeError("not one datagram arrived as it was sent")
    return {
        "rate": right / max(came["secs"], 1e-3) / 1e3,
        "offered": sent["per_sec"] / 1e3,
        "loss": 1 - right / sent["sent"],
        "relay_cpu": relay_secs * 1e6 / right,
        "path_cpu": (relay_secs + source_secs + sink_secs) * 1e6 / right,
        "faults": sum(came[fault] for fault in FAULTS),
        "source": sent,
        "sink": came,
    }


def fixed(settings):
    return settings.rate


def fixed_trains(settings):
    return settings.train_rate


LOADS = [
    load
    for size in (64, 1200)
    for load in (
        Search(f"most{size}", "most", f"{size} bytes, most with 1 % lost", size),
        Flow(f"paced{size}", "paced", f"{size} bytes, paced", size, fixed),
        Flow(f"flood{size}", "flood", f"{size} bytes, flood", size, "max"),
        Flow(
            f"trains{size}", "trains", f"{size} bytes, trains paced", size, fixed_trains, SEGMENTS
        ),
        Flow(
            f"train-flood{size}", "train-flood", f"{size} bytes, trains flood", size,
            "max", SEGMENTS,
        ),
        Ping(f"ping{size}", "ping", f"{size} bytes, ping", size),
    )
]
