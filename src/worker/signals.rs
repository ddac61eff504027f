//! Signals, stop requests and child processes. Signal handlers, stop handles and the resolver write
//! bytes to the wake channel; the worker reads them here and acts on them.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;

use tracing::{info, warn};

use super::token::Kind;
use super::{Drain, Worker};
use crate::io::command::reap;
use crate::io::driver::{Driver, Fd};
use crate::io::signals;

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
}

impl<D: Driver> Worker<D> {
    /// Arms a poll of the wake channel. It is polled rather than received from, so that a stop is
    /// noticed even while no receive buffer is free.
    pub(super) fn watch_wake(&mut self) {
        self.cx.driver.poll(&self.signals.wake, libc::POLLIN as u32, false, Kind::Wake.number(0));
    }

    /// The wake channel is readable.
    pub(super) fn woken(&mut self) {
        let mut buffer = [0; 64];
        let got = loop {
            match rustix::io::read(&self.signals.wake, &mut buffer) {
                Err(rustix::io::Errno::INTR) => {}
                got => break got.unwrap_or(0),
            }
        };
        self.handle_wake_bytes(&buffer[..got]);
        while let Some(answer) = self.cx.resolver.answer() {
            self.resolved(answer);
            self.apply_effects();
        }
        // The poll is level-triggered: it completes at once if bytes are left.
        self.watch_wake();
    }

    /// Handles bytes of the wake channel: `s` is a stop request, `r` an answer of the resolver, any
    /// other byte a signal number.
    pub(super) fn handle_wake_bytes(&mut self, bytes: &[u8]) {
        // Repeated signals of a kind are merged, except those that stop the process: a second stop
        // skips the drain.
        let mut seen = 0_u128;
        for &byte in bytes {
            let bit = 1 << (byte & 127);
            match i32::from(byte) {
                libc::SIGTERM | libc::SIGINT | libc::SIGQUIT => self.stop(),
                _ if byte == b's' => self.stop(),
                _ if byte == b'r' || seen & bit != 0 => {}
                signal => self.signalled(signal),
            }
            seen |= bit;
        }
    }

    fn signalled(&mut self, signal: i32) {
        match signal {
            libc::SIGCHLD => self.children_changed(),
            libc::SIGUSR1 => self.log_state(),
            libc::SIGHUP => info!(
                "SIGHUP: there is nothing to reload; what the command line says holds until the end"
            ),
            // After the soft limit the kernel sends this every second, until it kills at the hard
            // limit.
            libc::SIGXCPU if self.drain != Drain::No => {}
            libc::SIGXCPU => {
                warn!("SIGXCPU: the limit of processor time (ulimit -t) is reached");
                self.stop();
            }
            _ => info!(
                signal = signals::name(signal),
                "signal without a meaning; SIGTERM ends the process, SIGUSR1 logs its state"
            ),
        }
    }

    /// Logs the current state and the totals since start.
    fn log_state(&mut self) {
        let (bytes_in, bytes_out) = self.tunnels.log_state(self.cx.now);
        let bytes_in = self.cx.counters.past_bytes_in + bytes_in;
        let bytes_out = self.cx.counters.past_bytes_out + bytes_out;
        info!(
            tunnels = self.tunnels.len(),
            up = self.tunnels.up().len(),
            streams = self.conns.len(),
            relayed = self.relay.len(),
            flows = self.datagrams.len(),
            commands = self.execs.len(),
            bytes_in,
            bytes_out,
            relayed_up = self.cx.counters.relayed_up,
            relayed_down = self.cx.counters.relayed_down,
            datagrams_in = self.cx.counters.datagrams_in,
            datagrams_out = self.cx.counters.datagrams_out,
            draining = self.drain != Drain::No,
            secs = self.cx.now.0 / 1_000_000,
            "state"
        );
    }

    /// A child process, or as process 1 any orphan, has exited.
    fn children_changed(&mut self) {
        self.cx.watchdog.look();
        self.signals.orphans_wait = std::process::id() == 1;
        self.reap_orphans();
    }

    /// As process 1: reaps orphans, except while a process that another part of the worker waits
    /// for is next.
    pub(super) fn reap_orphans(&mut self) {
        if !self.signals.orphans_wait {
            return;
        }
        let carrier = self.connector.as_ref().and_then(|connector| connector.process());
        let ours = |process| {
            self.execs.is_ours(process)
                || carrier == Some(process)
                || self.cx.watchdog.process() == Some(process)
        };
        self.signals.orphans_wait = reap(ours);
    }
}
