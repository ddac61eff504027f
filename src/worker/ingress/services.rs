//! `MAXIMA=service:N`: the process serves this many and then stops.
//!
//! It counts admitted clients where streams begin. Where none begin, as at a receptor with exits
//! only, it counts tunnels that came up.

use tracing::info;

use crate::cli::plan::LinkPlan;
use crate::io::driver::Driver;
use crate::io::net;
use crate::worker::purpose::Purpose;
use crate::worker::{Drain, Worker};

impl<D: Driver> Worker<D> {
    /// Whether clients are counted, not tunnels.
    fn counts_clients(&self) -> bool {
        let plan = &self.cx.plan;
        let entrances = plan.entrances.len() + plan.unix_entrances.len();
        matches!(plan.link, LinkPlan::Relay { .. }) || entrances > 0
    }

    /// Counts a client or a tunnel. `Err`: the maximum was reached before.
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

    /// Stops accepting at listeners of a purpose. An inherited socket stays open for its owner.
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

    /// Begins the drain once the last one has been served.
    pub(in crate::worker) fn end_when_served(&mut self) {
        let Some(most) = self.cx.plan.maxima.services else { return };
        if self.ingress.served < most || self.drain != Drain::No {
            return;
        }
        let waiting = self.stream_count() + self.ingress.header_reads.len();
        let over = match self.counts_clients() {
            true => waiting == 0,
            false => self.tunnels.len() == 0,
        };
        if over {
            self.stop();
        }
    }
}
