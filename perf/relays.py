"""How each program is started as a relay, with the configuration it gets.

A step gets the ports to connect to, the ports to listen on (both by server name) and the settings,
and returns the processes it started. `settings.scratch` is a directory that goes with the run."""

import getpass
import os
import re
import shutil
import subprocess

from processes import CannotStart, Process, free_port

LOOPBACK = "127.0.0.1"
# Both ciphers are the same work for the processor, so that ssh and stunnel can be compared.
SSH_CIPHER = "aes128-gcm@openssh.com"
TLS_CIPHER = "TLS_AES_128_GCM_SHA256"
# Descriptors that a relay needs beside two for every connection.
SPARE_DESCRIPTORS = 300


def socat(targets, ports, _settings):
    program = find("socat", "socat")
    started = []
    for name, target in targets.items():
        command = [
            program,
            "-b", "65536",
            # Its own queue of 5 makes fifty clients at once wait for SYNs to be sent again.
            f"TCP-LISTEN:{ports[name]},bind={LOOPBACK},fork,reuseaddr,nodelay,backlog=1024",
            f"TCP:{LOOPBACK}:{target},nodelay",
        ]
        started += begin(started, "socat", command, [ports[name]])
    return started


def haproxy(targets, ports, settings):
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
    for name, target in targets.items():
        lines += [f"listen {name}", f" bind {LOOPBACK}:{ports[name]} backlog 4096"]
        lines += [f" server {name} {LOOPBACK}:{target}"]
    config = write(settings, "haproxy", ports, lines)
    return begin([], "haproxy", [program, "-db", "-f", config], ports.values())


def nginx(targets, ports, settings):
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
        f"pid {settings.scratch}/nginx.{min(ports.values())}.pid;",
        f"events {{ worker_connections {descriptors}; }}",
        "stream {",
        " proxy_buffer_size 64k;",
        " proxy_timeout 1h;",
    ]
    for name, target in targets.items():
        lines += [
            " server {",
            f"  listen {LOOPBACK}:{ports[name]} backlog=4096;",
            f"  proxy_pass {LOOPBACK}:{target};",
            " }",
        ]
    config = write(settings, "nginx", ports, [*lines, "}"])
    command = [program, "-e", "stderr", "-p", settings.scratch, "-c", config]
    return begin([], "nginx", command, ports.values())


def stunnel(targets, ports, settings, ends):
    """One end; `ends` is "client" or "server"."""
    program = find("stunnel", "stunnel4")
    lines = ["foreground = yes", "pid =", "debug = err", "syslog = no"]
    lines += ["socket = l:TCP_NODELAY=1", "socket = r:TCP_NODELAY=1"]
    for name, target in targets.items():
        lines += [f"[{name}]", f"accept = {LOOPBACK}:{ports[name]}"]
        lines += [f"connect = {LOOPBACK}:{target}", f"ciphersuites = {TLS_CIPHER}"]
        lines += ["client = yes"] if ends == "client" else [f"cert = {certificate(settings)}"]
    config = write(settings, f"stunnel-{ends}", ports, lines)
    return begin([], f"stunnel {ends}", [program, config], ports.values())


def stunnel_server(targets, ports, settings):
    return stunnel(targets, ports, settings, "server")


def stunnel_client(targets, ports, settings):
    return stunnel(targets, ports, settings, "client")


def ssh(targets, ports, settings):
    """A server of its own that knows one key, and the client that forwards the ports."""
    server, client = find("sshd", "openssh-server"), find("ssh", "openssh-client")
    host_key, user_key = key(settings, "host"), key(settings, "user")
    link = free_port()
    config = write(settings, "sshd", ports, [
        f"ListenAddress {LOOPBACK}:{link}",
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
    started = begin([], "sshd", [server, "-D", "-e", "-f", config], [link])
    command = [client, "-N", "-F", "none", "-p", str(link), "-i", user_key, "-c", SSH_CIPHER]
    words = ["ExitOnForwardFailure=yes", "StrictHostKeyChecking=no", "IdentitiesOnly=yes"]
    words += ["UserKnownHostsFile=/dev/null", "BatchMode=yes", "LogLevel=ERROR", "Compression=no"]
    for word in words:
        command += ["-o", word]
    for name, target in targets.items():
        command += ["-L", f"{LOOPBACK}:{ports[name]}:{LOOPBACK}:{target}"]
    command.append(f"{getpass.getuser()}@{LOOPBACK}")
    return started + begin(started, "ssh", command, ports.values())


def rathole(targets, ports, settings):
    program = find("rathole", None)
    link = free_port()
    lines = {
        "server": ["[server]", f'bind_addr = "{LOOPBACK}:{link}"', 'default_token = "perf"'],
        "client": ["[client]", f'remote_addr = "{LOOPBACK}:{link}"', 'default_token = "perf"'],
    }
    for name, target in targets.items():
        entrance = f'bind_addr = "{LOOPBACK}:{ports[name]}"'
        lines["server"] += [f"[server.services.{name}]", entrance]
        lines["client"] += [f"[client.services.{name}]", f'local_addr = "{LOOPBACK}:{target}"']
    configs = {end: write(settings, f"rathole-{end}", ports, lines[end]) for end in lines}
    started = begin([], "rathole server", [program, "--server", configs["server"]], [link])
    client = [program, "--client", configs["client"]]
    # The server opens the entrances when the client has told it to.
    return started + begin(started, "rathole client", client, ports.values())


def penguin(targets, ports, _settings):
    program = find("penguin", None)
    link = free_port()
    # It would log every connection.
    server = [program, "-q", "server", "--host", LOOPBACK, "--port", str(link)]
    started = begin([], "penguin server", server, [link])
    client = [program, "-q", "client", f"ws://{LOOPBACK}:{link}/ws"]
    for name, target in targets.items():
        client.append(f"{LOOPBACK}:{ports[name]}:{LOOPBACK}:{target}")
    return started + begin(started, "penguin client", client, ports.values())


def ours(binary, words):
    """A step that starts both ends of `binary`, each with `words` beside what it needs."""

    def step(targets, ports, _settings):
        link = free_port()
        receptor = [binary, f"-P{LOOPBACK}:{link}", *words]
        for name, target in targets.items():
            # One server for each entrance: -PNUMBER is the port that the client came in by.
            receptor.append(f"DEST={LOOPBACK}:{target}:-P{ports[name]}")
        started = begin([], "receptor", receptor, [link])
        connector = [binary, f"SERVER=sockmux://{LOOPBACK}:{link}", *words]
        connector += [f"PORT={LOOPBACK}:{port}" for port in ports.values()]
        return started + begin(started, "connector", connector, ports.values())

    return step


def ours_plain(binary):
    """A step that starts one hop without a tunnel, a process for each server."""

    def step(targets, ports, _settings):
        started = []
        for name, target in targets.items():
            command = [binary, f"-P{LOOPBACK}:{ports[name]}"]
            command.append(f"SERVER=tcprelay://{LOOPBACK}:{target}")
            started += begin(started, "plain relay", command, [ports[name]])
        return started

    return step


def begin(before, name, command, ports):
    """Starts one process; if it does not come up, those that were started before it are ended."""
    try:
        return [Process(name, command, ports)]
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
