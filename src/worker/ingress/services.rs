//! `MAXIMA=service:N`: after so many the process takes no more, and ends with them.
//!
//! What is counted are clients that were let in where streams begin; and where none does, as at a
//! receptor that has exits only, persistent connections that came up.

use tracing::info;

use crate::cli::plan::LinkPlan;
use crate::io::driver::Driver;
use crate::io::net;
use crate::worker::ingress::listeners::Purpose;
use crate::worker::{Drain, Worker};

impl<D: Driver> Worker<D> {
    /// Whether clients are what is counted, and not persistent connections.
    fn counts_clients(&self) -> bool {
        let plan = &self.cx.plan;
        let entrances = plan.entrances.len() + plan.unix_entrances.len();
        matches!(plan.link, LinkPlan::Relay { .. }) || entrances > 0
    }

    /// Counts a client, or a persistent connection. An error says that there were enough before.
    pub(in crate::worker) fn count_service(&mut self, of: Purpose) -> Result<(), String> {
        let Some(most) = self.cx.plan.maxima.services else { return Ok(()) };
        if self.counts_clients() == (of == Purpose::Receptor) {
            return Ok(());
        }
        if self.ingress.served == most {
            return Err(format!("{most} have been served already (MAXIMA=service:{most})"));
        }
        self.ingress.served += 1;
        if self.ingress.served == most {
            info!(services = most, "the last that is served (MAXIMA=service); ending with it");
            self.close_listeners_of(of);
        }
        Ok(())
    }

    /// Refuses whoever connects from now on. Where a socket is another process's it stays open for
    /// that one.
    fn close_listeners_of(&mut self, of: Purpose) {
        for (_, listener) in self.ingress.listeners.iter_mut() {
            if listener.purpose != of || listener.is_closing() {
                continue;
            }
            if listener.close() {
                net::shut_down(&listener.fd);
            }
            self.cx.driver.cancel_all(&listener.fd);
        }
    }

    /// Begins the end once all that were to be served have been.
    pub(in crate::worker) fn end_when_served(&mut self) {
        let Some(most) = self.cx.plan.maxima.services else { return };
        if self.ingress.served < most || self.drain != Drain::No {
            return;
        }
        let waiting = self.stream_count() + self.ingress.greetings.len();
        let over = match self.counts_clients() {
            true => waiting == 0,
            false => self.tunnels.len() == 0,
        };
        if over {
            self.stop();
        }
    }
}
