//! A pair: a client of a plain relay and the server dialled for it, with the two directions in
//! which bytes go between them.

use std::net::SocketAddr;
use std::rc::Rc;

use super::broken::BrokenSide;
use crate::cli::plan::Bulk;
use crate::io::driver::{BufferClass, Fd};
use crate::io::net;
use crate::io::pipe::Pipe;
use crate::limits::{SMALL_BUFFER_BYTES, SPLICE_BYTES_MIN};
use crate::policy::connection_limits::LimitGuard;
use crate::session::Moment;
use crate::worker::table::Key;
use crate::worker::token::Kind;

/// Short reads in a row that end a direction's bulk.
const SHORT_READS: u8 = 2;
/// Short splices in a row after which a direction is copied again. More than reads: a splice ends
/// where the sender pauses for a moment, and says little alone.
const SHORT_SPLICES: u8 = 8;
/// Receives before a direction that found no pipe asks for one again.
const RECEIVES_WITHOUT_PIPE: u32 = 64;

/// A direction of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::worker) enum Way {
    /// From the client to the server.
    Up,
    /// From the server to the client.
    Down,
}

impl Way {
    /// Its name for the log.
    pub(super) fn name(self) -> &'static str {
        match self {
            Way::Up => "up",
            Way::Down => "down",
        }
    }
}

/// What a direction's operations are called by.
pub(super) struct Kinds {
    pub(super) ready: Kind,
    pub(super) receive: Kind,
    pub(super) send: Kind,
    pub(super) room: Kind,
    pub(super) broken: Kind,
}

impl Way {
    /// The direction back.
    pub(super) fn other(self) -> Way {
        match self {
            Way::Up => Way::Down,
            Way::Down => Way::Up,
        }
    }

    pub(super) fn kinds(self) -> Kinds {
        match self {
            Way::Up => Kinds {
                ready: Kind::UpReady,
                receive: Kind::UpReceive,
                send: Kind::UpSend,
                room: Kind::UpRoom,
                broken: Kind::UpBroken,
            },
            Way::Down => Kinds {
                ready: Kind::DownReady,
                receive: Kind::DownReceive,
                send: Kind::DownSend,
                room: Kind::DownRoom,
                broken: Kind::DownBroken,
            },
        }
    }
}

/// What is known of the socket that a direction comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Input {
    /// Nothing, and nothing is under way.
    Idle,
    /// It is watched for data and urgent data.
    Watched,
    /// It has something.
    Ready,
    /// A receive into a buffer of this class is under way.
    Receiving(BufferClass),
    /// It waits for a buffer to receive into.
    Starved,
    /// It has given its end of data.
    Ended,
}

/// What is known of the socket that a direction goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Output {
    /// All that was read is written.
    Idle,
    /// A send is under way.
    Sending {
        /// It did not take all at once: the rest is in buffers of our own, and waits for room.
        stalled: bool,
    },
    /// What stands in the pipe waits for room.
    Full,
    /// It was told the end of data.
    Shut,
    /// It takes no more: what comes for it is not read.
    Broken,
}

/// How the bytes of a direction are moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// A message now and then: watched, then received once into a small buffer.
    Sparse,
    /// It fills those: received into large ones.
    Bulk,
    /// Much is waiting each time: spliced through a pipe.
    Spliced,
}

/// One direction. It is read only while nothing of it waits to be written, so that it holds one
/// buffer or one pipe at most.
#[derive(Debug)]
pub(super) struct Half {
    pub(super) input: Input,
    pub(super) output: Output,
    pub(super) mode: Mode,
    /// Short reads or splices in a row.
    streak: u8,
    /// Receives until splicing is tried again.
    copies_left: u32,
    /// Holds what was spliced and not yet written.
    pub(super) pipe: Option<Rc<Pipe>>,
    /// The input is watched for breaking while the output is blocked.
    pub(super) guarded: bool,
}

impl Half {
    fn new() -> Half {
        Half {
            input: Input::Idle,
            output: Output::Idle,
            mode: Mode::Sparse,
            streak: 0,
            copies_left: 0,
            pipe: None,
            guarded: false,
        }
    }

    /// A receive brought so many bytes.
    pub(super) fn received(&mut self, bytes: usize, bulk: Bulk) {
        let full = bytes >= SMALL_BUFFER_BYTES as usize;
        let enough = bytes >= spliced_bytes_min(bulk);
        self.copies_left = self.copies_left.saturating_sub(1);
        match self.mode {
            Mode::Sparse | Mode::Bulk if bulk != Bulk::Copy && enough && self.copies_left == 0 => {
                self.enter(Mode::Spliced);
            }
            Mode::Sparse if full => self.enter(Mode::Bulk),
            Mode::Bulk if full => self.streak = 0,
            Mode::Bulk => self.short(SHORT_READS, Mode::Sparse),
            Mode::Sparse | Mode::Spliced => {}
        }
    }

    /// Splicing brought so many bytes and then had to stop.
    pub(super) fn spliced(&mut self, bytes: usize, bulk: Bulk) {
        if bytes >= spliced_bytes_min(bulk) {
            self.streak = 0;
        } else if bulk == Bulk::Splice {
            self.short(SHORT_SPLICES, Mode::Sparse);
        } else {
            self.short(SHORT_SPLICES, Mode::Bulk);
        }
    }

    /// There is no pipe for it, or it cannot be spliced at all.
    pub(super) fn copy_instead(&mut self, for_ever: bool) {
        self.copies_left = if for_ever { u32::MAX } else { RECEIVES_WITHOUT_PIPE };
        self.enter(Mode::Bulk);
    }

    /// Something that was read waits to be written.
    pub(super) fn is_blocked(&self) -> bool {
        matches!(self.output, Output::Sending { .. } | Output::Full)
    }

    fn short(&mut self, most: u8, then: Mode) {
        self.streak += 1;
        if self.streak >= most {
            self.enter(then);
        }
    }

    fn enter(&mut self, mode: Mode) {
        self.mode = mode;
        self.streak = 0;
    }
}

/// Bytes that must come at once for splicing to be the better way.
fn spliced_bytes_min(bulk: Bulk) -> usize {
    match bulk {
        Bulk::Auto | Bulk::Copy => SPLICE_BYTES_MIN,
        Bulk::Splice => SMALL_BUFFER_BYTES as usize,
    }
}

/// A client and its server.
#[derive(Debug)]
pub(super) struct Pair {
    /// The client's address: for the log.
    pub(super) peer: SocketAddr,
    pub(super) client: Fd,
    /// Given back with all the rest.
    pub(super) limit_guard: Option<LimitGuard>,
    /// None until it is reached.
    pub(super) server: Option<Fd>,
    /// The dial for the server, until that is reached.
    pub(super) dial: Option<Key>,
    pub(super) up: Half,
    pub(super) down: Half,
    /// One side is broken.
    pub(super) broken: Option<BrokenSide>,
    /// Last data either way.
    pub(super) last_data: Moment,
}

impl Pair {
    pub(super) fn new(peer: SocketAddr, client: Fd, now: Moment) -> Pair {
        Pair {
            peer,
            client,
            limit_guard: None,
            server: None,
            dial: None,
            up: Half::new(),
            down: Half::new(),
            broken: None,
            last_data: now,
        }
    }

    /// A direction, with where it comes from and where it goes.
    pub(super) fn half(&mut self, way: Way) -> Option<(&mut Half, &Fd, &Fd)> {
        let server = self.server.as_ref()?;
        Some(match way {
            Way::Up => (&mut self.up, &self.client, server),
            Way::Down => (&mut self.down, server, &self.client),
        })
    }

    /// Both sides have been told the end of the other's data.
    pub(super) fn is_over(&self) -> bool {
        self.up.output == Output::Shut && self.down.output == Output::Shut
    }

    /// Makes the close that follows a reset, of both.
    pub(super) fn reset_on_close(&self) {
        net::reset_on_close(&self.client);
        if let Some(server) = &self.server {
            net::reset_on_close(server);
        }
    }
}
