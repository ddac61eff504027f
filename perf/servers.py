"""The servers at the end of every way: iperf3 for bulk, Redis for small messages."""

import socket

from processes import CannotStart, Process, free_port
from relays import find

VALUE_BYTES = 64
# The key that redis-benchmark asks for when it is not told to vary it.
REDIS_KEY = "key:__rand_int__"
# Beside the connections that a load opens: one to look whether a way carries, for example.
SPARE_CLIENTS = 50


def start_iperf3(settings):
    program = find("iperf3", "iperf3")
    port = free_port()
    host = settings.hosts.server
    command = [program, "-s", "-B", host.address, "-p", str(port)]
    return port, Process("iperf3", command, port, host=host)


def start_redis(settings):
    program = find("redis-server", "redis-server")
    find("redis-benchmark", "redis-tools")
    port = free_port()
    host = settings.hosts.server
    command = [program, "--bind", host.address, "--port", str(port), "--daemonize", "no"]
    command += ["--save", "", "--appendonly", "no", "--tcp-backlog", "4096"]
    # Or it answers clients of its own host alone.
    command += ["--protected-mode", "no"]
    command += ["--maxclients", str(settings.connections_max + SPARE_CLIENTS)]
    server = Process("redis-server", command, port, host=host)
    with socket.create_connection((host.address, port), timeout=5) as client:
        client.sendall(f"SET {REDIS_KEY} {'x' * VALUE_BYTES}\r\n".encode())
        answer = client.recv(64)
    if answer != b"+OK\r\n":
        server.stop()
        raise CannotStart(f"redis-server: SET was answered {answer!r}")
    return port, server


SERVERS = {"iperf3": start_iperf3, "redis": start_redis}
