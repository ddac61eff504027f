//! Deadlines: what is due is run once a turn, and asking for the next one changes nothing.

use super::{Drain, Worker};
use crate::io::driver::Driver;
use crate::session::Moment;

impl<D: Driver> Worker<D> {
    /// Runs everything that is due.
    pub(super) fn run_timers(&mut self) {
        let drains = self.drain != Drain::No;
        self.tunnels_on_time();
        self.sources_on_time();
        self.execs.on_time(&mut self.cx);
        self.datagrams.flows_on_time(&mut self.cx, &mut self.tunnels, drains);
        self.names_on_time();
        if let Some(connector) = &mut self.connector {
            connector.on_time(&mut self.cx, drains);
            connector.command_on_time(&mut self.cx);
        }
        self.listeners_on_time();
        self.asked_ports_on_time();
        self.cx.log_limit_on_time();
        self.cx.dials_on_time();
        self.apply_effects();
        self.sweep_if_due();
    }

    /// When something is due next.
    pub(super) fn next_timeout(&self) -> Option<Moment> {
        let drains = self.drain != Drain::No;
        let connector = self.connector.as_ref();
        let all = [
            self.tunnels.next_timeout(),
            self.datagrams.next_read(),
            self.datagrams.next_flow_timeout(&self.cx, drains),
            self.execs.next_timeout(),
            self.ingress.next_name_timeout(),
            self.ingress.next_listener_timeout(self.cx.now),
            connector.and_then(|connector| connector.next_timeout(self.cx.now, drains)),
            connector.and_then(|connector| connector.command_timeout()),
            self.forwards.next_timeout(),
            self.cx.log_limit.count_at(),
            self.cx.dialer.next_timeout(),
            self.next_sweep(),
            self.next_join(),
            self.next_buffer_scan(),
            self.drain_timeout(),
        ];
        all.into_iter().flatten().min()
    }

    /// When a step of the drain is over.
    fn drain_timeout(&self) -> Option<Moment> {
        let farewells = Some(self.farewells_until).filter(|&until| until > self.cx.now);
        match self.drain {
            Drain::Until(until) => [until, farewells].into_iter().flatten().min(),
            Drain::Leaving(until) => Some(until),
            Drain::No | Drain::AtOnce => None,
        }
    }
}
