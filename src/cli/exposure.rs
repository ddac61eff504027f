//! What is said, at start and by `--check`, of a persistent connection that others can read.

use std::net::IpAddr;

use super::plan::{Bind, LinkPlan, Plan};

/// How to protect a persistent connection in clear.
const REMEDY: &str = "encrypt it: make a key at each end by `sockmux-uring keygen`, and give each end \
                      the other's by TLSCONF=peer:SHA256:...";

/// Where no other host can see it.
const STAYS_HERE: &str = "it stays on this machine";

/// A persistent connection over TCP without encryption.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InClear {
    /// What to do about it, if that is needed.
    pub remedy: &'static str,
    /// At a receptor: who may come, and be a peer by that alone.
    pub may_come: Option<String>,
    /// No other host can see it.
    pub is_local: bool,
}

/// Of a plan's persistent connection. `None`: it has none over TCP, or encrypts it.
pub fn of(plan: &Plan) -> Option<InClear> {
    if plan.encryption.is_some() {
        return None;
    }
    let is_loopback = |host: &str| {
        host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
            || host.eq_ignore_ascii_case("localhost")
    };
    let is_local = match &plan.link {
        LinkPlan::Listen(binds) => {
            binds.iter().all(|Bind { host, .. }| host.as_deref().is_some_and(is_loopback))
        }
        LinkPlan::Connect(target) => is_loopback(&target.host),
        _ => return None,
    };
    let may_come = match plan.link {
        LinkPlan::Listen(_) => plan.who_may_connect(),
        _ => None,
    };
    let remedy = if is_local { STAYS_HERE } else { REMEDY };
    Some(InClear { remedy, may_come, is_local })
}
