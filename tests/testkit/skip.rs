//! Skipping of tests whose requirements the machine lacks: rights, a device, a program.
//!
//! A skipped test passes for the test harness, so each is printed, with the count so far, past the
//! harness's capture of output. Where the environment variable `CI` is set, it fails instead.

use std::fmt;
use std::io::{self, Write};
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use nix::sched::{CloneFlags, unshare};

use crate::testkit::services;

/// A requirement of a test.
#[derive(Debug, Clone, Copy)]
pub enum Need {
    /// Network and mount namespaces of its own.
    Namespaces,
    /// Devices of its own for a VPN.
    Tun,
    /// An installed program.
    Program(&'static str),
}

impl From<&'static str> for Need {
    fn from(program: &'static str) -> Need {
        Need::Program(program)
    }
}

/// The missing requirement, and the remedy.
impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Need::Namespaces => f.write_str("namespaces cannot be created: run this as root"),
            Need::Tun => f.write_str("/dev/net/tun is missing: modprobe tun"),
            Need::Program(name) => f.write_str(&services::missing(name)),
        }
    }
}

impl Need {
    fn is_met(self) -> bool {
        static NAMESPACES: OnceLock<bool> = OnceLock::new();
        match self {
            Need::Namespaces => *NAMESPACES.get_or_init(can_create_namespaces),
            Need::Tun => Path::new("/dev/net/tun").exists(),
            Need::Program(name) => services::find(name).is_some(),
        }
    }
}

/// Tried on a thread of its own, which takes them with it.
fn can_create_namespaces() -> bool {
    let flags = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS;
    thread::spawn(move || unshare(flags).is_ok()).join().expect("trying does not panic")
}

/// Whether a need is not met, and the calling test skipped for it.
///
/// # Panics
/// If `CI` is set: a test that is skipped there is never run.
pub fn is_skipped(needs: &[Need]) -> bool {
    static SKIPPED: AtomicUsize = AtomicUsize::new(0);
    let Some(missing) = needs.iter().find(|need| !need.is_met()) else { return false };
    let in_ci = std::env::var_os("CI").is_some_and(|set| !set.is_empty());
    assert!(!in_ci, "{missing} (no test is skipped where CI is set)");
    let count = SKIPPED.fetch_add(1, Ordering::Relaxed) + 1;
    let thread = thread::current();
    let test = thread.name().unwrap_or("a test");
    // In one piece, since other tests write too. A log that cannot be written is no reason to fail.
    let line = format!("SKIPPED {test}: {missing} ({count} skipped so far)\n");
    let _ = io::stderr().write_all(line.as_bytes());
    true
}

/// Ends the calling test as skipped unless all needs are met: variants of [`Need`], and names of
/// programs.
#[allow(unused_macros)]
macro_rules! needs {
    ($($need:expr),+ $(,)?) => {{
        #[allow(unused_imports)]
        use $crate::testkit::skip::Need::*;
        if $crate::testkit::skip::is_skipped(&[$($need.into()),+]) {
            return;
        }
    }};
}
#[allow(unused_imports)]
pub(crate) use needs;
