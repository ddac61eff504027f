//! Limits on concurrent streams: per client and in total (`MAXIMA=`), and per peer (`streams=`).
//!
//! Each stream holds a [`LimitGuard`], which releases its count when it is dropped.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::rc::Rc;

use crate::cli::plan::Maxima;

/// The limits of the process or of one exit, and their use.
#[derive(Debug)]
pub struct ConnectionLimits {
    maxima: Maxima,
    /// Owner of the limits, appended to the parameter in messages.
    whose: &'static str,
    in_use: Rc<RefCell<InUse>>,
}

/// Has one entry per client with at least one stream, so it never outgrows the streams.
#[derive(Debug, Default)]
struct InUse {
    by_client: HashMap<IpAddr, u32>,
    together: u32,
}

/// The streams of peers that have a limit, whichever of a peer's tunnels each is of.
#[derive(Debug, Default)]
pub struct PeerLimits {
    /// By the peers' names. Has one entry per peer with at least one stream.
    in_use: Rc<RefCell<HashMap<String, u32>>>,
}

/// Counts one stream against the limits until it is dropped.
#[derive(Debug)]
pub struct LimitGuard {
    counted: Counted,
    /// Guards of other limits that the same stream counts against.
    other: Option<Box<LimitGuard>>,
}

/// What a stream counts as.
#[derive(Debug)]
enum Counted {
    OfClient { client: IpAddr, in_use: Rc<RefCell<InUse>> },
    OfPeer { name: String, in_use: Rc<RefCell<HashMap<String, u32>>> },
}

impl LimitGuard {
    /// Combines two guards of one stream into one.
    pub fn both(limit_guard: Option<LimitGuard>, other: Option<LimitGuard>) -> Option<LimitGuard> {
        match (limit_guard, other) {
            (Some(mut limit_guard), Some(other)) => {
                // The guard may hold another one already: `other` goes to the end of that chain.
                limit_guard.other =
                    LimitGuard::both(Some(other), limit_guard.other.take().map(|held| *held))
                        .map(Box::new);
                Some(limit_guard)
            }
            (limit_guard, other) => limit_guard.or(other),
        }
    }
}

impl ConnectionLimits {
    /// The limits of the process.
    pub fn new(maxima: Maxima) -> ConnectionLimits {
        ConnectionLimits { maxima, whose: "", in_use: Rc::default() }
    }

    /// The limits of one exit.
    pub fn of_exit(maxima: Maxima) -> ConnectionLimits {
        ConnectionLimits { whose: " of its exit", ..ConnectionLimits::new(maxima) }
    }

    /// Counts a stream of this client. Clients of unknown address count as one client. `None`: no
    /// limit is set, and nothing is counted.
    ///
    /// # Errors
    /// The reason to refuse the stream: a limit is reached.
    pub fn acquire(&self, client: Option<IpAddr>) -> Result<Option<LimitGuard>, String> {
        if self.maxima.per_client.is_none() && self.maxima.together.is_none() {
            return Ok(None);
        }
        let unknown = IpAddr::from([0, 0, 0, 0]);
        let client = client.map_or(unknown, |client| client.to_canonical());
        let whose = self.whose;
        let mut in_use = self.in_use.borrow_mut();
        if let Some(max) = self.maxima.together.filter(|max| in_use.together >= *max) {
            return Err(format!("{max} streams are open already (MAXIMA=delegated:{max}{whose})"));
        }
        let of_client = in_use.by_client.get(&client).copied().unwrap_or(0);
        if let Some(max) = self.maxima.per_client.filter(|max| of_client >= *max) {
            return Err(format!(
                "client {client} has {max} streams already (MAXIMA=conpch:{max}{whose})"
            ));
        }
        in_use.by_client.insert(client, of_client + 1);
        in_use.together += 1;
        let counted = Counted::OfClient { client, in_use: Rc::clone(&self.in_use) };
        Ok(Some(LimitGuard { counted, other: None }))
    }
}

impl PeerLimits {
    /// Counts a stream of the peer with this name, of which there may be `max` at once.
    ///
    /// # Errors
    /// The reason to refuse the stream: there are as many.
    pub fn acquire(&self, name: &str, max: u32) -> Result<LimitGuard, String> {
        let mut in_use = self.in_use.borrow_mut();
        let count = in_use.get(name).copied().unwrap_or(0);
        // Another tunnel of the peer may have been up since before the limit was made lower.
        if count >= max {
            return Err(format!(
                "peer {name} has {count} streams already (streams={max} in the peers file)"
            ));
        }
        in_use.insert(name.to_owned(), count + 1);
        let counted = Counted::OfPeer { name: name.to_owned(), in_use: Rc::clone(&self.in_use) };
        Ok(LimitGuard { counted, other: None })
    }
}

impl Drop for LimitGuard {
    fn drop(&mut self) {
        match &self.counted {
            Counted::OfClient { client, in_use } => {
                let mut in_use = in_use.borrow_mut();
                in_use.together -= 1;
                count_down(&mut in_use.by_client, client);
            }
            Counted::OfPeer { name, in_use } => count_down(&mut in_use.borrow_mut(), name),
        }
    }
}

/// One stream less. The last one takes the entry with it.
fn count_down<K: Hash + Eq>(counts: &mut HashMap<K, u32>, of: &K) {
    match counts.get_mut(of) {
        Some(count) if *count > 1 => *count -= 1,
        _ => {
            counts.remove(of);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn each_client_is_counted_by_itself() {
        let limits =
            ConnectionLimits::new(Maxima { per_client: Some(2), together: None, services: None });
        let first = limits.acquire(client("10.0.0.1")).unwrap();
        let _second = limits.acquire(client("::ffff:10.0.0.1")).unwrap();
        let reason = limits.acquire(client("10.0.0.1")).unwrap_err();
        assert_eq!(reason, "client 10.0.0.1 has 2 streams already (MAXIMA=conpch:2)");
        assert!(limits.acquire(client("10.0.0.2")).is_ok());
        drop(first);
        assert!(limits.acquire(client("10.0.0.1")).is_ok());
    }

    #[test]
    fn clients_without_an_address_are_one() {
        let limits =
            ConnectionLimits::new(Maxima { per_client: Some(1), together: None, services: None });
        let limit_guard = limits.acquire(None).unwrap();
        assert!(limits.acquire(None).is_err());
        drop(limit_guard);
        assert!(limits.acquire(None).is_ok());
    }

    #[test]
    fn all_clients_share_those_of_all_together() {
        let limits =
            ConnectionLimits::new(Maxima { per_client: None, together: Some(2), services: None });
        let held = ["10.0.0.1", "::1"].map(|of| limits.acquire(client(of)).unwrap());
        let reason = limits.acquire(client("10.0.0.3")).unwrap_err();
        assert_eq!(reason, "2 streams are open already (MAXIMA=delegated:2)");
        drop(held);
        assert!(limits.acquire(client("10.0.0.3")).is_ok());
        assert!(limits.in_use.borrow().by_client.is_empty());
    }

    #[test]
    fn guards_of_two_limits_are_held_as_one() {
        let maxima = Maxima { per_client: Some(1), together: None, services: None };
        let all = [
            ConnectionLimits::new(maxima),
            ConnectionLimits::of_exit(maxima),
            ConnectionLimits::of_exit(maxima),
        ];
        let is_free = |limits: &ConnectionLimits| limits.acquire(client("10.0.0.1")).is_ok();
        let [a, b, c] = all.each_ref().map(|limits| limits.acquire(client("10.0.0.1")).unwrap());
        let reason = all[1].acquire(client("10.0.0.1")).unwrap_err();
        assert!(reason.ends_with("(MAXIMA=conpch:1 of its exit)"), "{reason}");
        let held = LimitGuard::both(LimitGuard::both(a, b), LimitGuard::both(None, c));
        assert!(!all.iter().any(is_free));
        drop(held);
        assert!(all.iter().all(is_free));
    }

    #[test]
    fn streams_of_a_peer_are_counted_by_its_name() {
        let limits = PeerLimits::default();
        let [first, second] = [1, 2].map(|_| limits.acquire("a", 2).unwrap());
        let reason = limits.acquire("a", 2).unwrap_err();
        assert_eq!(reason, "peer a has 2 streams already (streams=2 in the peers file)");
        assert!(limits.acquire("b", 1).is_ok() && limits.acquire("a", 3).is_ok());
        drop(first);
        let of_client = ConnectionLimits::new(Maxima { per_client: Some(1), ..Maxima::default() });
        let client = of_client.acquire(client("10.0.0.1")).unwrap();
        let held = LimitGuard::both(limits.acquire("a", 2).ok(), client);
        assert!(limits.acquire("a", 2).is_err());
        drop((held, second));
        assert!(
            limits.in_use.borrow().is_empty() && of_client.in_use.borrow().by_client.is_empty()
        );
    }

    #[test]
    fn without_maxima_nothing_is_counted() {
        assert!(
            ConnectionLimits::new(Maxima::default()).acquire(client("10.0.0.1")).unwrap().is_none()
        );
    }
}
