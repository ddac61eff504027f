//! Signals, stop requests and child processes. Signal handlers, stop handles and the resolver write
//! bytes to the wake channel, which is read here. [`super::dispatch`] does what they ask for.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;

use tracing::info;

use super::context::Cx;
use super::token::Kind;
use crate::io::command::reap;
use crate::io::driver::{Driver, Fd};
use crate::io::signals;
use crate::io::{control, takeover};

/// What the process is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Demand {
    Stop,
    /// The limit of processor time is reached.
    OutOfTime,
    LogState,
    /// SIGHUP: files that were rotated are opened anew.
    Reopen,
    /// A child process, or as process 1 any orphan, has exited.
    ChildrenChanged,
    /// A successor has come, or is ready.
    TakeOver,
    /// An operator asks.
    Control,
}

/// The wake channel and the state of adopted child processes.
#[derive(Debug)]
pub(super) struct Signals {
    /// Receives one byte for each event.
    wake: Fd,
    /// As process 1: orphaned processes may have to be reaped.
    orphans_wait: bool,
}

impl Signals {
    pub(super) fn new(wake: UnixStream) -> Signals {
        Signals { wake: Rc::new(OwnedFd::from(wake)), orphans_wait: false }
    }

    /// Arms a poll of the wake channel. It is polled rather than received from, so that a stop is
    /// noticed even while no receive buffer is free.
    pub(super) fn watch_wake<D: Driver>(&self, cx: &mut Cx<D>) {
        // The poll is level-triggered: it completes at once if bytes are left.
        cx.driver.poll(&self.wake, libc::POLLIN as u32, false, Kind::Wake.number(0));
    }

    /// The wake channel is readable.
    pub(super) fn read(&self) -> Vec<Demand> {
        let mut buffer = [0; 64];
        let got = loop {
            match rustix::io::read(&self.wake, &mut buffer) {
                Err(rustix::io::Errno::INTR) => {}
                got => break got.unwrap_or(0),
            }
        };
        demands(&buffer[..got])
    }

    /// A child process, or as process 1 any orphan, has exited.
    pub(super) fn children_changed(&mut self) {
        self.orphans_wait = std::process::id() == 1;
    }

    /// As process 1: reaps orphans, except while a process that another part of the worker waits
    /// for is next.
    pub(super) fn reap_orphans(&mut self, is_ours: impl Fn(u32) -> bool) {
        if self.orphans_wait {
            self.orphans_wait = reap(is_ours);
        }
    }
}

/// What bytes of the wake channel ask for: `s` is a stop request, `t` a request of a successor, `c` one
/// of an operator, `r` an answer of the resolver, any other byte a signal number.
fn demands(bytes: &[u8]) -> Vec<Demand> {
    let mut demands = Vec::new();
    // Repeated signals of a kind are merged, except those that stop the process: a second stop
    // skips the drain.
    let mut seen = 0_u128;
    for &byte in bytes {
        let bit = 1 << (byte & 127);
        match i32::from(byte) {
            libc::SIGTERM | libc::SIGINT | libc::SIGQUIT => demands.push(Demand::Stop),
            _ if byte == b's' => demands.push(Demand::Stop),
            _ if byte == takeover::desk::WAKE => demands.push(Demand::TakeOver),
            _ if byte == control::desk::WAKE => demands.push(Demand::Control),
            _ if byte == b'r' || seen & bit != 0 => {}
            signal => demands.extend(demand(signal)),
        }
        seen |= bit;
    }
    demands
}

fn demand(signal: i32) -> Option<Demand> {
    match signal {
        libc::SIGCHLD => return Some(Demand::ChildrenChanged),
        libc::SIGUSR1 => return Some(Demand::LogState),
        libc::SIGXCPU => return Some(Demand::OutOfTime),
        libc::SIGHUP => return Some(Demand::Reopen),
        _ => info!(
            signal = signals::name(signal),
            "signal without a meaning; SIGTERM ends the process, SIGUSR1 logs its state"
        ),
    }
    None
}
