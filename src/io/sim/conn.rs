//! A connection between two sockets, or between a socket and an actor of the script.

use std::collections::VecDeque;
use std::net::SocketAddr;

use super::mask;

/// Which end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// The one that connected.
    Near = 0,
    Far = 1,
}

impl Side {
    pub(crate) fn other(self) -> Side {
        match self {
            Side::Near => Side::Far,
            Side::Far => Side::Near,
        }
    }
}

/// What one side has sent.
#[derive(Debug, Default)]
pub(super) struct Way {
    /// Sent and not arrived, with the times of arrival.
    pub(super) transit: VecDeque<(u64, Vec<u8>)>,
    pub(super) transit_bytes: usize,
    /// Arrived and not read.
    pub(super) queue: Vec<u8>,
    /// The sender has ended what it sends; this arrives then.
    pub(super) end_at: Option<u64>,
    /// Its end has arrived.
    pub(super) ended: bool,
    /// When the last of it arrives.
    pub(super) last_at: u64,
    /// Grows with each change that an edge tells of: to the reader, and to the writer.
    pub(super) edges: [u64; 2],
}

/// One end.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) address: SocketAddr,
    /// Nobody has it any more.
    pub(super) closed: bool,
    /// Its close resets.
    pub(super) lingers: bool,
    /// It reads no more.
    pub(super) read_shut: bool,
    /// It writes no more.
    pub(super) write_shut: bool,
    /// A reset is on its way to it.
    pub(super) reset_at: Option<u64>,
    /// It was reset.
    pub(super) reset: bool,
    /// The error that the next call meets.
    pub(super) error: Option<i32>,
    /// It cannot be spliced.
    pub(super) no_splice: bool,
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Conn {
    /// Indexed by [`Side`].
    pub(super) sockets: [Socket; 2],
    /// What each side sends.
    pub(super) ways: [Way; 2],
    /// Nothing arrives.
    pub(super) frozen: bool,
    /// Both sides are gone.
    pub(super) over: bool,
    /// A serial line: neither side learns of the other's end, and what passes is damaged.
    pub(super) is_line: bool,
}

impl Socket {
    pub(super) fn new(address: SocketAddr, no_splice: bool) -> Socket {
        Socket {
            address,
            closed: false,
            lingers: false,
            read_shut: false,
            write_shut: false,
            reset_at: None,
            reset: false,
            error: None,
            no_splice,
        }
    }
}

impl Conn {
    pub(super) fn new(sockets: [Socket; 2]) -> Conn {
        let ways = Default::default();
        Conn { sockets, ways, frozen: false, over: false, is_line: false }
    }

    /// What arrives at a side.
    pub(super) fn incoming(&mut self, side: Side) -> &mut Way {
        &mut self.ways[side.other() as usize]
    }

    pub(super) fn outgoing(&mut self, side: Side) -> &mut Way {
        &mut self.ways[side as usize]
    }

    pub(super) fn socket(&mut self, side: Side) -> &mut Socket {
        &mut self.sockets[side as usize]
    }

    /// Bytes that a side may still send.
    pub(super) fn room(&self, side: Side, most_bytes: usize) -> usize {
        let way = &self.ways[side as usize];
        most_bytes.saturating_sub(way.transit_bytes)
    }

    /// Events of a side, as in poll(2).
    pub(super) fn events(&self, side: Side, most_bytes: usize) -> u32 {
        let (socket, incoming) = (&self.sockets[side as usize], &self.ways[side.other() as usize]);
        let mut events = 0;
        let is_over = socket.reset || (incoming.ended && socket.write_shut);
        let no_more = incoming.ended || socket.read_shut || socket.reset;
        if !incoming.queue.is_empty() || no_more || socket.error.is_some() {
            events |= libc::POLLIN;
        }
        if no_more {
            events |= libc::POLLRDHUP;
        }
        // As TCP does: when a third of the buffer is free.
        if self.room(side, most_bytes) * 3 >= most_bytes || socket.reset || socket.write_shut {
            events |= libc::POLLOUT;
        }
        if is_over {
            events |= libc::POLLHUP;
        }
        if socket.error.is_some() {
            events |= libc::POLLERR;
        }
        mask(events)
    }

    /// Moves what has arrived by `now`; whether anything did.
    pub(super) fn deliver(&mut self, now: u64, most_bytes: usize) -> bool {
        if self.frozen {
            return false;
        }
        let mut moved = false;
        for side in [Side::Near, Side::Far] {
            let receiver = &self.sockets[side.other() as usize];
            let (is_closed, is_reset) = (receiver.closed, receiver.reset);
            let way = &mut self.ways[side as usize];
            let mut lost = false;
            while let Some((at, bytes)) = way.transit.front_mut()
                && *at <= now
            {
                if is_closed || is_reset {
                    way.transit_bytes -= bytes.len();
                    way.transit.pop_front();
                    lost = true;
                    continue;
                }
                let part = bytes.len().min(most_bytes.saturating_sub(way.queue.len()));
                if part == 0 {
                    break;
                }
                way.queue.extend_from_slice(&bytes[..part]);
                bytes.drain(..part);
                way.transit_bytes -= part;
                way.edges = way.edges.map(|edge| edge + 1);
                moved = true;
                if bytes.is_empty() {
                    way.transit.pop_front();
                }
            }
            if way.transit.is_empty() && !way.ended && way.end_at.is_some_and(|at| at <= now) {
                way.ended = true;
                way.edges[0] += 1;
                moved = true;
            }
            // Nobody is there to take it.
            if lost && is_closed && !self.is_line && self.sockets[side as usize].reset_at.is_none()
            {
                // It follows what was sent before it.
                let at = self.ways[side.other() as usize].last_at.max(now + 1);
                self.sockets[side as usize].reset_at = Some(at);
            }
        }
        // What was sent before a reset arrives before it.
        for side in [Side::Near, Side::Far] {
            let socket = self.socket(side);
            if socket.reset_at.is_some_and(|at| at <= now) && !socket.reset {
                self.broken(side, libc::ECONNRESET);
                moved = true;
            }
        }
        moved
    }

    /// The connection is broken for a side.
    pub(super) fn broken(&mut self, side: Side, error: i32) {
        let socket = self.socket(side);
        (socket.reset, socket.error) = (true, Some(error));
        let way = self.outgoing(side);
        way.transit.clear();
        way.transit_bytes = 0;
        way.edges[1] += 1;
        self.incoming(side).edges[0] += 1;
    }

    /// When something arrives next.
    pub(super) fn next_arrival(&self, most_bytes: usize) -> Option<u64> {
        if self.frozen {
            return None;
        }
        let of_way = |way: &Way| match way.transit.front() {
            Some((at, _)) if way.queue.len() < most_bytes => Some(*at),
            Some(_) => None,
            None => way.end_at.filter(|_| !way.ended),
        };
        let resets = self.sockets.iter().filter(|s| !s.reset).filter_map(|s| s.reset_at);
        self.ways.iter().filter_map(of_way).chain(resets).min()
    }
}
