"""Real programs that `perf/soak` has talk through the tunnel all the time, and their servers."""

import os
import pwd
import select
import subprocess
import time

import processes
import relays
from soak_stream import OVER, Lost

LINE_SECS = 0.1


def talk(stream, command, ask, environment=None, stderr=subprocess.STDOUT):
    """A program that answers each line with one: `ask(number)` is what it is asked, and a test of the answer. What it
    says of a lost connection is no such answer."""
    child = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr,
        env={**os.environ, **(environment or {})}, bufsize=0,
    )
    stream.child = child
    number = 0
    try:
        while not OVER.wait(LINE_SECS):
            line, is_right = ask(number)
            child.stdin.write(line.encode() + b"\n")
            if not select.select([child.stdout], [], [], stream.given["patience"])[0]:
                raise Lost("no answer")
            said = child.stdout.readline().decode().strip()
            if not said:
                raise Lost(f"{command[0]} has ended")
            if not is_right(said):
                # A program may have connected anew by itself.
                raise Lost(f"{line!r} was answered {said!r}")
            stream.moved += len(line) + len(said)
            number += 1
    finally:
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            pipe.close()


def psql(stream):
    command = ["psql", "-X", "-q", "-A", "-t", "-h", "127.0.0.1", "-p", str(stream.entrance), "-U", "postgres", "postgres"]
    talk(stream, command, lambda number: (f"SELECT {number} + 1;", lambda said: said == str(number + 1)), QUIET)


QUIET = {"PGSSLMODE": "disable", "PGGSSENCMODE": "disable", "PGCONNECT_TIMEOUT": "60"}


def redis(stream):
    """redis-cli connects anew without a word: the server's number of the connection must stay."""
    key, numbers = f"{stream.key}-{time.monotonic()}", set()

    def ask(number):
        if number % 2:
            return "CLIENT ID", lambda said: numbers.add(said) or len(numbers) == 1
        return f"INCR {key}", lambda said: said == str(number // 2 + 1)

    talk(stream, ["redis-cli", "-p", str(stream.entrance)], ask)


def ssh(stream):
    command = [
        "ssh", "-F", "none", "-i", stream.given["ssh_key"], "-p", str(stream.entrance), "-o", "BatchMode=yes",
        "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR",
        "root@127.0.0.1", "cat",
    ]
    # What the files of the user's shell say is no answer. A lost connection ends the program.
    talk(
        stream, command, lambda number: (f"line {number}", lambda said: said == f"line {number}"),
        stderr=subprocess.DEVNULL,
    )


def pgbench(stream):
    command = ["pgbench", "-n", "-c", "4", "-T", "4", "-h", "127.0.0.1", "-p", str(stream.entrance), "-U", "postgres", "postgres"]
    stream.child = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, **QUIET},
    )
    try:
        said = stream.child.communicate(timeout=stream.given["patience"])[0]
    except subprocess.TimeoutExpired as hangs:
        stream.child.kill()
        stream.child.communicate()
        raise Lost("pgbench hangs") from hangs
    if stream.child.returncode != 0 or "number of failed transactions: 0 " not in said:
        raise Lost(f"pgbench: {said.strip()[-200:]}")


def start_redis(host, _scratch):
    program = relays.find("redis-server", "redis-server")
    relays.find("redis-cli", "redis-tools")
    port = processes.free_port()
    processes.Process("redis-server", [program, "--bind", "127.0.0.1", "--port", str(port), "--save", ""], port, host=host)
    return {"redis": port}


def start_sshd(host, scratch):
    program = relays.find("sshd", "openssh-server")
    relays.find("ssh", "openssh-client")
    keys = {}
    for name in ("host", "user"):
        keys[name] = os.path.join(scratch, f"{name}-key")
        relays.make("ssh-keygen", ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", keys[name]])
    port, config = processes.free_port(), os.path.join(scratch, "sshd.conf")
    with open(config, "w") as file:
        file.write(
            f"ListenAddress 127.0.0.1:{port}\nHostKey {keys['host']}\nAuthorizedKeysFile {keys['user']}.pub\n"
            "StrictModes no\nPermitRootLogin prohibit-password\nPasswordAuthentication no\nUsePAM no\nPidFile none\n"
            "MaxStartups 100\n"
        )
    os.makedirs("/run/sshd", exist_ok=True)
    processes.Process("sshd", [program, "-D", "-e", "-f", config], port, host=host)
    return {"ssh": port}


def start_postgres(host, scratch):
    initdb, server, pgbench_path = (
        relays.find(name, package)
        for name, package in (("initdb", "postgresql"), ("postgres", "postgresql"), ("pgbench", "postgresql-contrib"))
    )
    # It refuses to run as root.
    data, port = os.path.join(scratch, "postgres"), processes.free_port()
    os.mkdir(data)
    owner = pwd.getpwnam("postgres")
    os.chown(data, owner.pw_uid, owner.pw_gid)
    os.chmod(scratch, 0o711)
    as_owner = ["setpriv", f"--reuid={owner.pw_uid}", f"--regid={owner.pw_gid}", "--clear-groups"]
    relays.make("initdb", [*as_owner, initdb, "--auth=trust", "--username=postgres", "--no-sync", "-D", data])
    command = [*as_owner, server, "-D", data, "-c", f"port={port}", "-c", "listen_addresses=127.0.0.1"]
    command += ["-c", "unix_socket_directories=", "-c", "fsync=off", "-c", "synchronous_commit=off"]
    processes.Process("postgres", command, port, host=host)
    make_tables = [pgbench_path, "-i", "-q", "-h", "127.0.0.1", "-p", str(port), "-U", "postgres", "postgres"]
    deadline = time.monotonic() + processes.READY_SECS
    while True:
        # It listens a little before it answers.
        done = subprocess.run(host.enter(make_tables), capture_output=True, text=True, check=False, env={**os.environ, **QUIET})
        if done.returncode == 0:
            return {"postgres": port}
        if time.monotonic() > deadline:
            raise processes.CannotStart(f"pgbench -i: {done.stderr.strip()[-200:]}")
        time.sleep(0.1)


def start(host, scratch):
    """Ports of those that are installed, by name, and why others are not there."""
    ports, missing = {}, []
    for one in (start_redis, start_sshd, start_postgres):
        try:
            ports |= one(host, scratch)
        except (processes.CannotStart, KeyError) as error:
            missing.append(str(error))
    return ports, missing
