//! A network of the test's own, where it may set what belongs to the whole machine otherwise.

use std::process::Command;

use nix::sched::{CloneFlags, unshare};

/// Puts the calling thread, and with it the threads and processes that it starts from now on, into
/// a new network namespace whose only device is a loopback with this MTU. It goes with the last of
/// them.
///
/// # Panics
/// If whoever runs the test is not root.
pub fn enter_new(loopback_mtu_bytes: u32) {
    unshare(CloneFlags::CLONE_NEWNET).unwrap_or_else(|e| {
        panic!("a network namespace is needed, for which run this as root: {e}")
    });
    ip(&format!("link set lo mtu {loopback_mtu_bytes} up"));
}

/// Runs `ip` with these words, in the network of the calling thread.
pub fn ip(words: &str) {
    let status = Command::new("ip").args(words.split(' ')).status();
    let status = status.unwrap_or_else(|e| panic!("ip is missing: apt-get install iproute2: {e}"));
    assert!(status.success(), "ip {words}: {status}");
}
