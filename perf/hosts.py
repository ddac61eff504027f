"""Where client, relays and server run: all on this machine's loopback, or each in a network
namespace of its own, joined by a bridge as hosts are by a switch; or two of them by a cable."""

import contextlib
import ctypes
import os
import subprocess

LOOPBACK = "127.0.0.1"
CLONE_NEWNET = 0x40000000
# Of RFC 2544, which sets it apart for measurements.
NETWORK = "198.18.0"
MTU_BYTES = 1500

libc = ctypes.CDLL(None, use_errno=True)


class Host:
    """`address` is where it listens and is reached, `namespace` a file, None for our own."""

    def __init__(self, name, address=LOOPBACK, namespace=None):
        self.name = name
        self.address = address
        self.namespace = namespace

    def enter(self, command):
        """The command, run on this host."""
        return ["nsenter", f"--net={self.namespace}", *command] if self.namespace else command

    @contextlib.contextmanager
    def inside(self):
        """What this thread does meanwhile, it does on this host."""
        if not self.namespace:
            yield
            return
        with open("/proc/thread-self/ns/net") as back, open(self.namespace) as namespace:
            set_namespace(namespace)
            try:
                yield
            finally:
                set_namespace(back)


class Hosts:
    """The four hosts of a way. `near` is the relay that the client connects to."""

    def __init__(self, make=Host, congestion=None):
        self.allowed = Allowed(congestion)
        self.client, self.near, self.far, self.server = map(
            make, ("client", "near", "far", "server")
        )

    def close(self):
        self.allowed.restore()


class Allowed:
    """Has the machine allow namespaces a congestion control, and takes that back."""

    PATH = "/proc/sys/net/ipv4/tcp_allowed_congestion_control"

    def __init__(self, name):
        self.before = None
        if name:
            # From a namespace it can neither be read nor written.
            self.file = open(self.PATH, "r+")
            before = self.file.read().strip()
            if name not in before.split():
                self._write(f"{before} {name}")
                self.before = before

    def _write(self, names):
        self.file.seek(0)
        self.file.write(names)
        self.file.flush()

    def restore(self):
        if self.before:
            self._write(self.before)


class Apart(Hosts):
    """Four namespaces and a bridge; we are on the client's host from then on."""

    def __init__(self, congestion):
        self.names = []
        self.bridge = self._namespace("switch")
        run(self.bridge, "ip", "link", "add", "br0", "type", "bridge")
        run(self.bridge, "ip", "link", "set", "br0", "up")
        try:
            super().__init__(self._host, congestion)
            if congestion:
                for host in (self.client, self.near, self.far, self.server):
                    run(host, *set_congestion(congestion))
        except BaseException:
            self.close()
            raise
        with open(self.client.namespace) as namespace:
            set_namespace(namespace)
        self.client = Host("client", self.client.address)

    def _namespace(self, name):
        return add_namespace(name, self.names)

    def _host(self, name):
        host = self._namespace(name)
        host.address = f"{NETWORK}.{len(self.names)}"
        run(
            host, "ip", "link", "add", "eth0", "mtu", str(MTU_BYTES), "type", "veth",
            "peer", "name", name, "mtu", str(MTU_BYTES), "netns", self.bridge.name,
        )
        run(host, "ip", "address", "add", f"{host.address}/24", "dev", "eth0")
        run(host, "ip", "link", "set", "eth0", "up")
        run(self.bridge, "ip", "link", "set", name, "master", "br0", "up")
        return host

    def close(self):
        delete_namespaces(self.names)
        super().close()


class Pair:
    """Two hosts with a cable between their devices `eth0`. We stay outside."""

    def __init__(self):
        self.names = []
        try:
            self.near, self.far = (add_namespace(name, self.names) for name in ("near", "far"))
            run(
                self.near, "ip", "link", "add", "eth0", "mtu", str(MTU_BYTES), "type", "veth",
                "peer", "name", "eth0", "mtu", str(MTU_BYTES), "netns", self.far.name,
            )
            for number, host in enumerate((self.near, self.far), 1):
                host.address = f"{NETWORK}.{number}"
                run(host, "ip", "address", "add", f"{host.address}/24", "dev", "eth0")
                run(host, "ip", "link", "set", "eth0", "up")
        except BaseException:
            self.close()
            raise

    def close(self):
        delete_namespaces(self.names)


def add_namespace(name, names):
    """A host of its own whose loopback is up. Its name is added to `names`."""
    name = f"perf-{os.getpid()}-{name}"
    run(None, "ip", "netns", "add", name)
    names.append(name)
    host = Host(name, namespace=f"/run/netns/{name}")
    run(host, "ip", "link", "set", "lo", "up")
    return host


def delete_namespaces(names):
    for name in names:
        subprocess.run(["ip", "netns", "delete", name], check=False)


def on_loopback(congestion, system):
    """All on loopback: the machine's own, or one that has the congestion control asked for."""
    if congestion and congestion != system:
        hosts = Hosts(congestion=congestion)
        if libc.unshare(CLONE_NEWNET) != 0:
            raise error("a network namespace of one's own")
        run(None, "ip", "link", "set", "lo", "up")
        run(None, *set_congestion(congestion))
        return hosts
    return Hosts()


def set_congestion(name):
    return "sysctl", "-q", "-w", f"net.ipv4.tcp_congestion_control={name}"


def set_namespace(file):
    if libc.setns(file.fileno(), CLONE_NEWNET) != 0:
        raise error("entering a network namespace")


def error(what):
    number = ctypes.get_errno()
    return OSError(number, f"{what}: {os.strerror(number)} (it needs root)")


def run(host, *command):
    command = list(command)
    done = subprocess.run(
        host.enter(command) if host else command, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()} (it needs root)")
