//! iperf3, whose control connection and datagrams go to the same port number.

use std::net::SocketAddr;
use std::process::Command;

use serde_json::Value;

use super::{Service, free_address, new_dir, program, run};
use crate::testkit::{DEADLINE, eventually};

/// Starts a server.
pub fn start() -> Service {
    let address = free_address();
    let mut server = Command::new(program("iperf3"));
    server.args(["-s", "-B", &address.ip().to_string(), "-p", &address.port().to_string()]);
    Service::start("iperf3", server, address, new_dir())
}

/// The client's report of two seconds of datagrams towards `address`. It retries while the server has
/// not ended the test before.
pub fn datagrams(address: SocketAddr, words: &[&str]) -> Value {
    let mut client = Command::new(program("iperf3"));
    client
        .args(["-c", &address.ip().to_string(), "-p", &address.port().to_string()])
        .args(["-u", "-t", "2", "-J"])
        .args(words);
    let mut said = Value::Null;
    let is_over = || {
        said = serde_json::from_str(&run(&mut client)).expect("JSON, as asked for");
        said["error"] != "the server is busy running a test. try again later"
    };
    assert!(eventually(DEADLINE, is_over), "{said}");
    said
}
