//! What happens in a run, all of it explicit, so that parts can be left out.

use fastrand::Rng;

use crate::io::sim::Conditions;
use crate::limits::{BULK_BUFFERS_FOR_LINKS, STRANGER_SECS};

/// A run.
#[derive(Debug, Clone)]
pub(super) struct Script {
    /// Of what happens by chance: scheduling, delays, parts.
    pub(super) seed: u64,
    pub(super) link: LinkKind,
    /// Which end has the entrance: 0 is the receptor, or the first of two given links.
    pub(super) entrance_at: usize,
    pub(super) is_v03: bool,
    /// The link is encrypted, with a new key after so many records.
    pub(super) records_per_key: Option<u64>,
    pub(super) bulk: &'static str,
    /// How long a tunnel waits for its next connection; 0 is not at all.
    pub(super) resume_secs: u32,
    pub(super) exit: ExitKind,
    pub(super) conditions: Conditions,
    pub(super) conversations: Vec<Conversation>,
    pub(super) datagrams: Option<DatagramLoad>,
    /// What goes wrong, in order of time.
    pub(super) faults: Vec<(u64, Fault)>,
}

/// What the persistent connection goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LinkKind {
    Tcp,
    /// Two pipes, as standard input and output are.
    Pipes,
    /// Two FIFOs.
    Fifos,
    /// A serial line that carries so many bytes in a second.
    Line(u32),
}

/// Where the exit leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ExitKind {
    Server,
    /// A server by a name that is found after a while.
    Named,
    Refuses,
    /// Nobody answers.
    Silent,
    /// The name is never found.
    NameNever,
}

/// What a client and its server do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Conversation {
    pub(super) at: u64,
    pub(super) how: How,
    /// Bytes up and down.
    pub(super) bytes: [u32; 2],
    /// Of client and server.
    pub(super) tempos: [Tempo; 2],
}

/// What clients of datagrams do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DatagramLoad {
    pub(super) at: u64,
    pub(super) clients: u8,
    /// Datagrams of each.
    pub(super) each: u8,
    pub(super) bytes_max: u16,
    pub(super) every_micros: u32,
}

impl Conversation {
    /// Whether it is over in a moment if nothing is in its way.
    pub(super) fn is_quick(&self) -> bool {
        self.tempos.iter().all(|tempo| tempo.every_micros < 1_000)
    }
}

/// How a conversation ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// Each side ends what it sends, and reads to the other's end.
    Exchange,
    /// The server answers after so many bytes, and closes without reading the rest.
    EarlyAnswer(u32),
    /// The client resets when it has sent so much.
    ClientResets(u32),
    /// The server resets when it has read so much.
    ServerResets(u32),
}

/// How fast an actor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tempo {
    /// Most bytes of a write or a read.
    pub(super) piece_bytes: u32,
    pub(super) every_micros: u32,
    /// It reads nothing before.
    pub(super) reads_after_micros: u32,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// An end stands still for so long.
    Pause(usize, u32),
    /// The link breaks.
    Cut,
    /// Nothing passes the link for so long.
    Freeze(u32),
    /// An end is told to stop.
    Stop(usize),
    /// An end is told to stop, and another one takes its place.
    Replace(usize),
}

/// Longer than an end or the link stands still, and shorter than all takes to settle.
const RESUME_SECS: u32 = 30;

/// Microseconds of a second.
const SEC: u32 = 1_000_000;

impl Script {
    /// The script that follows from a seed.
    pub(super) fn of(seed: u64) -> Script {
        let rng = &mut Rng::with_seed(seed ^ 0x5eed_0000);
        if rng.u8(..8) == 0 {
            return Script::replacing(seed, rng);
        }
        let link = match rng.u8(..8) {
            0 => LinkKind::Pipes,
            1 => LinkKind::Fifos,
            2 => return Script::over_line(seed, rng),
            _ => LinkKind::Tcp,
        };
        let exit = match rng.u8(..16) {
            0 => ExitKind::Refuses,
            1 => ExitKind::Silent,
            2 => ExitKind::NameNever,
            3 | 4 => ExitKind::Named,
            _ => ExitKind::Server,
        };
        let is_v03 = rng.u8(..4) == 0;
        let conditions = conditions(rng);
        let small = rng.bool();
        let conversations =
            (0..rng.u8(1..8)).map(|_| conversation(rng, small, conditions.socket_bytes)).collect();
        let mut faults: Vec<_> = (0..rng.u8(..4).saturating_sub(1))
            .map(|_| (u64::from(rng.u32(1..SEC)), fault(rng)))
            .collect();
        if link == LinkKind::Tcp && !is_v03 && resume(seed) > 0 {
            faults.extend(cuts(seed));
        }
        faults.sort_by_key(|&(at, _)| at);
        Script {
            seed,
            link,
            entrance_at: rng.usize(..2),
            is_v03,
            records_per_key: keys(seed),
            bulk: ["auto", "splice", "copy"][rng.usize(..3)],
            resume_secs: resume(seed),
            exit,
            conditions,
            conversations,
            // 0.3 does not say whether a stream is of datagrams: one exit serves both.
            datagrams: (exit == ExitKind::Server && !is_v03 && rng.u8(..3) == 0)
                .then(|| datagrams(rng)),
            faults,
        }
        .sorted()
    }

    /// Messages over a bad line, which is slow.
    fn over_line(seed: u64, rng: &mut Rng) -> Script {
        let rate = [11_520, 92_160, 1_000_000][rng.usize(..3)];
        let noise = if rng.u8(..4) == 0 { 0 } else { rng.u8(1..30) };
        let conditions = Conditions { noise, ..conditions(rng) };
        let conversations = (0..rng.u8(1..8)).map(|_| {
            // An early answer waits for the line longer than a reset does for it.
            let conversation = conversation(rng, true, conditions.socket_bytes);
            match conversation.how {
                How::EarlyAnswer(_) => Conversation { how: How::Exchange, ..conversation },
                _ => conversation,
            }
        });
        let conversations = conversations.collect();
        let faults = if rng.bool() { Vec::new() } else { vec![(300_000, fault(rng))] };
        Script {
            seed,
            link: LinkKind::Line(rate),
            entrance_at: rng.usize(..2),
            is_v03: rng.u8(..4) == 0,
            records_per_key: keys(seed),
            bulk: "auto",
            resume_secs: resume(seed),
            exit: ExitKind::Server,
            conditions,
            conversations,
            datagrams: None,
            faults,
        }
        .sorted()
    }

    /// Clients that come while an end is replaced.
    fn replacing(seed: u64, rng: &mut Rng) -> Script {
        let end = rng.usize(..2);
        let conditions =
            Conditions { no_splice: 0, pool_buffers: 0, descriptors: 0, ..conditions(rng) };
        let mut conversations = (0..rng.u8(4..16))
            .map(|_| {
                let tempo = Tempo { piece_bytes: 3_000, every_micros: 200, reads_after_micros: 0 };
                let bytes = [rng.u32(1..3_000), rng.u32(1..3_000)];
                let at = u64::from(rng.u32(300_000..SEC));
                Conversation { at, how: How::Exchange, bytes, tempos: [tempo; 2] }
            })
            .collect::<Vec<_>>();
        // One that is there before, and lasts: its tunnel stays until it is over.
        let slow = Tempo { piece_bytes: 10, every_micros: 15_000, reads_after_micros: 0 };
        let lasting =
            Conversation { at: 100_000, how: How::Exchange, bytes: [2_000; 2], tempos: [slow; 2] };
        conversations.push(lasting);
        Script {
            seed,
            link: LinkKind::Tcp,
            entrance_at: 1 - end,
            is_v03: false,
            records_per_key: None,
            bulk: "auto",
            resume_secs: resume(seed),
            exit: ExitKind::Server,
            conditions,
            conversations,
            datagrams: None,
            faults: vec![(u64::from(rng.u32(400_000..900_000)), Fault::Replace(end))],
        }
        .sorted()
    }

    /// Conversations begin in order of time.
    fn sorted(mut self) -> Script {
        self.conversations.sort_by_key(|conversation| conversation.at);
        self
    }

    /// Whether an end is replaced.
    pub(super) fn is_replaced(&self) -> bool {
        self.faults.iter().any(|(_, fault)| matches!(fault, Fault::Replace(_)))
    }

    /// Whether streams may end before they are over.
    pub(super) fn may_break(&self) -> bool {
        let comes_back = self.link == LinkKind::Tcp
            && !self.is_v03
            && self.resume_secs > 0
            && !self.is_replaced();
        let breaks = |fault: &Fault| match fault {
            Fault::Cut => !comes_back,
            Fault::Stop(_) => true,
            Fault::Pause(..) | Fault::Freeze(_) | Fault::Replace(_) => false,
        };
        let is_short = self.conditions.descriptors > 0 || self.conditions.pool_buffers > 0;
        self.faults.iter().any(|(_, fault)| breaks(fault))
            || !self.reaches_server()
            || is_short
            || self.hello_may_be_late()
    }

    /// Whether ends or link may stand still for as long as a peer has for its hello, before it was said.
    fn hello_may_be_late(&self) -> bool {
        let replaced = self.faults.iter().any(|(_, fault)| matches!(fault, Fault::Replace(_)));
        let (mut up_at, mut still_micros) = (u64::from(SEC), 0);
        for &(at, fault) in &self.faults {
            let (Fault::Pause(_, micros) | Fault::Freeze(micros)) = fault else { continue };
            if at <= up_at || replaced {
                up_at += u64::from(micros);
                still_micros += u64::from(micros);
            }
        }
        still_micros + u64::from(SEC) > STRANGER_SECS * 1_000_000
    }

    /// Whether the exit leads to a server.
    pub(super) fn reaches_server(&self) -> bool {
        matches!(self.exit, ExitKind::Server | ExitKind::Named)
    }
}

/// Of one seed in four, after how many records a new key is taken. By itself, so that all else of a seed is
/// what it would be without.
fn keys(seed: u64) -> Option<u64> {
    let rng = &mut Rng::with_seed(seed ^ 0x715);
    (rng.u8(..4) == 0).then(|| [u64::MAX, 1, 3, 50][rng.usize(..4)])
}

/// Of three seeds in four, how long a tunnel waits for its next connection; of the others, not at all. By
/// itself, as the keys are.
fn resume(seed: u64) -> u32 {
    if Rng::with_seed(seed ^ 0x4e5).u8(..4) > 0 { RESUME_SECS } else { 0 }
}

/// Of one seed in two, cuts of a link that comes back: one soon after the other, so that the next hello is
/// cut, too.
fn cuts(seed: u64) -> Vec<(u64, Fault)> {
    let rng = &mut Rng::with_seed(seed ^ 0xc075);
    let mut at = u64::from(rng.u32(200_000..SEC));
    let cut = |_| {
        at += u64::from(if rng.bool() { rng.u32(..10_000) } else { rng.u32(..SEC) });
        (at, Fault::Cut)
    };
    let count = if seed.is_multiple_of(2) { 0 } else { 1 + seed / 2 % 6 };
    (0..count).map(cut).collect()
}

fn conditions(rng: &mut Rng) -> Conditions {
    let mut sometimes = |most: u8| if rng.bool() { 0 } else { rng.u8(..most) };
    let (partial, again) = (sometimes(200), sometimes(60));
    let (no_buffer, delay, no_splice) = (sometimes(40), sometimes(200), sometimes(60));
    Conditions {
        partial,
        again,
        no_buffer,
        delay,
        no_splice,
        noise: 0,
        pipe_slots: rng.u16(2..=16),
        socket_bytes: if rng.bool() { rng.u32(2_000..100_000) } else { rng.u32(50_000..300_000) },
        latency_micros: rng.u32(1..2_000),
        buffers: [rng.u16(4..=64), BULK_BUFFERS_FOR_LINKS as u16 + rng.u16(1..=32)],
        pool_buffers: if rng.u8(..8) == 0 { rng.u16(32..200) } else { 0 },
        descriptors: if rng.u8(..16) == 0 { rng.u16(16..40) } else { 0 },
        turn_frames: if rng.u8(..4) == 0 { rng.u16(1..20) } else { 0 },
    }
}

fn conversation(rng: &mut Rng, small: bool, socket_bytes: u32) -> Conversation {
    if !small && rng.bool() {
        let tempo = Tempo {
            piece_bytes: rng.u32(10_000..70_000),
            every_micros: rng.u32(50..500),
            reads_after_micros: if rng.u8(..4) == 0 { rng.u32(..SEC) } else { 0 },
        };
        let bytes = [rng.u32(1..400_000), rng.u32(1..400_000)];
        let at = u64::from(rng.u32(..SEC));
        return Conversation { at, how: How::Exchange, bytes, tempos: [tempo; 2] };
    }
    let mut bytes = || match rng.u8(..4) {
        0 => rng.u32(1..10),
        1 | 2 => rng.u32(1..3_000),
        _ if small => rng.u32(1..10_000),
        _ => rng.u32(1..150_000),
    };
    let bytes = [bytes(), bytes()];
    let mut tempo = || Tempo {
        piece_bytes: if rng.u8(..4) == 0 { rng.u32(1..200) } else { rng.u32(200..20_000) },
        every_micros: if rng.u8(..8) == 0 { rng.u32(1_000..20_000) } else { rng.u32(20..1_000) },
        reads_after_micros: if rng.u8(..6) == 0 { rng.u32(..5 * SEC) } else { 0 },
    };
    let mut tempos: [Tempo; 2] = [tempo(), tempo()];
    // Small pieces are for messages: what they carry is not much.
    let smallest = tempos.iter().map(|tempo| tempo.piece_bytes).min().unwrap_or(1);
    let bytes = bytes.map(|bytes| bytes.min(200 * smallest));
    let how = match rng.u8(..8) {
        0 => How::EarlyAnswer(rng.u32(..bytes[0])),
        1 => How::ClientResets(rng.u32(..bytes[0])),
        2 => How::ServerResets(rng.u32(..bytes[0])),
        _ => How::Exchange,
    };
    let mut bytes = bytes;
    if let How::EarlyAnswer(_) = how {
        // What the sockets do not hold is lost with the server's close, without a relay too; and
        // an answer waits for a client that does not read for a while only.
        bytes[1] = bytes[1].min(3_000).min(socket_bytes);
        tempos[0].reads_after_micros = 0;
    }
    Conversation { at: u64::from(rng.u32(..SEC)), how, bytes, tempos }
}

fn datagrams(rng: &mut Rng) -> DatagramLoad {
    DatagramLoad {
        at: u64::from(rng.u32(200_000..SEC)),
        clients: rng.u8(1..6),
        each: rng.u8(1..20),
        bytes_max: [100, 1_200, 9_000][rng.usize(..3)],
        every_micros: rng.u32(100..20_000),
    }
}

fn fault(rng: &mut Rng) -> Fault {
    match rng.u8(..8) {
        0 => Fault::Cut,
        1 => Fault::Stop(rng.usize(..2)),
        2 | 3 => Fault::Freeze(rng.u32(..10 * SEC)),
        _ => Fault::Pause(rng.usize(..2), rng.u32(..10 * SEC)),
    }
}
