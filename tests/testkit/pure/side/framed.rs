//! The state of SockMux 1 that follows from the frames of a side: the owners of stream numbers,
//! credit sent and received, and the frames that may still arrive for an ended stream.

use std::collections::HashMap;

use sockmux_uring::limits::{FRAME_BYTES, LINK_ACK_BYTES, LINK_ACK_RUNS_BYTES};
use sockmux_uring::session::{Ended, Sink, Transmit};
use sockmux_uring::wire::v1::{HEADER_BYTES, MAGIC};
use sockmux_uring::wire::{Frame, StreamRef};

use super::super::script::plan_of;
use super::{EndedBy, Local, Side};

const OPEN: u8 = 0x01;
const DATA: u8 = 0x03;
const END: u8 = 0x04;
const RESET: u8 = 0x05;
const CREDIT: u8 = 0x06;
const DATAGRAMS: u8 = 0x0c;

/// Plans by the number of their stream, for streams opened here and by the peer.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    ours: HashMap<u32, usize>,
    theirs: HashMap<u32, usize>,
    /// The last generation of each slot.
    our_slots: HashMap<u32, u32>,
    their_slots: HashMap<u32, u32>,
}

/// Bits of a number that hold its slot; the others hold its generation.
const SLOT_BITS: u32 = 20;

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

impl Side {
    /// Assigns a free number to a plan.
    fn number(&mut self, number: u32, plan: usize, ours: bool) {
        let numbers = if ours { &mut self.numbers.ours } else { &mut self.numbers.theirs };
        let before = numbers.insert(number, plan);
        let user = before.and_then(|before| self.user(before));
        let live = user.is_some_and(|user| self.locals[user].key.is_some());
        assert!(!live || before == Some(plan), "number {number:#x} is used twice at once");
        let slots = if ours { &mut self.numbers.our_slots } else { &mut self.numbers.their_slots };
        let (slot, generation) = (number & ((1 << SLOT_BITS) - 1), number >> SLOT_BITS);
        let last = slots.insert(slot, generation).unwrap_or_default();
        let next = (last + 1) % (1 << (32 - SLOT_BITS));
        assert_eq!(
            generation, next,
            "number {number:#x} does not follow the one before in its slot"
        );
    }

    /// Called before the session handles a frame. Returns whether its stream has ended here, in which
    /// case the frame must have crossed the end.
    pub(super) fn is_late(&mut self, frame: &Frame<'_>) -> bool {
        let name = match *frame {
            Frame::Open { from, client, .. } => {
                let plan = plan_of(client.expect("the opener's address is known"));
                self.number(from.expect("a number"), plan, false);
                return false;
            }
            Frame::Opened { to, .. }
            | Frame::Data { to, .. }
            | Frame::Datagrams { to, .. }
            | Frame::End { to }
            | Frame::Consumed { to, .. }
            | Frame::Urgent { to, .. }
            | Frame::Close { to, .. } => to,
            _ => return false,
        };
        let plan = match name {
            StreamRef::Ours(number) => self.numbers.ours.get(&number),
            StreamRef::Theirs(number) => self.numbers.theirs.get(&number),
            StreamRef::None => None,
        };
        let plan = *plan.unwrap_or_else(|| panic!("{frame:?} for a number that nobody gave"));
        // Without a local socket: refused before it had one.
        let Some(user) = self.user(plan) else { return self.count_late() };
        let local = &mut self.locals[user];
        if local.key.is_some() {
            if let Frame::Consumed { bytes, .. } = *frame {
                local.credit_heard += bytes;
            }
            return false;
        }
        let crossed = match &local.ended {
            _ if local.reset => true,
            // Both ENDs have crossed: the peer may still have sent credit or a reset.
            Some((Ended::Orderly, _)) => {
                matches!(frame, Frame::Consumed { .. } | Frame::Close { .. })
            }
            _ => false,
        };
        assert!(crossed, "{frame:?} behind the end of {local:?}");
        self.count_late()
    }

    fn count_late(&mut self) -> bool {
        self.late_frames += 1;
        true
    }

    /// A frame was handled: the payload that follows belongs to its stream.
    pub(super) fn announce(&mut self, sink: Sink, bytes: u32) {
        if let Sink::Stream(key) = sink {
            self.locals[self.by_key[&key]].announced += u64::from(bytes);
        }
    }

    /// Called before a head of ours is sent.
    pub(super) fn check_head_v1(&mut self, transmit: Transmit) {
        let head = std::mem::take(&mut self.head);
        assert!(head.len() >= HEADER_BYTES && head[0] == MAGIC);
        let (kind, flags, number) =
            (head[1], u16::from_be_bytes([head[2], head[3]]), word(&head, 4));
        let behind = match transmit {
            Transmit::Control | Transmit::Unkept => 0,
            Transmit::Data { bytes, .. } | Transmit::Datagrams { bytes, .. } => bytes,
            Transmit::Urgent { .. } => 1,
        };
        let declared = u64::from(word(&head, 8));
        assert_eq!(declared, (head.len() - HEADER_BYTES) as u64 + behind, "a head that lies");
        assert!(flags <= 1 && behind <= FRAME_BYTES);
        match kind {
            OPEN => {
                assert_eq!(flags, 1, "a stream is numbered by who opens it");
                let plan = usize::from(head[22]) << 8 | usize::from(head[23]);
                self.number(number, plan, true);
            }
            DATAGRAMS => {
                let local = self.sender(flags, number).expect("datagrams of a known stream");
                assert!(local.flow.is_some());
            }
            DATA => {
                let local = self.sender(flags, number).expect("data of a stream that is known");
                assert!(!local.end_said, "data behind the end of data");
            }
            END => {
                let local = self.sender(flags, number).expect("the end of a stream that is known");
                assert!(local.eof && local.framed == local.read && !local.end_said);
                local.end_said = true;
            }
            CREDIT => {
                let bytes = u64::from(word(&head, HEADER_BYTES));
                let local = self.sender(flags, number).expect("credit of a stream that is known");
                local.credit_said += bytes;
            }
            _ => {}
        }
        self.ending = (kind == END || kind == RESET).then_some(EndedBy::Sent);
        self.head = head;
    }

    fn sender(&mut self, flags: u16, number: u32) -> Option<&mut Local> {
        let numbers = if flags == 1 { &self.numbers.ours } else { &self.numbers.theirs };
        let user = self.user(*numbers.get(&number)?)?;
        Some(&mut self.locals[user])
    }

    /// Checks the totals of the link: received bytes are counted whether they have a stream or not,
    /// and no reported number decreases or exceeds the true one.
    pub(crate) fn check_link(&self, other: &Side) {
        let (own, peers) = (self.session.link_counts(), other.session.link_counts());
        assert_eq!(own.sent_bytes, self.payload_out);
        assert_eq!(own.received_bytes, self.link_in);
        assert!(
            own.consumed_bytes <= peers.reported_bytes
                && peers.reported_bytes <= peers.received_bytes
        );
        assert!(peers.received_bytes <= own.sent_bytes);
        let most_bytes = own.report_at.map_or(LINK_ACK_BYTES, |_| LINK_ACK_RUNS_BYTES);
        assert!(own.received_bytes - own.reported_bytes < most_bytes);
    }

    /// Checks each window: its size is the sum of open credit, received bytes and unreported bytes.
    pub(crate) fn check_windows(&self, other: &Side, own_first: u64, peer_first: u64) {
        let mut extra_bytes = 0;
        for local in &self.locals {
            let Some(w) = local.key.and_then(|key| self.session.windows(key)) else { continue };
            extra_bytes += w.window_bytes - own_first;
            if local.flow.is_some() {
                // Outside of the windows.
                assert!(w.allowance_bytes == own_first && w.credit_bytes == peer_first, "{w:?}");
                continue;
            }
            if !local.reset {
                assert_eq!(w.backlog_bytes, local.announced - local.taken);
                let parts = w.allowance_bytes + w.backlog_bytes + w.unreported_bytes;
                assert_eq!(parts, w.window_bytes, "{w:?} of {local:?}");
                assert!(local.taken > 0 || w.window_bytes == own_first, "{w:?} of {local:?}");
            }
            // The same for the side at the other end of the link.
            match other.local(local.plan) {
                None => assert_eq!(w.credit_bytes + local.framed, peer_first),
                Some(remote) if remote.reset => {}
                Some(remote) => {
                    let Some(r) = remote.key.and_then(|key| other.session.windows(key)) else {
                        continue;
                    };
                    let on_the_way = (local.framed - remote.announced)
                        + (remote.credit_said - local.credit_heard);
                    assert_eq!(w.credit_bytes + on_the_way, r.allowance_bytes, "{local:?}");
                }
            }
        }
        assert_eq!(extra_bytes, self.session.extra_window_bytes());
    }
}
