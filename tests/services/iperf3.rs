//! iperf3, whose control connection and datagrams go to the same port number.

use std::net::SocketAddr;
use std::process::Command;

use serde_json::Value;

use super::{Service, free_address, new_dir, program, run};

/// Starts a server.
pub fn start() -> Service {
    let address = free_address();
    let mut server = Command::new(program("iperf3", "iperf3"));
    server.args(["-s", "-B", &address.ip().to_string(), "-p", &address.port().to_string()]);
    Service::start("iperf3", server, address, new_dir())
}

/// What a client says of a run of datagrams for two seconds towards `address`.
pub fn datagrams(address: SocketAddr, words: &[&str]) -> Value {
    let mut client = Command::new(program("iperf3", "iperf3"));
    client
        .args(["-c", &address.ip().to_string(), "-p", &address.port().to_string()])
        .args(["-u", "-t", "2", "-J"])
        .args(words);
    serde_json::from_str(&run(&mut client)).expect("JSON, as asked for")
}
