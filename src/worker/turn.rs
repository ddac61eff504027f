//! A turn behind its completions: run timers, flush writes, retry operations that waited for
//! buffers, and decide whether the run is over. The event loop calls [`Worker::finish_turn`] after
//! the completions and [`Worker::time_left`] before it sleeps.

use std::time::Duration;

use super::context::waiters::Waiter;
use super::context::{Drain, counts};
use super::ingress::services::counts_clients;
use super::supervisor::{State, Supervisor};
use super::takeover::Takeover;
use super::{Stopped, Worker};
use crate::io::driver::{BufferClass, Driver};
use crate::limits::{LEAVE_MILLIS, OVERDUE_AT_ONCE};
use crate::session::Moment;

impl<D: Driver> Worker<D> {
    /// Tunnels that have received more than a turn takes go on, a few in each turn.
    pub(super) fn go_on(&mut self) {
        for _ in 0..self.streams.tunnels().overdue_count().min(OVERDUE_AT_ONCE) {
            let Some(key) = self.streams.tunnels_mut().take_overdue() else { return };
            self.streams.go_on(&mut self.cx, &mut self.datagrams, key);
            self.apply_effects();
        }
    }

    /// Runs timers and flushes. `Some` when the run is over.
    pub(super) fn finish_turn(&mut self) -> Option<Stopped> {
        self.reap_orphans();
        self.streams.make_room(&mut self.cx);
        // Before the flush, so that peers learn of ended flows in this turn.
        self.run_timers();
        self.proxies.dial_after_closing(&mut self.cx, &mut self.streams);
        let is_handing_over = self.takeover.as_ref().is_some_and(Takeover::is_offering);
        self.ingress.gate_entrances(&mut self.cx, &mut self.streams, is_handing_over);
        self.streams.join_quiescent(&mut self.cx, self.relay.room());
        self.apply_effects();
        self.write_all();
        self.streams.free_stalled_buffers(&mut self.cx);
        self.retry_buffer_waiters();
        self.apply_effects();
        self.streams.tunnels_mut().take_deadlines();
        if !self.ingress.any_closing() {
            self.leaving = None;
        }
        if self.tunnel_by.is_some_and(|until| until <= self.cx.now) {
            self.tunnel_by = None;
            self.is_not_taken_over(
                "the old process has a tunnel, and this one cannot have its own",
            );
        }
        self.report();
        self.ended()
    }

    /// Tells the service manager what has changed.
    pub(super) fn report(&mut self) {
        let Some(supervisor) = &mut self.supervisor else { return };
        let streams = self.streams.conn_count() + self.relay.len() + self.datagrams.len();
        let tunnels = self.streams.tunnels();
        let state = State {
            accepts: self.succession.is_none(),
            has_tunnels: self.cx.plan.link.has_tunnels(),
            up: tunnels.up().len(),
            changes: tunnels.up_changes(),
            draining: (self.cx.drain != Drain::No).then_some(streams),
        };
        supervisor.report(self.cx.now, &state, || tunnels.suspended_count());
    }

    /// Runs everything that is due.
    pub(super) fn run_timers(&mut self) {
        let drains = self.cx.drain != Drain::No;
        self.streams.tunnels_on_time(&mut self.cx);
        self.apply_effects();
        for _ in 0..self.datagrams.paused_count() {
            let Some(source) = self.datagrams.take_due(self.cx.now) else { break };
            self.read_source(source);
        }
        self.streams.execs_mut().on_time(&mut self.cx);
        let (cx, tunnels) = (&mut self.cx, self.streams.tunnels_mut());
        self.datagrams.flows_on_time(cx, tunnels, drains);
        self.ingress.names_on_time(&mut self.cx);
        if let Some(connector) = self.streams.connector_mut() {
            connector.on_time(&mut self.cx, drains);
            connector.command_on_time(&mut self.cx);
        }
        self.ingress.listeners_on_time(&mut self.cx, &mut self.streams);
        self.ingress.wanted_on_time(&mut self.cx, &mut self.streams);
        self.forwards.asked_ports_on_time(&mut self.cx, &mut self.streams, &mut self.datagrams);
        self.cx.log_limit_on_time();
        self.cx.dials_on_time();
        self.apply_effects();
        self.sweep_if_due();
        self.apply_effects();
    }

    /// When something is due next. Asking changes nothing.
    fn next_timeout(&self) -> Option<Moment> {
        let drains = self.cx.drain != Drain::No;
        let connector = self.streams.connector();
        let all = [
            self.streams.tunnels().next_timeout(),
            self.datagrams.next_read(),
            self.datagrams.next_flow_timeout(&self.cx, drains),
            self.streams.execs().next_timeout(),
            self.ingress.next_name_timeout(),
            self.ingress.next_listener_timeout(self.cx.now),
            self.ingress.next_wanted_timeout(),
            connector.and_then(|connector| connector.next_timeout(self.cx.now, drains)),
            connector.and_then(|connector| connector.command_timeout()),
            self.forwards.next_timeout(),
            self.cx.log_limit.count_at(),
            self.cx.dialer.next_timeout(),
            self.sweep_is_wanted().then(|| self.streams.next_sweep()),
            self.streams.next_join(),
            self.streams.next_buffer_scan(&self.cx),
            self.drain_timeout(),
            self.tunnel_by,
            self.supervisor.as_ref().and_then(Supervisor::next_timeout),
        ];
        all.into_iter().flatten().min()
    }

    /// When a step of the drain is over.
    fn drain_timeout(&self) -> Option<Moment> {
        let farewells = Some(self.farewells_until).filter(|&until| until > self.cx.now);
        match self.cx.drain {
            Drain::Until(until) => [until, farewells].into_iter().flatten().min(),
            Drain::Leaving(until) => Some(until),
            Drain::No | Drain::AtOnce => None,
        }
    }

    fn sweep_is_wanted(&self) -> bool {
        let any = self.streams.conn_count() + self.relay.len() > 0;
        let others = self.ingress.header_read_count()
            + self.streams.execs().len()
            + self.proxies.expected_count();
        self.cx.deadline_count + others > 0 || (self.cx.exits.ends_idle() && any)
    }

    /// Handles expired deadlines. Scans all connections, a few times a second and only while some
    /// have a deadline.
    fn sweep_if_due(&mut self) {
        if !self.sweep_is_wanted() || self.cx.now < self.streams.next_sweep() {
            return;
        }
        if self.cx.exits.ends_idle() {
            let owner_of = |port| self.forwards.owner_of(port);
            let used = self.datagrams.used_by_controls(owner_of).collect();
            self.streams.refresh_controls(used);
        }
        let swept = self.streams.scan_deadlines(&mut self.cx);
        self.relay.sweep(&mut self.cx);
        self.ingress.sweep_header_reads(&mut self.cx);
        self.streams.sweep_execs(&mut self.cx);
        self.proxies.sweep_expected(&mut self.cx, &mut self.streams);
        self.streams.finish_sweep(&mut self.cx, swept);
    }

    /// How long to wait for completions.
    pub(super) fn time_left(&self) -> Option<Duration> {
        if self.has_work_left() {
            return Some(Duration::ZERO);
        }
        let next = self.next_timeout()?;
        Some(Duration::from_micros(next.0.saturating_sub(self.cx.now.0)))
    }

    /// Work is pending that no completion and no timer will trigger; the next turn must not sleep.
    fn has_work_left(&self) -> bool {
        !self.cx.effects.is_empty()
            || self.streams.any_marked()
            || self.proxies.may_dial_next_server(&self.streams)
            || self.cx.can_serve_any()
            // A drain takes no more clients, whatever room there is.
            || (self.cx.drain == Drain::No
                && self.ingress.clients_are_held()
                && self.streams.has_room())
    }

    /// Flushes all marked connections and tunnels.
    fn write_all(&mut self) {
        self.streams.write_conns(&mut self.cx);
        self.streams.write_tunnels(&mut self.cx, &mut self.datagrams);
        // Sending its last frame may end a stream, which marks its connection. What this second
        // pass marks is left to the next turn.
        self.streams.write_conns(&mut self.cx);
        self.streams.mark_unfinished();
    }

    /// Retries operations for which a buffer is available.
    fn retry_buffer_waiters(&mut self) {
        // Links first: the credit and data they bring lets other waiters finish.
        if self.cx.can_serve_links() {
            for key in std::mem::take(&mut self.cx.waiters.links) {
                self.streams.link_has_buffer(&mut self.cx, key);
            }
        }
        if self.cx.can_serve_tunnels() {
            for key in std::mem::take(&mut self.cx.waiters.pool) {
                self.streams.tunnels_mut().pool_available(key);
            }
        }
        for class in [BufferClass::Small, BufferClass::Bulk] {
            let most = self.streams.conn_count() + 2 * self.relay.len();
            self.cx.waiters.prune(class, most, |waiter| match *waiter {
                Waiter::Conn(key) => self.streams.is_starved(key),
                Waiter::Half(key, way) => self.relay.is_waiting(key, way),
            });
            // Not more than there are buffers: the others would only queue again.
            for _ in 0..self.cx.servable(class) {
                match self.cx.waiters.pop(class) {
                    Some(Waiter::Conn(key)) => self.streams.conn_has_buffer(&mut self.cx, key),
                    Some(Waiter::Half(key, way)) => self.relay.resume_half(&mut self.cx, key, way),
                    None => break,
                }
            }
        }
    }

    /// As process 1: reaps orphans that are not this process's own commands.
    pub(super) fn reap_orphans(&mut self) {
        let carrier = self.streams.connector().and_then(|connector| connector.process());
        self.signals.reap_orphans(|process| {
            self.streams.execs().is_ours(process)
                || carrier == Some(process)
                || self.cx.watchdog.process() == Some(process)
        });
    }

    /// Shuts down the sending side of every link, which makes the peers close.
    fn leave(&mut self, until: Option<Moment>) {
        let grace = self.cx.now.after(Duration::from_millis(LEAVE_MILLIS));
        self.cx.drain = Drain::Leaving(until.map_or(grace, |until| until.min(grace)));
        self.streams.tunnels_mut().end_output(&mut self.cx.buffers);
    }

    /// Begins the drain once the last client or tunnel that is to be served has been.
    fn end_when_served(&mut self) {
        if !self.ingress.all_served(&self.cx.plan) || self.cx.drain != Drain::No {
            return;
        }
        let over = match counts_clients(&self.cx.plan) {
            true => self.stream_count() + self.ingress.header_read_count() == 0,
            false => self.streams.tunnels().len() == 0,
        };
        if over {
            self.stop();
        }
    }

    /// Decides whether the run is over, and if so cleans up.
    fn ended(&mut self) -> Option<Stopped> {
        self.end_when_served();
        let tunnels = self.streams.tunnels();
        let stopped = match self.cx.drain {
            _ if self.failed_to_take_over => Stopped::NotTakenOver,
            Drain::No => self.streams.connector()?.link_is_over()?,
            Drain::AtOnce => Stopped::AtOnce,
            Drain::Leaving(until) if tunnels.all_have_read() || self.cx.now >= until => {
                Stopped::Drained
            }
            Drain::Leaving(_) => return None,
            Drain::Until(until) => {
                let farewells = self.cx.now < self.farewells_until;
                let busy = tunnels.any_busy(farewells);
                let coming = self.ingress.any_coming();
                if self.stream_count() == 0 && !busy && !coming {
                    self.leave(until);
                    if !self.streams.tunnels().all_have_read() {
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
        // All commands share one deadline.
        let until = (stopped != Stopped::AtOnce).then(|| self.streams.execs_mut().end_all());
        if let Some(connector) = self.streams.connector_mut() {
            connector.finish_command();
        }
        self.streams.reset_all();
        self.relay.reset_all();
        self.datagrams.end_all();
        if let Some(until) = until {
            self.streams.execs_mut().await_all(until);
        }
        self.cx.log_limit.log_counts(self.cx.now);
        counts::log_stopped(&self.cx, stopped);
        Some(stopped)
    }
}
