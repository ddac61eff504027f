//! What a tunnel may cause in one turn of the loop. A peer is not trusted: whatever it sends, and as
//! fast as it can, the tunnels of others have their turn.

use crate::limits::{FLOW_OPEN_WORK, OPEN_WORK, PORT_WORK, RESET_WORK, WORK_PAYLOAD_BYTES};
use crate::wire::{Frame, Transport};

/// The share of a turn that is left to a tunnel.
#[derive(Debug, Default)]
pub(super) struct Budget {
    turn: u64,
    left: u32,
}

impl Budget {
    /// Something is to be done in this turn: if it is another than the last one, there is so much
    /// work for it. Turns are counted from 1.
    pub(super) fn enter(&mut self, turn: u64, work: u32) {
        if self.turn != turn {
            (self.turn, self.left) = (turn, work);
        }
    }

    #[inline]
    pub(super) fn is_spent(&self) -> bool {
        self.left == 0
    }

    /// A frame was received.
    #[inline]
    pub(super) fn spend(&mut self, frame: &Frame<'_>) {
        self.left = self.left.saturating_sub(work_of(frame));
    }
}

/// What a frame costs, in frames that do little.
#[inline]
fn work_of(frame: &Frame<'_>) -> u32 {
    let kind = match frame {
        Frame::Open { transport: Some(Transport::Udp), .. } => FLOW_OPEN_WORK,
        Frame::Open { .. } | Frame::Related { .. } => OPEN_WORK,
        Frame::Close { .. } => RESET_WORK,
        Frame::Listen { .. } | Frame::Unlisten { .. } | Frame::Entrance { .. } => PORT_WORK,
        _ => 1,
    };
    kind + frame.payload_bytes() / WORK_PAYLOAD_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::TURN_WORK;
    use crate::wire::{CloseKind, StreamRef};

    /// How many such frames a turn takes.
    fn in_a_turn(frame: Frame<'_>) -> u32 {
        let mut budget = Budget::default();
        budget.enter(1, TURN_WORK);
        let mut count = 0;
        while !budget.is_spent() {
            budget.spend(&frame);
            count += 1;
        }
        count
    }

    #[test]
    fn a_turn_takes_the_fewer_frames_the_more_they_do() {
        let to = StreamRef::Ours(1);
        let small = Frame::Data { to, bytes: 1 };
        let (client, entrance) = (None, None);
        let open = |transport| Frame::Open {
            from: Some(1),
            client,
            entrance,
            transport: Some(transport),
            first_bytes: 0,
        };
        let [stream, flow] = [Transport::Tcp, Transport::Udp].map(open);
        let close = Frame::Close { from: None, to, reason: b"", kind: CloseKind::Reset };
        let (request, transport) = (1, Transport::Tcp);
        let listen = Frame::Listen { to, request, transport };
        let at = ([127, 0, 0, 1], 80).into();
        let entrance = Frame::Entrance { request, transport, at };
        let all = [small, stream, flow, close, listen, entrance];
        assert_eq!(all.map(in_a_turn), [2_048, 16, 10, 22, 16, 16]);
        let frames = in_a_turn(Frame::Data { to, bytes: 256 << 10 });
        assert!((15..=16).contains(&frames), "{frames} big frames: bulk goes by bytes");
    }

    #[test]
    fn the_next_turn_brings_a_whole_share_and_the_same_one_none() {
        let mut budget = Budget::default();
        budget.enter(7, TURN_WORK);
        (0..TURN_WORK).for_each(|_| budget.spend(&Frame::UrgentTaken));
        budget.enter(7, TURN_WORK);
        assert!(budget.is_spent());
        budget.enter(8, TURN_WORK);
        assert!(!budget.is_spent());
    }
}
