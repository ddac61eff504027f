//! How many there may be of what a process has, by the memory that it may take. They are checked where new work
//! comes in, so that what is under way always finds the memory that it needs.

use crate::limits::{
    CONNECTION_BYTES, CONNECTION_PARTS, CONNECTIONS_MAX, CONNECTIONS_MIN, DATAGRAM_QUEUE_BYTES,
    MEMORY_PARTS, PEER_WINDOW_BYTES_MIN, POOL_BUDGET_PART, POOL_BUFFER_BYTES, POOL_BUFFERS,
    POOL_BUFFERS_MIN, POOL_PARTS, POOL_WINDOW_PART, PROXIES_HELD_BYTES_MAX, PROXIES_HELD_BYTES_MIN,
    PROXY_PARTS, STRANGERS_MAX, STRANGERS_MIN, TUNNEL_BYTES, TUNNEL_PARTS, TUNNELS_MAX,
    TUNNELS_MIN, WINDOW_BUDGET_BYTES, WINDOW_BYTES,
};

/// The most of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ceilings {
    /// Buffers of the pool for slow readers.
    pub pool_buffers: u32,
    /// Connections of streams, flows of datagrams, and pairs of a plain relay, each.
    pub connections: usize,
    /// Tunnels whose hello is complete.
    pub tunnels: usize,
    /// Peers that have connected here and whose hello is not.
    pub strangers: usize,
    /// Bytes that proxies hold of requests and answers that are not whole.
    pub proxies_held_bytes: usize,
}

impl Ceilings {
    /// For a process that may take so much beside what it has from the start. `None`: whatever it likes.
    pub fn within(room_bytes: Option<u64>) -> Ceilings {
        let share = |parts: u64, bytes_each: u64| match room_bytes {
            Some(room_bytes) => room_bytes / MEMORY_PARTS * parts / bytes_each,
            None => u64::MAX,
        };
        let clamp = |share: u64, least: usize, most: usize| {
            usize::try_from(share).unwrap_or(usize::MAX).clamp(least, most)
        };
        let buffers = share(POOL_PARTS, u64::from(POOL_BUFFER_BYTES));
        let links = share(TUNNEL_PARTS, TUNNEL_BYTES);
        let held_bytes = share(PROXY_PARTS, 1);
        Ceilings {
            pool_buffers: clamp(buffers, POOL_BUFFERS_MIN as usize, POOL_BUFFERS as usize) as u32,
            connections: clamp(
                share(CONNECTION_PARTS, CONNECTION_BYTES),
                CONNECTIONS_MIN,
                CONNECTIONS_MAX,
            ),
            tunnels: clamp(links / 3 * 2, TUNNELS_MIN, TUNNELS_MAX),
            strangers: clamp(links / 3, STRANGERS_MIN, STRANGERS_MAX),
            proxies_held_bytes: held_bytes.clamp(PROXIES_HELD_BYTES_MIN, PROXIES_HELD_BYTES_MAX)
                as usize,
        }
    }

    /// Bytes of the pool.
    pub fn pool_bytes(&self) -> u64 {
        u64::from(self.pool_buffers) * u64::from(POOL_BUFFER_BYTES)
    }

    /// The window that a peer is offered for a stream, in bytes.
    pub fn window_bytes(&self) -> u32 {
        let part = u32::try_from(self.pool_bytes() / POOL_WINDOW_PART).unwrap_or(u32::MAX);
        part.clamp(PEER_WINDOW_BYTES_MIN, WINDOW_BYTES)
    }

    /// What the windows of one tunnel may be beyond the first ones, in bytes.
    pub fn window_budget_bytes(&self) -> u64 {
        (self.pool_bytes() / POOL_BUDGET_PART).min(WINDOW_BUDGET_BYTES)
    }

    /// What datagrams that wait for one tunnel may take, in bytes.
    pub fn datagram_queue_bytes(&self) -> u64 {
        (self.pool_bytes() / POOL_BUDGET_PART).min(DATAGRAM_QUEUE_BYTES)
    }

    /// The most that all of these take together, in bytes.
    pub fn most_bytes(&self) -> u64 {
        let links = (self.tunnels + self.strangers) as u64;
        self.pool_bytes()
            + self.connections as u64 * CONNECTION_BYTES
            + links * TUNNEL_BYTES
            + self.proxies_held_bytes as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::DATAGRAM_BYTES_MAX;

    #[test]
    fn without_a_limit_there_may_be_the_most_of_each() {
        let all = Ceilings::within(None);
        assert_eq!(all, Ceilings::within(Some(u64::MAX)));
        assert_eq!((all.pool_buffers, all.connections), (POOL_BUFFERS, CONNECTIONS_MAX));
        assert_eq!((all.tunnels, all.strangers), (TUNNELS_MAX, STRANGERS_MAX));
        assert_eq!(all.window_bytes(), WINDOW_BYTES);
        assert_eq!(all.window_budget_bytes(), WINDOW_BUDGET_BYTES);
        assert_eq!(all.datagram_queue_bytes(), DATAGRAM_QUEUE_BYTES);
    }

    #[test]
    fn together_they_take_less_than_there_is() {
        for room_mib in [16, 50, 200, 1_000, 4_000] {
            let ceilings = Ceilings::within(Some(room_mib << 20));
            let most_bytes = ceilings.most_bytes();
            assert!(most_bytes <= room_mib << 20, "{room_mib} MiB: {most_bytes}, {ceilings:?}");
        }
    }

    #[test]
    fn with_next_to_nothing_some_are_served_all_the_same() {
        let few = Ceilings::within(Some(0));
        assert_eq!((few.pool_buffers, few.connections), (POOL_BUFFERS_MIN, CONNECTIONS_MIN));
        assert_eq!((few.tunnels, few.strangers), (TUNNELS_MIN, STRANGERS_MIN));
        assert_eq!(few.window_bytes(), PEER_WINDOW_BYTES_MIN);
        assert_eq!(few.proxies_held_bytes as u64, PROXIES_HELD_BYTES_MIN);
        // A flow has half of it, counted twice.
        assert!(few.datagram_queue_bytes() > 4 * u64::from(DATAGRAM_BYTES_MAX));
    }
}
