//! The end of each turn: the clock is looked at, and everything is written at once.

use std::time::Duration;

use super::{Drain, Key, Stopped, Worker};
use crate::io::driver::Driver;
use crate::io::net;
use crate::limits::{LEAVE_MILLIS, SWEEP_MILLIS};
use crate::session::Moment;
use crate::worker::stream::conn::{ReadMode, Stage};

impl<D: Driver> Worker<D> {
    /// Looks at the clock and writes. `Some` when the run is over.
    pub(super) fn finish_turn(&mut self) -> Option<Stopped> {
        self.tunnels_on_time();
        self.datagrams.sources_on_time(&mut self.cx, &mut self.tunnels);
        self.execs.on_time(&mut self.cx);
        self.reap_orphans();
        // Before anything is written: peers are to hear of flows that end.
        self.end_silent_flows();
        self.names_on_time();
        self.cx.dials_on_time();
        self.apply_effects();
        self.sweep_if_due();
        self.dial_after_closing();
        self.gate_entrances();
        self.join_resting();
        self.apply_effects();
        self.write_all();
        self.free_stalled_buffers();
        self.retry_buffer_waiters();
        self.apply_effects();
        self.ended()
    }

    /// How long to wait for completions.
    pub(super) fn time_to_next(&mut self) -> Option<Duration> {
        let dial = self.dial_if_due();
        let (listeners, flows) = (self.listeners_on_time(), self.end_silent_flows());
        let asked = self.asked_ports_on_time();
        let (command, execs) = (self.command_on_time(), self.execs.on_time(&mut self.cx));
        // Asked last: each of these may have given somebody something to write.
        if self.has_work_left() {
            return Some(Duration::ZERO);
        }
        let sessions = self.tunnels.next_timeout();
        let sweep = self.sweep_is_wanted().then_some(self.next_sweep);
        let drain = match self.drain {
            Drain::Until(until) => until,
            Drain::Leaving(until) => Some(until),
            Drain::No | Drain::AtOnce => None,
        };
        let farewells = (matches!(self.drain, Drain::Until(_))
            && self.farewells_until > self.cx.now)
            .then_some(self.farewells_until);
        let names = self.names.oldest().map(|(_, until)| until);
        let (dials, joins) = (self.cx.dialer.next_timeout(), self.next_join());
        let resting = self.datagrams.next_read();
        let log = self.cx.log_limit_on_time();
        let missed = self.next_look_for_buffers();
        let next = [
            sessions, sweep, drain, farewells, dial, listeners, flows, names, resting, command,
            execs, asked, dials, joins, log, missed,
        ]
        .into_iter()
        .flatten()
        .min()?;
        Some(Duration::from_micros(next.0.saturating_sub(self.cx.now.0)))
    }

    /// Something can be done now that no completion and no time will call for: the next turn does it,
    /// without sleeping.
    fn has_work_left(&self) -> bool {
        !self.cx.effects.is_empty()
            || !self.dirty_conns.is_empty()
            || self.tunnels.any_marked()
            || self.may_dial_next_server()
            || self.cx.may_feed_any()
            || (self.clients_held && self.has_room())
    }

    fn sweep_is_wanted(&self) -> bool {
        let any = self.conns.len() + self.relay.len() > 0;
        let others = self.greetings.len() + self.execs.len() + self.expected_conns.len();
        self.cx.deadline_count + others > 0 || (self.exits.end_silent && any)
    }

    /// Ends connections whose patience is over. Looks at all of them, a few times a second
    /// and only while some have a deadline.
    fn sweep_if_due(&mut self) {
        if !self.sweep_is_wanted() || self.cx.now < self.next_sweep {
            return;
        }
        let now = self.cx.now;
        if self.exits.end_silent {
            self.wake_controls();
        }
        self.next_sweep = now.after(Duration::from_millis(SWEEP_MILLIS));
        let quiet = now.0.saturating_sub(SWEEP_MILLIS * 1_000);
        let (mut due, mut calm): (Vec<Key>, Vec<Key>) = (Vec::new(), Vec::new());
        self.cx.deadline_count = 0;
        for (key, conn) in self.conns.iter() {
            let idle = self.cx.plan.timeouts_of(conn.exit).io;
            let idle_over = idle.is_some_and(|idle| conn.last_data.after(idle) <= now);
            match conn.deadline {
                Some(deadline) if deadline <= now => due.push(key),
                _ if idle_over => due.push(key),
                Some(_) => self.cx.deadline_count += 1,
                None => {}
            }
            if conn.read_mode == ReadMode::Busy {
                self.cx.deadline_count += 1;
                if conn.last_data.0 < quiet {
                    calm.push(key);
                }
            }
        }
        self.relay.sweep(&mut self.cx);
        self.sweep_greetings();
        let conns = &self.conns;
        self.execs.sweep(&mut self.cx, |key| conns.get(key).is_some());
        self.sweep_expected();
        for key in calm {
            self.demote(key);
        }
        for key in due {
            self.deadline_expired(key);
        }
    }

    /// What goes beside a control connection is its data, too: it is as silent as all of them.
    fn wake_controls(&mut self) {
        let mut used: Vec<(Key, Moment)> = Vec::new();
        let of_conns = self.conns.iter();
        used.extend(of_conns.filter_map(|(_, conn)| Some((conn.beside?, conn.last_data))));
        let owner_of = |port| Some(self.asked.get(port)?.owner);
        used.extend(self.datagrams.used_by_controls(owner_of));
        for (control, when) in used {
            if let Some(conn) = self.conns.get_mut(control) {
                conn.last_data = conn.last_data.max(when);
            }
        }
    }

    /// Ends flows that have been silent for too long; when to look again.
    fn end_silent_flows(&mut self) -> Option<Moment> {
        let drains = self.drain != Drain::No;
        self.datagrams.flows_on_time(&mut self.cx, &mut self.tunnels, drains)
    }

    fn deadline_expired(&mut self, key: Key) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        if let Stage::Dialing(_) = conn.stage {
            // That has TIMEOUT=con.
            return;
        }
        if let Stage::ConnectingUnix(..) = conn.stage {
            self.retry_unix_connect(key);
            return;
        }
        if matches!(conn.stage, Stage::Waiting) {
            return self.waited_in_vain(key);
        }
        if matches!(conn.stage, Stage::ProxyHandshake(_)) {
            return self.talk_patience_over(key);
        }
        if self.look_at_broken(key) {
            return;
        }
        let over = std::io::Error::from(std::io::ErrorKind::TimedOut);
        self.conn_failed(key, "timed out", &over);
    }

    /// Writes to every connection and every tunnel that has something.
    fn write_all(&mut self) {
        self.write_conns();
        self.write_tunnels();
        // A stream may end by its last frame going out. What this pass marks in turn is left to the
        // next turn.
        self.write_conns();
        self.mark_unfinished();
    }

    fn write_conns(&mut self) {
        let mut at = 0;
        while at < self.dirty_conns.len() {
            let key = self.dirty_conns[at];
            at += 1;
            if let Some(conn) = self.conns.get_mut(key) {
                conn.dirty = false;
                self.write_conn(key);
            }
        }
        self.dirty_conns.clear();
    }

    /// Says to every peer that nothing more comes, which tells it to close.
    fn leave(&mut self, until: Option<Moment>) {
        let patience = self.cx.now.after(Duration::from_millis(LEAVE_MILLIS));
        self.drain = Drain::Leaving(until.map_or(patience, |until| until.min(patience)));
        self.tunnels.end_output();
    }

    /// Is the run over?
    fn ended(&mut self) -> Option<Stopped> {
        self.end_when_served();
        let stopped = match self.drain {
            Drain::No => self.link_is_over()?,
            Drain::AtOnce => Stopped::AtOnce,
            Drain::Leaving(until) if self.tunnels.all_have_read() || self.cx.now >= until => {
                Stopped::Drained
            }
            Drain::Leaving(_) => return None,
            Drain::Until(until) => {
                let farewells = self.cx.now < self.farewells_until;
                let busy = self.tunnels.any_busy(farewells);
                let coming = self.closing_listeners.len() + self.greetings.len() > 0;
                if self.stream_count() == 0 && !busy && !coming {
                    self.leave(until);
                    if !self.tunnels.all_have_read() {
                        return None;
                    }
                    Stopped::Drained
                } else if until.is_some_and(|until| self.cx.now >= until) {
                    Stopped::DeadlinePassed(self.stream_count())
                } else {
                    return None;
                }
            }
        };
        // All commands have the same time to end.
        let until = (stopped != Stopped::AtOnce).then(|| self.execs.end_all());
        self.finish_command();
        for (_, conn) in self.conns.iter() {
            if let Some(fd) = &conn.fd {
                net::reset_on_close(fd);
            }
        }
        self.relay.reset_all();
        if let Some(until) = until {
            self.execs.await_all(until);
        }
        self.cx.log_limit.log_counts(self.cx.now);
        self.log_stopped(stopped);
        Some(stopped)
    }
}
