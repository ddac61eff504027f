//! Local sockets of datagrams. The bytes of datagram `n` follow from the socket's seed and `n`, so
//! that datagrams that were merged, cut, duplicated or reordered are detected.

use std::collections::VecDeque;

use sockmux_uring::session::{Moment, Sink, StreamKey};
use sockmux_uring::wire::Protocol;

use super::super::script::Pattern;
use super::{Local, Side, later};

/// Bytes between the beginnings of two datagrams in the pattern.
const STRIDE: u64 = 977;
/// Most datagrams and bytes in a run, as sockets deliver them.
const RUN_MOST: u64 = 5;
const RUN_BYTES_MOST: u64 = 65_507;

/// A datagram that was produced: its number and its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Said {
    number: u64,
    bytes: u64,
}

/// The state of a socket's datagrams.
#[derive(Debug, Default)]
pub(crate) struct Flow {
    said: u64,
    runs: u64,
    /// Queued in the session: neither sent nor dropped.
    held: VecDeque<Said>,
    /// Sent, in order, and not compared by the other side.
    out: VecDeque<Said>,
    /// Received, in order, and not compared.
    came: VecDeque<Vec<u8>>,
    /// Bytes of the frame being read, and the number still missing.
    part: Vec<u8>,
    missing: u64,
    pub(crate) sent: u64,
    pub(crate) got: u64,
    pub(crate) dropped: u64,
}

impl Flow {
    /// Removes datagrams that the session has dropped from the front.
    fn drop_front(&mut self, datagrams: u64, bytes: u64) {
        let dropped: Vec<Said> = self.held.drain(..datagrams as usize).collect();
        let dropped_bytes: u64 = dropped.iter().map(|said| said.bytes).sum();
        assert_eq!(dropped_bytes, bytes, "dropped in the middle of a datagram");
        self.dropped += datagrams;
    }

    /// Checks that the other side has received the datagrams of this side, one by one and in order.
    pub(crate) fn compare(&mut self, sender: &mut Flow, seed: u64, pattern: &Pattern) {
        while let Some(came) = self.came.pop_front() {
            let said = sender.out.pop_front().expect("a datagram that nobody sent");
            assert_eq!(came.len() as u64, said.bytes, "cut or merged: {said:?}");
            assert!(pattern.matches(&came, seed, said.number * STRIDE), "not {said:?}");
        }
    }

    /// Checks that each datagram was sent, dropped, or is queued.
    pub(crate) fn check(&self) {
        assert_eq!(self.said, self.sent + self.dropped + self.held.len() as u64);
    }
}

impl Local {
    /// The next run of the script: the size of its datagrams, and their bytes together.
    fn next_run(&self, flow: &Flow) -> (u64, u64) {
        let mix = (self.script.seed + flow.runs).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let size = match mix % 8 {
            0 => 0,
            1 => 1,
            2 => self.script.chunk * 3,
            _ => self.script.chunk,
        };
        let size = size.min(RUN_BYTES_MOST);
        let (count, short) = (1 + mix / 8 % RUN_MOST, mix / 64 % 3);
        let bytes = (size * count).saturating_sub(if short == 0 { size / 2 } else { 0 });
        let whole = RUN_BYTES_MOST.checked_div(size).unwrap_or(0) * size;
        (size.min(bytes), bytes.min(whole))
    }
}

impl Side {
    /// Delivers a run of the socket if its script has one. Returns whether it had.
    pub(super) fn write_datagrams(&mut self, user: usize, key: StreamKey, now: Moment) -> bool {
        let local = &mut self.locals[user];
        let Some(mut flow) = local.flow.take() else { return false };
        let (size, bytes) = local.next_run(&flow);
        let queued = self.session.datagrams_ready(key, size as u32, bytes as u32, now);
        let count = if size == 0 { 1 } else { bytes.div_ceil(size) };
        let refused = if queued.taken { 0 } else { count };
        flow.drop_front(queued.dropped - refused, queued.dropped_bytes);
        flow.dropped += refused;
        let v1 = self.protocol == Protocol::V1;
        assert!(!v1 || !queued.too_big, "SockMux 1 carries all sizes");
        assert!(v1 || size > 0 || !queued.taken, "0.3 carries no empty ones");
        let mut left = bytes;
        for number in flow.said..flow.said + count {
            let bytes = size.min(left);
            left -= bytes;
            if queued.taken {
                flow.held.push_back(Said { number, bytes });
            }
        }
        flow.said += count;
        flow.runs += 1;
        local.read += bytes.max(1);
        local.write_at = later(now, local.script.chunk_gap);
        flow.check();
        local.flow = Some(flow);
        true
    }

    /// Appends the bytes of a frame that is sent.
    pub(super) fn frame_datagrams(
        &mut self,
        user: u64,
        bytes: u64,
        pattern: &Pattern,
        out: &mut Vec<u8>,
    ) {
        let local = &mut self.locals[user as usize];
        let seed = local.script.seed;
        let flow = local.flow.as_mut().expect("a socket with datagrams");
        let size = match self.protocol {
            Protocol::V03 => bytes,
            Protocol::V1 => {
                let at = self.head.len() - 2;
                u64::from(u16::from_be_bytes([self.head[at], self.head[at + 1]]))
            }
        };
        let mut left = bytes;
        loop {
            let said = flow.held.pop_front().expect("more framed than is held");
            assert_eq!(said.bytes, size.min(left), "a frame that cuts or merges");
            pattern.append(out, seed, said.number * STRIDE, said.bytes);
            flow.out.push_back(said);
            flow.sent += 1;
            left -= said.bytes;
            if left == 0 {
                break;
            }
        }
        flow.check();
        self.payload_out += bytes;
    }

    /// A frame was received; an empty datagram is complete with it.
    pub(super) fn begin_datagrams(&mut self, bytes: u32) {
        let (Sink::Stream(key) | Sink::Datagrams { key, .. }) = self.sink else { return };
        let local = &mut self.locals[self.by_key[&key]];
        let is_gone = local.reset;
        let Some(flow) = &mut local.flow else { return };
        assert!(!is_gone && flow.missing == 0 && flow.part.is_empty());
        flow.missing = u64::from(bytes);
        if let Sink::Datagrams { size_bytes: 0, .. } = self.sink {
            flow.came.push_back(Vec::new());
            flow.got += 1;
        }
    }

    /// Payload of datagrams was received. In 0.3 a frame is one datagram.
    pub(super) fn deliver_datagrams(&mut self, key: StreamKey, bytes: &[u8], now: Moment) {
        self.payload_in += bytes.len() as u64;
        let local = &mut self.locals[self.by_key[&key]];
        assert!(!local.reset && local.ended.is_none());
        let flow = local.flow.as_mut().expect("a socket with datagrams");
        flow.part.extend_from_slice(bytes);
        flow.missing -= bytes.len() as u64;
        if flow.missing > 0 {
            return;
        }
        let size = match self.sink {
            Sink::Datagrams { size_bytes, .. } => size_bytes as usize,
            _ => {
                if local.delivered == local.taken {
                    local.take_at = local.take_at.max(now);
                }
                local.delivered += flow.part.len() as u64;
                assert!(local.delivered - local.taken <= self.backlog_max);
                flow.part.len()
            }
        };
        for datagram in std::mem::take(&mut flow.part).chunks(size) {
            flow.came.push_back(datagram.to_vec());
            flow.got += 1;
        }
    }
}
