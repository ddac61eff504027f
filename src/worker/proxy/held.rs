//! What proxies hold of requests and answers that are not whole, all together. Where it is more than there is
//! memory for, the sessions that hold most are reset: a client that sends half a request holds much, one whose
//! request is served next to nothing.

use std::cmp::Reverse;

use crate::io::driver::Driver;
use crate::proxy_proto::ProxyStep;
use crate::worker::context::Cx;
use crate::worker::proxy::Proxies;
use crate::worker::stream::Streams;
use crate::worker::table::Key;

/// Reason to reset the sessions that hold most.
const TOO_MUCH: &str = "clients of proxies hold too much memory by requests that are not whole";

/// Bytes that are held, and how many may be.
#[derive(Debug)]
pub(super) struct HeldBytes {
    sum: usize,
    max: usize,
}

impl HeldBytes {
    pub(super) fn new(max: usize) -> HeldBytes {
        HeldBytes { sum: 0, max }
    }

    /// A session holds so much now, and held so much before.
    pub(super) fn changed(&mut self, before: usize, now: usize) {
        self.sum = self.sum - before + now;
    }

    /// What must go. It is an eighth more than there is too much, so that not each request is followed by a
    /// search for who holds most.
    fn excess(&self) -> usize {
        if self.sum > self.max { self.sum - self.max + self.max / 8 } else { 0 }
    }
}

impl Proxies {
    /// Removes a session.
    pub(super) fn forget(&mut self, key: Key) {
        if let Some(session) = self.sessions.remove(&key) {
            self.held.changed(session.held_bytes, 0);
        }
    }

    /// Resets the sessions that hold most, if all together hold too much.
    pub(super) fn shed<D: Driver>(&mut self, cx: &mut Cx<D>, streams: &mut Streams) {
        let excess = self.held.excess();
        if excess == 0 {
            return;
        }
        let sessions = self.sessions.iter().filter(|(_, session)| session.held_bytes > 0);
        let mut holders: Vec<(usize, Key)> =
            sessions.map(|(&key, session)| (session.held_bytes, key)).collect();
        holders.sort_unstable_by_key(|&(held_bytes, key)| (Reverse(held_bytes), key));
        let mut freed = 0;
        for (held_bytes, key) in holders {
            if freed >= excess {
                return;
            }
            freed += held_bytes;
            self.do_step(cx, streams, key, ProxyStep::Reset(TOO_MUCH.to_owned()));
            self.close_ports(cx, streams, key);
            self.forget(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_eighth_goes_once_there_is_too_much() {
        let mut held = HeldBytes::new(800);
        held.changed(0, 500);
        held.changed(0, 300);
        assert_eq!(held.excess(), 0);
        held.changed(300, 310);
        assert_eq!(held.excess(), 110);
        held.changed(500, 0);
        assert_eq!((held.excess(), held.sum), (0, 310));
    }
}
