"""How each program is started as a relay, with the configuration it gets.

A step gets a `Hop` and the settings, and returns the processes it started. `settings.scratch` is a
directory that goes with the run."""

import getpass
import os
import re
import shutil
import subprocess

from processes import CannotStart, Process, free_port

# Both ciphers are the same work for the processor, so that ssh and stunnel can be compared.
SSH_CIPHER = "aes128-gcm@openssh.com"
TLS_CIPHER = "TLS_AES_128_GCM_SHA256"
# Descriptors that a relay needs beside two for every connection.
SPARE_DESCRIPTORS = 300


class Hop:
    """What one step bridges: `targets` is HOST:PORT to connect to and `ports` the port to listen on,
    both by server name. `near` is the host that listens, `far` the one that connects: the same for a
    program that does both."""

    def __init__(self, targets, ports, near, far):
        self.targets = targets
        self.ports = ports
        self.near = near
        self.far = far

    def entrance(self, name):
        return f"{self.near.address}:{self.ports[name]}"

    def entrances(self):
        """What the next step, or the client, connects to."""
        return {name: self.entrance(name) for name in self.ports}


def socat(hop, _settings):
    program = find("socat", "socat")
    started = []
    for name, target in hop.targets.items():
        command = [
            program,
            "-b", "65536",
            # Its own queue of 5 makes fifty clients at once wait for SYNs to be sent again.
            f"TCP-LISTEN:{hop.ports[name]},bind={hop.near.address},fork,reuseaddr,nodelay,backlog=1024",
            f"TCP:{target},nodelay",
        ]
        started += begin(started, "socat", command, [hop.ports[name]], hop.near)
    return started


def haproxy(hop, settings):
    program = find("haproxy", "haproxy")
    lines = [
        "global",
        " nbthread 1",
        f" maxconn {settings.connections_max}",
        " maxpipes 64",
        "defaults",
        " mode tcp",
        " option splice-auto",
        " option splice-request",
        " option splice-response",
        " timeout connect 5s",
        " timeout client 1h",
        " timeout server 1h",
    ]
    for name, target in hop.targets.items():
        lines += [f"listen {name}", f" bind {hop.entrance(name)} backlog 4096"]
        lines += [f" server {name} {target}"]
    config = write(settings, "haproxy", hop.ports, lines)
    return begin([], "haproxy", [program, "-db", "-f", config], hop.ports.values(), hop.near)


def nginx(hop, settings):
    program = find("nginx", "nginx")
    said = subprocess.run([program, "-V"], capture_output=True, text=True, check=False).stderr
    where = re.search(r"--modules-path=(\S+)", said)
    module = os.path.join(where.group(1) if where else "", "ngx_stream_module.so")
    if not os.path.exists(module):
        raise CannotStart("nginx: no stream module (Debian package libnginx-mod-stream)")
    descriptors = 2 * settings.connections_max + SPARE_DESCRIPTORS
    lines = [
        f"load_module {module};",
        "daemon off;",
        "worker_processes 1;",
        f"pid {settings.scratch}/nginx.{min(hop.ports.values())}.pid;",
        f"events {{ worker_connections {descriptors}; }}",
        "stream {",
        " proxy_buffer_size 64k;",
        " proxy_timeout 1h;",
    ]
    for name, target in hop.targets.items():
        lines += [
            " server {",
            f"  listen {hop.entrance(name)} backlog=4096;",
            f"  proxy_pass {target};",
            " }",
        ]
    config = write(settings, "nginx", hop.ports, [*lines, "}"])
    command = [program, "-e", "stderr", "-p", settings.scratch, "-c", config]
    return begin([], "nginx", command, hop.ports.values(), hop.near)


def stunnel(hop, settings, ends):
    """One end; `ends` is "client" or "server"."""
    program = find("stunnel", "stunnel4")
    lines = ["foreground = yes", "pid =", "debug = err", "syslog = no"]
    lines += ["socket = l:TCP_NODELAY=1", "socket = r:TCP_NODELAY=1"]
    for name, target in hop.targets.items():
        lines += [f"[{name}]", f"accept = {hop.entrance(name)}"]
        lines += [f"connect = {target}", f"ciphersuites = {TLS_CIPHER}"]
        lines += ["client = yes"] if ends == "client" else [f"cert = {certificate(settings)}"]
    config = write(settings, f"stunnel-{ends}", hop.ports, lines)
    return begin([], f"stunnel {ends}", [program, config], hop.ports.values(), hop.near)


def stunnel_server(hop, settings):
    return stunnel(hop, settings, "server")


def stunnel_client(hop, settings):
    return stunnel(hop, settings, "client")


def ssh(hop, settings):
    """A server of its own that knows one key, and the client that forwards the ports."""
    server, client = find("sshd", "openssh-server"), find("ssh", "openssh-client")
    host_key, user_key = key(settings, "host"), key(settings, "user")
    link = free_port()
    config = write(settings, "sshd", hop.ports, [
        f"ListenAddress {hop.far.address}:{link}",
        f"HostKey {host_key}",
        f"AuthorizedKeysFile {user_key}.pub",
        f"Ciphers {SSH_CIPHER}",
        "PermitRootLogin prohibit-password",
        "PasswordAuthentication no",
        "KbdInteractiveAuthentication no",
        "StrictModes no",
        "UsePAM no",
        "PidFile none",
        "AllowTcpForwarding local",
    ])
    started = begin([], "sshd", [server, "-D", "-e", "-f", config], [link], hop.far)
    command = [client, "-N", "-F", "none", "-p", str(link), "-i", user_key, "-c", SSH_CIPHER]
    words = ["ExitOnForwardFailure=yes", "StrictHostKeyChecking=no", "IdentitiesOnly=yes"]
    words += ["UserKnownHostsFile=/dev/null", "BatchMode=yes", "LogLevel=ERROR", "Compression=no"]
    for word in words:
        command += ["-o", word]
    for name, target in hop.targets.items():
        command += ["-L", f"{hop.entrance(name)}:{target}"]
    command.append(f"{getpass.getuser()}@{hop.far.address}")
    return started + begin(started, "ssh", command, hop.ports.values(), hop.near)


def rathole(hop, settings):
    program = find("rathole", None)
    link = free_port()
    lines = {
        "server": ["[server]", f'bind_addr = "{hop.near.address}:{link}"', 'default_token = "perf"'],
        "client": ["[client]", f'remote_addr = "{hop.near.address}:{link}"', 'default_token = "perf"'],
    }
    for name, target in hop.targets.items():
        entrance = f'bind_addr = "{hop.entrance(name)}"'
        lines["server"] += [f"[server.services.{name}]", entrance]
        lines["client"] += [f"[client.services.{name}]", f'local_addr = "{target}"']
    configs = {end: write(settings, f"rathole-{end}", hop.ports, lines[end]) for end in lines}
    started = begin([], "rathole server", [program, "--server", configs["server"]], [link], hop.near)
    client = [program, "--client", configs["client"]]
    started += begin(started, "rathole client", client, [], hop.far)
    # The server opens the entrances when the client has told it to.
    started[0].await_listening(hop.ports.values())
    return started


def penguin(hop, _settings):
    program = find("penguin", None)
    link = free_port()
    # It would log every connection.
    server = [program, "-q", "server", "--host", hop.far.address, "--port", str(link)]
    started = begin([], "penguin server", server, [link], hop.far)
    client = [program, "-q", "client", f"ws://{hop.far.address}:{link}/ws"]
    for name, target in hop.targets.items():
        client.append(f"{hop.entrance(name)}:{target}")
    return started + begin(started, "penguin client", client, hop.ports.values(), hop.near)


def ours(binary, words):
    """A step that starts both ends of `binary`, each with `words` beside what it needs."""

    def step(hop, settings):
        link = free_port()
        beside = [*words, *equal_terms(words, settings)]
        receptor = [binary, f"-P{hop.far.address}:{link}", *beside]
        for name, target in hop.targets.items():
            # One server for each entrance: -PNUMBER is the port that the client came in by.
            receptor.append(f"DEST={target}:-P{hop.ports[name]}")
        started = begin([], "receptor", receptor, [link], hop.far)
        connector = [binary, f"SERVER=sockmux://{hop.far.address}:{link}", *beside]
        connector += [f"PORT={entrance}" for entrance in hop.entrances().values()]
        ports = hop.ports.values()
        return started + begin(started, "connector", connector, ports, hop.near)

    return step


def ours_plain(binary):
    """A step that starts one hop without a tunnel, a process for each server."""

    def step(hop, settings):
        started = []
        for name, target in hop.targets.items():
            command = [binary, f"-P{hop.entrance(name)}", f"SERVER=tcprelay://{target}"]
            command += equal_terms([], settings)
            started += begin(started, "plain relay", command, [hop.ports[name]], hop.near)
        return started

    return step


def equal_terms(words, settings):
    """Ours would choose its sockets' congestion control by path; others take the system's."""
    chooses = settings.mixed_congestion or any("congestion" in word for word in words)
    return [] if chooses else ["SOXCONF=congestion:system"]


def begin(before, name, command, ports, host):
    """Starts one process; if it does not come up, those that were started before it are ended."""
    try:
        return [Process(name, command, ports, host=host)]
    except CannotStart:
        for process in reversed(before):
            process.stop()
        raise


def find(program, package):
    """Its whole path: sshd asks for it, and sbin is not in everybody's PATH."""
    path = shutil.which(program) or shutil.which(program, path="/usr/local/sbin:/usr/sbin:/sbin")
    if not path:
        where = f"Debian package {package}" if package else "looked for on PATH"
        raise CannotStart(f"{program}: not installed ({where})")
    return path


def write(settings, name, ports, lines):
    path = os.path.join(settings.scratch, f"{name}.{min(ports.values())}.conf")
    with open(path, "w") as file:
        file.write("\n".join(lines) + "\n")
    return path


def key(settings, name):
    """A key for this run only."""
    path = os.path.join(settings.scratch, f"{name}-key")
    if not os.path.exists(path):
        make("ssh-keygen", ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path])
    return path


def certificate(settings):
    """A self-signed certificate and its key for this run only, in one file."""
    path = os.path.join(settings.scratch, "certificate.pem")
    if not os.path.exists(path):
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt"]
        command += ["ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=perf"]
        make("openssl", [*command, "-keyout", path + ".key", "-out", path + ".part"])
        with open(path + ".key") as secret, open(path + ".part") as public:
            text = secret.read() + public.read()
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
    return path


def make(name, command):
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise CannotStart(f"{name}: {error.strerror}") from error
    if done.returncode != 0:
        raise CannotStart(f"{name}: {done.stderr.strip()[-200:]}")
