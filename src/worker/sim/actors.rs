//! Clients and servers: they send a pattern, check what comes, and note how it ended.

use super::script::{Conversation, How, Tempo};
use crate::io::sim::{Kernel, Side};

/// How what an actor received has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// In order.
    Eof,
    /// By an error.
    Reset,
}

/// One side of a conversation.
#[derive(Debug)]
pub(super) struct Actor {
    /// The connection, and which side of it this is.
    pub(super) conn: usize,
    side: Side,
    /// Which conversation; a server finds out by the first byte.
    pub(super) number: Option<usize>,
    pub(super) next_at: u64,
    began: u64,
    /// Steps in a row in which nothing could be done.
    idle: u32,
    pub(super) sent: u32,
    pub(super) received: u32,
    pub(super) ended: Option<End>,
    /// It has ended what it sends.
    has_ended: bool,
    /// A send met an error, which no later call meets again.
    is_broken: bool,
    pub(super) is_over: bool,
}

/// Longest time between two steps of an actor that finds nothing to do.
const WAIT_MICROS_MAX: u64 = 20_000;

/// What conversation `number` sends this way, from `at` on. The first byte of a client says which it
/// is.
fn pattern(number: usize, side: Side, at: u32, bytes: usize) -> Vec<u8> {
    /// A prime, so that what is misplaced by a power of two is another.
    const PERIOD: usize = 4093;
    thread_local! {
        static NOISE: Vec<u8> = {
            let mut rng = fastrand::Rng::with_seed(7);
            (0..PERIOD).map(|_| rng.u8(..)).collect()
        };
    }
    let start = (at as usize + 511 * number + 1021 * side as usize) % PERIOD;
    let mut out = Vec::with_capacity(bytes);
    NOISE.with(|noise| {
        let mut from = start;
        while out.len() < bytes {
            let part = (PERIOD - from).min(bytes - out.len());
            out.extend_from_slice(&noise[from..from + part]);
            from = 0;
        }
    });
    if at == 0 && side == Side::Near && bytes > 0 {
        out[0] = number as u8;
    }
    out
}

impl Actor {
    pub(super) fn new(conn: usize, side: Side, number: Option<usize>, now: u64) -> Actor {
        Actor {
            conn,
            side,
            number,
            next_at: now,
            began: now,
            idle: 0,
            sent: 0,
            received: 0,
            ended: None,
            has_ended: false,
            is_broken: false,
            is_over: false,
        }
    }

    pub(super) fn side(&self) -> Side {
        self.side
    }

    /// Does what is due, and waits the longer the longer there is nothing to do.
    pub(super) fn step(
        &mut self,
        kernel: &mut Kernel,
        conversations: &[Conversation],
    ) -> Result<(), String> {
        let before = kernel.changes();
        let every_micros = self.act(kernel, conversations)?;
        self.idle = if kernel.changes() == before { self.idle + 1 } else { 0 };
        let wait_micros =
            (every_micros << self.idle.min(12)).min(every_micros.max(WAIT_MICROS_MAX));
        self.next_at = kernel.now_micros() + wait_micros;
        Ok(())
    }

    /// Does what can be done; returns how often it acts.
    fn act(&mut self, kernel: &mut Kernel, conversations: &[Conversation]) -> Result<u64, String> {
        let unknown = Tempo { piece_bytes: 1_000, every_micros: 100, reads_after_micros: 0 };
        let of = |number: Option<usize>| number.map(|number| conversations[number]);
        let tempo = of(self.number).map_or(unknown, |all| all.tempos[self.side as usize]);
        let every_micros = u64::from(tempo.every_micros.max(1));
        if kernel.now_micros() >= self.began + u64::from(tempo.reads_after_micros) {
            self.receive(kernel, tempo)?;
        }
        let Some(conversation) = of(self.number) else {
            // Gone before it said anything.
            if self.ended.is_some() {
                self.close(kernel, false);
            }
            return Ok(every_micros);
        };
        match (conversation.how, self.side) {
            (How::EarlyAnswer(after), Side::Far)
                if self.received <= after && self.ended.is_none() =>
            {
                return Ok(every_micros);
            }
            (How::ServerResets(after), Side::Far)
                if self.received > after || self.ended.is_some() =>
            {
                self.close(kernel, true);
                return Ok(every_micros);
            }
            (How::ClientResets(after), Side::Near) if self.sent >= after.max(1) => {
                self.close(kernel, true);
                return Ok(every_micros);
            }
            _ => {}
        }
        self.send(kernel, &conversation, tempo);
        let is_all_sent = self.sent == conversation.bytes[self.side as usize];
        if matches!(conversation.how, How::EarlyAnswer(_)) && self.side == Side::Far {
            if is_all_sent || self.is_broken || self.ended == Some(End::Reset) {
                self.close(kernel, false);
            }
            return Ok(every_micros);
        }
        if is_all_sent && !self.has_ended {
            self.has_ended = true;
            kernel.end_as(self.conn, self.side);
        }
        match self.ended {
            Some(End::Reset) => self.close(kernel, false),
            Some(End::Eof) if is_all_sent || self.is_broken => self.close(kernel, false),
            _ => {}
        }
        Ok(every_micros)
    }

    fn close(&mut self, kernel: &mut Kernel, by_reset: bool) {
        if !self.is_over {
            kernel.close_as(self.conn, self.side, by_reset);
        }
        self.is_over = true;
    }

    fn send(&mut self, kernel: &mut Kernel, conversation: &Conversation, tempo: Tempo) {
        let Some(number) = self.number else { return };
        let left = conversation.bytes[self.side as usize] - self.sent;
        if left == 0 || self.is_broken || self.ended == Some(End::Reset) {
            return;
        }
        let end = self.sent + left.min(tempo.piece_bytes.max(1));
        let bytes = pattern(number, self.side, self.sent, (end - self.sent) as usize);
        match kernel.send_as(self.conn, self.side, &bytes) {
            Ok(sent) => self.sent += sent as u32,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            // What came before it is read first.
            Err(_) => (self.has_ended, self.is_broken) = (true, true),
        }
    }

    fn receive(&mut self, kernel: &mut Kernel, tempo: Tempo) -> Result<(), String> {
        if self.ended.is_some() {
            return Ok(());
        }
        match kernel.receive_as(self.conn, self.side, tempo.piece_bytes.max(1) as usize) {
            Ok(bytes) if bytes.is_empty() => {
                self.ended = Some(if self.is_broken { End::Reset } else { End::Eof });
            }
            Ok(bytes) => {
                let number = *self.number.get_or_insert(usize::from(bytes[0]));
                if bytes != pattern(number, self.side.other(), self.received, bytes.len()) {
                    let (side, at) = (self.side, self.received);
                    return Err(format!(
                        "conversation {number}: {side:?} got other bytes from {at} on"
                    ));
                }
                self.received += bytes.len() as u32;
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => self.ended = Some(End::Reset),
        }
        Ok(())
    }
}
