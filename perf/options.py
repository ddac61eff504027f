"""The command line of perf/run."""

import argparse
import os

import hosts
import loads
import peers


def parse(description):
    words = argparse.ArgumentParser(description=description)
    words.add_argument(
        "-n", "--reps", dest="repetitions", type=positive, default=5, help="default 5"
    )
    words.add_argument(
        "-t", "--secs", dest="seconds", type=positive, default=3,
        help="length of one bulk run, default 3",
    )
    words.add_argument(
        "--small-secs", dest="small_seconds", type=float, default=2.0,
        help="length of one run of requests or of new connections, about; default 2",
    )
    words.add_argument(
        "-p", "--peers", type=names, default=[],
        help="only these beside direct, as in ours,haproxy,ssh; default all",
    )
    words.add_argument(
        "-l", "--loads", type=names, default=[],
        help="only these: bulk, get, conn, key, idle, or single ones: "
        + ", ".join(load.key for load in loads.LOADS),
    )
    words.add_argument(
        "--many", action="store_true", help=f"also {loads.MANY.count:,} idle connections"
    )
    words.add_argument(
        "--variant", dest="variants", type=variant, action="append", default=[],
        metavar="NAME:WORDS", help="one more peer: ours with these parameters at both ends",
    )
    words.add_argument(
        "--binary", dest="builds", action="append", default=[], metavar="[NAME=]FILE",
        help="one more peer: this build of ours; without NAME it is the one to measure, "
        "which is else made by cargo build --release",
    )
    words.add_argument(
        "--congestion", metavar="NAME",
        help="congestion control of everybody; if it is not the system's, the run is in a network "
        "namespace of its own, which needs root",
    )
    words.add_argument(
        "--mixed-congestion", action="store_true",
        help="let peers choose their own, as ours does out of the box; else all have to have the "
        "same, and ours is told to take the system's",
    )
    words.add_argument(
        "--netns", action="store_true",
        help="client, relays and server in network namespaces of their own, over an MTU of "
        f"{hosts.MTU_BYTES:,} bytes, instead of on loopback; needs root",
    )
    words.add_argument("--no-write", action="store_true", help="print the table only")
    settings = words.parse_args()
    settings.loads = chosen_loads(settings, words)
    settings.binary, settings.binaries = builds(settings.builds, words)
    taken = [name for name, _ in settings.variants + settings.binaries]
    builtin = [text for peer in peers.known(settings) for text in (peer.key, peer.name)]
    for name in taken:
        if builtin.count(name) > 2:
            words.error(f"{name} is the name of two peers: give another")
    unknown = set(settings.peers) - set(builtin)
    if unknown:
        keys = ", ".join(peer.key for peer in peers.known(settings))
        words.error(f"no such peer: {', '.join(sorted(unknown))}; there are {keys}")
    return settings


def chosen_loads(settings, words):
    known = {text for load in loads.LOADS for text in (load.key, load.group)}
    unknown = set(settings.loads) - known
    if unknown:
        words.error(f"no such load: {', '.join(sorted(unknown))}; see --help")
    chosen = []
    for load in loads.LOADS:
        asked = not settings.loads or load.group in settings.loads
        if load is loads.MANY:
            asked = settings.many
        if asked or load.key in settings.loads:
            chosen.append(load)
    return chosen


def chosen_peers(settings):
    """Direct, what was chosen, and always the variants and builds that were asked for."""
    extra = [name for name, _ in settings.variants + settings.binaries]
    wanted = [*settings.peers, *extra, peers.DIRECT]
    return [peer for peer in peers.known(settings) if not settings.peers or peer.key in wanted]


def builds(given, words):
    """The build to measure (None: make it), and (name, file) of the others."""
    main, others = None, []
    for word in given:
        name, equals, file = word.rpartition("=")
        if not os.access(file, os.X_OK):
            words.error(f"--binary {word}: no program that can be run")
        if equals:
            others.append((name, os.path.abspath(file)))
        elif main:
            words.error("--binary: give a NAME= to all but one")
        else:
            main = os.path.abspath(file)
    return main, others


def names(word):
    return [name.strip() for name in word.split(",") if name.strip()]


def variant(word):
    name, colon, rest = word.partition(":")
    if not (name and colon and rest.split()):
        raise argparse.ArgumentTypeError("must be NAME:WORDS, as in '0.3:SOXCONF=protocol:0.3'")
    return name, rest.split()


def positive(word):
    number = int(word)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number
