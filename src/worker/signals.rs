//! What signals ask for.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;

use tracing::{info, warn};

use super::token::Kind;
use super::{Drain, Worker};
use crate::io::command::reap;
use crate::io::driver::{Driver, Fd};
use crate::io::signals;

/// What comes from outside the loop: signals, stops, answers of the resolver.
#[derive(Debug)]
pub(super) struct Signals {
    /// A byte comes here for each.
    wake: Fd,
    /// Processes that others have left to us, as process 1, may be waited for.
    orphans_wait: bool,
}

impl Signals {
    pub(super) fn new(wake: UnixStream) -> Signals {
        Signals { wake: Rc::new(OwnedFd::from(wake)), orphans_wait: false }
    }
}

impl<D: Driver> Worker<D> {
    /// Asks to be told when the wake channel has something. It is polled and not received from: a stop
    /// has to be heard also while no receive buffer is free.
    pub(super) fn watch_wake(&mut self) {
        self.cx.driver.poll(&self.signals.wake, libc::POLLIN as u32, false, Kind::Wake.number(0));
    }

    /// Bytes for the worker itself.
    pub(super) fn woken(&mut self) {
        let mut buffer = [0; 64];
        let got = loop {
            match rustix::io::read(&self.signals.wake, &mut buffer) {
                Err(rustix::io::Errno::INTR) => {}
                got => break got.unwrap_or(0),
            }
        };
        self.take_in_wakes(&buffer[..got]);
        while let Some(answer) = self.cx.resolver.answer() {
            self.resolved(answer);
            self.apply_effects();
        }
        // What is left in the channel, the poll tells of at once.
        self.watch_wake();
    }

    /// Takes in the bytes of the wake channel. `s` from a stop handle asks for the end, `r` says that
    /// the resolver has answered, the others are signals.
    pub(super) fn take_in_wakes(&mut self, bytes: &[u8]) {
        // One of a kind is as good as many, but for those that end the process.
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
            // It comes every second from then on, until the kernel kills.
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

    /// Logs what there is now and what there was since the beginning.
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

    /// Some process that we, or as process 1 anybody, have started has ended.
    fn children_changed(&mut self) {
        self.cx.watchdog.look();
        self.signals.orphans_wait = std::process::id() == 1;
        self.reap_orphans();
    }

    /// Waits for what others have left to us, as far as nothing of ours stands before it.
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
