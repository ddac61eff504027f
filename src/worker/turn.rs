//! The end of a turn: run timers, flush writes, retry operations that waited for buffers, and
//! decide whether the run is over. The event loop calls [`Worker::finish_turn`] after the
//! completions and [`Worker::time_left`] before it sleeps.

use std::time::Duration;

use super::{Drain, Stopped, Worker};
use crate::io::driver::Driver;
use crate::io::net;
use crate::limits::LEAVE_MILLIS;
use crate::session::Moment;

impl<D: Driver> Worker<D> {
    /// Runs timers and flushes. `Some` when the run is over.
    pub(super) fn finish_turn(&mut self) -> Option<Stopped> {
        self.reap_orphans();
        // Before the flush, so that peers learn of ended flows in this turn.
        self.run_timers();
        self.dial_after_closing();
        self.gate_entrances();
        self.join_quiescent();
        self.apply_effects();
        self.write_all();
        self.free_stalled_buffers();
        self.retry_buffer_waiters();
        self.apply_effects();
        self.ended()
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
            || self.conns.any_marked()
            || self.tunnels.any_marked()
            || self.may_dial_next_server()
            || self.cx.can_serve_any()
            // A drain takes no more clients, whatever room there is.
            || (self.drain == Drain::No && self.ingress.clients_are_held() && self.has_room())
    }

    /// Flushes all marked connections and tunnels.
    fn write_all(&mut self) {
        self.write_conns();
        self.write_tunnels();
        // Sending its last frame may end a stream, which marks its connection. What this second
        // pass marks is left to the next turn.
        self.write_conns();
        self.mark_unfinished();
    }

    /// Shuts down the sending side of every link, which makes the peers close.
    fn leave(&mut self, until: Option<Moment>) {
        let grace = self.cx.now.after(Duration::from_millis(LEAVE_MILLIS));
        self.drain = Drain::Leaving(until.map_or(grace, |until| until.min(grace)));
        self.tunnels.end_output();
    }

    /// Decides whether the run is over, and if so cleans up.
    fn ended(&mut self) -> Option<Stopped> {
        self.end_when_served();
        let stopped = match self.drain {
            Drain::No => self.connector.as_ref()?.link_is_over()?,
            Drain::AtOnce => Stopped::AtOnce,
            Drain::Leaving(until) if self.tunnels.all_have_read() || self.cx.now >= until => {
                Stopped::Drained
            }
            Drain::Leaving(_) => return None,
            Drain::Until(until) => {
                let farewells = self.cx.now < self.farewells_until;
                let busy = self.tunnels.any_busy(farewells);
                let coming = self.ingress.any_coming();
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
        // All commands share one deadline.
        let until = (stopped != Stopped::AtOnce).then(|| self.execs.end_all());
        if let Some(connector) = &mut self.connector {
            connector.finish_command();
        }
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
