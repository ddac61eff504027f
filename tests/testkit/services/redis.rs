//! Redis without persistence.

use std::net::SocketAddr;
use std::process::Command;

use super::{Service, free_address, new_dir, program};

/// Starts an empty server.
pub fn start() -> Service {
    let dir = new_dir();
    let address = free_address();
    let mut server = Command::new(program("redis-server"));
    server
        .args(["--bind", &address.ip().to_string(), "--port", &address.port().to_string()])
        .args(["--save", "", "--appendonly", "no", "--daemonize", "no", "--loglevel", "warning"])
        .arg("--dir")
        .arg(dir.path());
    Service::start("redis-server", server, address, dir)
}

/// A command of a client (`redis-cli`, `redis-benchmark`) for the server at `address`.
pub fn client(name: &str, address: SocketAddr) -> Command {
    let mut command = Command::new(program(name));
    command.args(["-h", &address.ip().to_string(), "-p", &address.port().to_string()]);
    command
}
