//! Per-exit state from option lists: destinations of proxies and stream limits. Timeouts come from [`crate::cli::plan::Plan::timeouts_of`].

use crate::worker::context::Cx;
use crate::worker::stream::Streams;
use std::net::{IpAddr, SocketAddr};

use crate::cli::plan::Plan;
use crate::io::driver::Driver;
use crate::policy::connection_limits::{ConnectionLimits, LimitGuard};
use crate::policy::destinations::Destinations;

/// Per-exit state that is counted or needed often.
#[derive(Debug)]
pub(super) struct Exits {
    /// By index of the exit in the plan.
    limits: Vec<ConnectionLimits>,
    /// Some exit has an idle timeout.
    pub(super) end_silent: bool,
}

impl Exits {
    pub(super) fn new(plan: &Plan) -> Exits {
        let places = 0..plan.exits.len();
        let end_silent = places.map(Some).chain([None]).any(|at| plan.timeouts_of(at).io.is_some());
        let limits = plan.exits.iter().map(|exit| ConnectionLimits::of_exit(exit.options.maxima));
        Exits { limits: limits.collect(), end_silent }
    }
}

/// The destinations that proxies may reach. `own`: addresses that this process listens at.
pub(in crate::worker) fn destinations(plan: &Plan, own: Vec<SocketAddr>) -> Destinations {
    let mut destinations = Destinations::new(plan.permits.clone(), own);
    for (place, exit) in plan.exits.iter().enumerate() {
        if !exit.options.permits.is_empty() {
            destinations.set_exit(place, exit.options.permits.clone());
        }
    }
    destinations
}

impl Streams {
    /// Acquires a slot from the limits of the process and of the exit.
    ///
    /// # Errors
    /// The reason to refuse the stream.
    pub(in crate::worker) fn acquire_limits<D: Driver>(
        &self,
        cx: &Cx<D>,
        exit: Option<usize>,
        client: Option<IpAddr>,
    ) -> Result<Option<LimitGuard>, String> {
        // With loopback the client has acquired its slot at the entrance.
        let limit_guard =
            if cx.is_loopback() { None } else { cx.connection_limits.acquire(client)? };
        match exit {
            Some(exit) => {
                Ok(LimitGuard::both(limit_guard, self.conns.exits.limits[exit].acquire(client)?))
            }
            None => Ok(limit_guard),
        }
    }
}
