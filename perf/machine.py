"""What the figures were taken on. Neither the machine's name nor paths of it."""

import os
import platform
import re
import subprocess

from processes import CannotStart
from relays import find


def facts(root):
    return {
        "cpu": cpu_model(),
        "caches": caches(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": platform.release(),
        "congestion_control": congestion_control(),
        "tcp_rmem": read("/proc/sys/net/ipv4/tcp_rmem").split(),
        "tcp_wmem": read("/proc/sys/net/ipv4/tcp_wmem").split(),
        "revision": revision(root),
    }


def congestion_control():
    """What sockets get whose program does not ask for another."""
    return read("/proc/sys/net/ipv4/tcp_congestion_control")


def versions(binary):
    """What each program says its version is; programs that are not there are left out."""
    asked = {
        "iperf3": "--version",
        "redis-server": "--version",
        "haproxy": "-v",
        "socat": "-V",
        "nginx": "-v",
        "ssh": "-V",
        "stunnel": "-version",
        "rathole": "--version",
        "penguin": "--version",
    }
    found = {"sockmux-uring": version([binary, "--version"])}
    for program, word in asked.items():
        try:
            found[program] = version([find(program, None), word])
        except CannotStart:
            pass
    return {name: text for name, text in found.items() if text}


def version(command):
    number = r"(\d+\.\d+(\.\d+)*(p\d+)?)"
    text = output(command)
    # rathole says when it was built, with fractions of a second, before its version.
    match = re.search(r"version:?\s+(?:\w+/)?" + number, text, re.IGNORECASE)
    match = match or re.search(r"(?:\b|[v=/_])" + number, text)
    return match.group(1) if match else None


def revision(root):
    """Commit, with a mark if the tree differs from it."""
    commit = output(["git", "-C", root, "rev-parse", "--short=12", "HEAD"]).strip()
    changed = output(["git", "-C", root, "status", "--porcelain", "--untracked-files=no"])
    return (commit or "unknown") + ("+changes" if changed.strip() else "")


def cpu_model():
    match = re.search(r"^model name\s*:\s*(.*)$", read("/proc/cpuinfo"), re.MULTILINE)
    return match.group(1) if match else platform.machine()


def caches():
    """What tells kinds of processors apart where the hypervisor hides the model: "L2 1024K"..."""
    found = []
    for index in range(8):
        base = f"/sys/devices/system/cpu/cpu0/cache/index{index}"
        level, kind, size = (read(f"{base}/{name}") for name in ("level", "type", "size"))
        if kind in ("Data", "Unified"):
            found.append(f"L{level} {size}")
    return found


def read(path):
    try:
        with open(path) as file:
            return file.read().strip()
    except OSError:
        return "unknown"


def output(command):
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout + done.stderr if done.returncode == 0 else ""
