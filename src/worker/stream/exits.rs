//! Per-exit state and policy from option lists: accepted clients, destinations of proxies, stream
//! limits. Timeouts come from [`crate::cli::plan::Plan::timeouts_of`].

use std::net::{IpAddr, SocketAddr};

use crate::cli::hostlist::ClientName;
use crate::cli::plan::{Caller, ExitKind, Plan};
use crate::io::driver::Driver;
use crate::policy::connection_limits::{ConnectionLimits, LimitGuard};
use crate::policy::destinations::Destinations;
use crate::policy::routing::NameWanted;
use crate::worker::Worker;

/// Per-exit state that is counted or needed often.
#[derive(Debug)]
pub(in crate::worker) struct Exits {
    /// By index of the exit in the plan.
    limits: Vec<ConnectionLimits>,
    /// Some exit has an idle timeout.
    pub(in crate::worker) end_silent: bool,
}

impl Exits {
    pub(in crate::worker) fn new(plan: &Plan) -> Exits {
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

impl<D: Driver> Worker<D> {
    /// Whether an exit accepts a caller, or the reason why not.
    ///
    /// # Errors
    /// The verdict depends on the caller's name, which is unknown.
    pub(in crate::worker) fn exit_takes(
        &self,
        exit: usize,
        caller: &Caller,
        name: ClientName<'_>,
    ) -> Result<Result<(), &'static str>, NameWanted> {
        let plan = &self.cx.plan.exits[exit];
        if let Some(list) = &plan.options.reliable
            && !list.verdict(caller, name).ok_or(NameWanted)?
        {
            return Ok(Err("RELIABLE= of its exit"));
        }
        match plan.way {
            // The destinations of a proxy may depend on the name, too.
            ExitKind::Proxy(proxy)
                if self.cx.destinations.want_name(proxy, Some(exit), caller, name) =>
            {
                Err(NameWanted)
            }
            ExitKind::Proxy(_) => Ok(Ok(())),
            _ => {
                let verdict = self.cx.plan.permits_client(&plan.protocol, caller, name);
                let permitted = verdict.ok_or(NameWanted)?;
                Ok(if permitted { Ok(()) } else { Err("PERMIT=") })
            }
        }
    }

    /// Acquires a slot from the limits of the process and of the exit.
    ///
    /// # Errors
    /// The reason to refuse the stream.
    pub(in crate::worker) fn acquire_limits(
        &self,
        exit: Option<usize>,
        client: Option<IpAddr>,
    ) -> Result<Option<LimitGuard>, String> {
        // With loopback the client has acquired its slot at the entrance.
        let limit_guard =
            if self.is_loopback() { None } else { self.cx.connection_limits.acquire(client)? };
        match exit {
            Some(exit) => {
                Ok(LimitGuard::both(limit_guard, self.conns.exits.limits[exit].acquire(client)?))
            }
            None => Ok(limit_guard),
        }
    }
}
