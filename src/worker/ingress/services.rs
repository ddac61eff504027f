//! `MAXIMA=service:N`: the process serves this many and then stops.
//!
//! It counts admitted clients where streams begin. Where none begin, as at a receptor with exits
//! only, it counts tunnels that came up.

use tracing::info;

use crate::cli::plan::{LinkPlan, Plan};
use crate::io::driver::Driver;
use crate::io::net;
use crate::worker::context::Cx;
use crate::worker::ingress::Ingress;
use crate::worker::purpose::Purpose;

impl Ingress {
    /// Counts a client or a tunnel. `Err`: the maximum was reached before.
    pub(in crate::worker) fn count_service<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        of: Purpose,
    ) -> Result<(), String> {
        let Some(most) = cx.plan.maxima.services else { return Ok(()) };
        if counts_clients(&cx.plan) == (of == Purpose::Receptor) {
            return Ok(());
        }
        if self.served == most {
            return Err(format!("{most} have been served already (MAXIMA=service:{most})"));
        }
        self.served += 1;
        if self.served == most {
            info!(services = most, "the last that is served (MAXIMA=service); ending with it");
            self.close_listeners_of(cx, of);
        }
        Ok(())
    }

    /// Stops accepting at listeners of a purpose. An inherited socket stays open for its owner.
    fn close_listeners_of<D: Driver>(&mut self, cx: &mut Cx<D>, of: Purpose) {
        for (_, listener) in self.listeners.iter_mut() {
            if listener.purpose != of || listener.is_closing() {
                continue;
            }
            if listener.close() {
                net::shut_down(&listener.fd);
            }
            cx.driver.cancel_all(&listener.fd);
        }
    }
}

/// Whether clients are counted, not tunnels.
pub(in crate::worker) fn counts_clients(plan: &Plan) -> bool {
    let entrances = plan.entrances.len() + plan.unix_entrances.len();
    matches!(plan.link, LinkPlan::Relay { .. }) || entrances > 0
}
