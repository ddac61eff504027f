//! Shared parts of the tests. For whole programs: the real binary as a child process, a tunnel of two of
//! them, plain servers and clients whose every byte is checked, a proxy that damages the persistent
//! connection on demand, and real services. For sessions under virtual time, and the fuzz targets:
//! [`pure`]. For both: [`recording`].

// Each test executable uses some of this, and `pub` reaches no further than it.
#![allow(dead_code, unreachable_pub)]

pub mod authority;
pub mod datagrams;
pub mod delay_line;
pub mod engine;
pub mod entrance;
pub mod fifos;
pub mod keys;
pub mod lease;
pub mod link_proxy;
pub mod log;
pub mod net;
pub mod network;
pub mod openssl;
pub mod original;
pub mod pattern;
pub mod peer;
pub mod peer_v1;
pub mod pipes;
pub mod program;
pub mod protocol;
pub mod pure;
pub mod recording;
pub mod replay;
pub mod serial_line;
pub mod servers;
pub mod services;
pub mod skip;
pub mod stories;
pub mod successor;
pub mod tap;
pub mod traffic;
pub mod tunnel;

use std::time::{Duration, Instant};

/// How long a test waits for anything that must happen but has no time of its own. Generous: a
/// debug build on a busy machine of two cores; reached only when something is broken.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// How long a count must not change to be taken for blocked. A segment that a full socket had to drop is
/// retransmitted after 0.2 s, 0.4 and 0.8: for so long nothing moves although no side is blocked.
pub const STILL: Duration = Duration::from_secs(2);

/// Waits until `count` has not grown for a while, because its source is blocked, and returns it.
pub fn wait_until_still(count: impl Fn() -> u64) -> u64 {
    loop {
        let before = count();
        if !eventually(STILL, || count() != before) {
            return before;
        }
    }
}

/// Asks `condition` again and again until it holds. True as soon as it does, false when
/// `deadline` has passed.
pub fn eventually(deadline: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + deadline;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
