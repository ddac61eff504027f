//! Control frames of a tunnel that wait to be sent.

use std::collections::VecDeque;

use super::Moment;
use super::entrances::EntranceFrame;
use super::ports::PortFrame;
use crate::limits::PONGS_MAX;

/// A control frame of the tunnel itself, or of a stream that was removed.
#[derive(Debug)]
pub(super) enum ControlFrame {
    PacketSize,
    FirstData,
    Ping(Moment),
    Pong {
        ids: (u16, u16),
        payload: Vec<u8>,
    },
    Closed {
        from: Option<u32>,
        to: Option<u32>,
    },
    Refuse {
        to: u32,
        reason: String,
        /// No server was tried.
        not_taken: bool,
    },
    Port(PortFrame),
    Entrance(EntranceFrame),
    GoingAway(&'static str),
    /// The ping behind GOING_AWAY.
    Farewell,
}

/// A packet of the hello.
#[derive(Debug)]
pub(super) enum HelloFrame {
    Hello,
    HelloOk((u16, u16)),
}

/// Queued control frames. Bounded: each stream that the peer opens or ends adds one, as does each
/// request for a port or an entrance, of which there are few (`session::ports`,
/// `session::entrances`), and the caller stops reading while it cannot write (see [`ControlQueue::len`]).
#[derive(Debug, Default)]
pub(super) struct ControlQueue {
    /// The hello, before all others: three packets at most.
    hello: VecDeque<HelloFrame>,
    frames: VecDeque<ControlFrame>,
    pongs: usize,
}

impl ControlQueue {
    pub(super) fn push(&mut self, control: ControlFrame) {
        self.frames.push_back(control);
    }

    pub(super) fn push_hello(&mut self, packet: HelloFrame) {
        self.hello.push_back(packet);
    }

    #[inline]
    pub(super) fn pop_hello(&mut self) -> Option<HelloFrame> {
        self.hello.pop_front()
    }

    /// Queues the answer to ECHO. A peer that pings without end and does not read loses answers.
    pub(super) fn push_pong(&mut self, ids: (u16, u16), payload: &[u8]) {
        if self.pongs < PONGS_MAX {
            self.pongs += 1;
            self.frames.push_back(ControlFrame::Pong { ids, payload: payload.to_vec() });
        }
    }

    pub(super) fn pop(&mut self) -> Option<ControlFrame> {
        let control = self.frames.pop_front()?;
        if matches!(control, ControlFrame::Pong { .. }) {
            self.pongs -= 1;
        }
        Some(control)
    }

    pub(super) fn len(&self) -> usize {
        self.frames.len()
    }
}
