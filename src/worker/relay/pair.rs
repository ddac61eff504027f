//! The state of a pair: a client of the plain relay, the server dialled for it, and both directions
//! between them.

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
use crate::worker::access_entry::AccessEntry;
use crate::worker::table::Key;
use crate::worker::token::Kind;
use crate::worker::way::Way;

/// Short reads in a row that end bulk mode.
const SHORT_READS: u8 = 2;
/// Short splices in a row after which a direction is copied again. More than for reads, since a
/// splice ends at any pause of the sender.
const SHORT_SPLICES: u8 = 8;
/// Receives after which a direction without a pipe tries to get one again.
const RECEIVES_WITHOUT_PIPE: u32 = 64;

/// The token kinds of a direction's operations.
pub(super) struct Kinds {
    pub(super) ready: Kind,
    pub(super) receive: Kind,
    pub(super) send: Kind,
    pub(super) room: Kind,
    pub(super) broken: Kind,
}

impl Way {
    /// The opposite direction.
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

/// State of a direction's source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Input {
    /// No operation in flight.
    Idle,
    /// Polled for data and urgent data.
    Watched,
    /// Readable.
    Ready,
    /// A receive into a buffer of this class is in flight.
    Receiving(BufferClass),
    /// Waiting for a receive buffer.
    Starved,
    /// The end of data was read.
    Ended,
}

/// State of a direction's sink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Output {
    /// Everything read is written.
    Idle,
    /// A send is in flight.
    Sending {
        /// An earlier send was partial: the rest is in pool buffers and waits for room.
        stalled: bool,
    },
    /// Data in the pipe waits for room.
    Full,
    /// Shut down for writing.
    Shut,
    /// Accepts no more; its source is not read.
    Broken,
}

/// How the bytes of a direction are moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Occasional messages: polled, then received once into a small buffer.
    Sparse,
    /// Data fills small buffers: received into bulk buffers.
    Bulk,
    /// Much data waits each time: spliced through a pipe.
    Spliced,
}

/// One direction. It is read only while nothing waits to be written, so it holds at most one buffer
/// or one pipe.
#[derive(Debug)]
pub(super) struct Half {
    pub(super) input: Input,
    pub(super) output: Output,
    pub(super) mode: Mode,
    /// Short reads or splices in a row.
    streak: u8,
    /// Receives left until splicing is tried again.
    copies_left: u32,
    /// Holds data spliced and not yet written.
    pub(super) pipe: Option<Rc<Pipe>>,
    /// An error poll is armed on the source while the sink is blocked.
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

    /// Updates the mode after a receive.
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

    /// Updates the mode after a splice that had to stop.
    pub(super) fn spliced(&mut self, bytes: usize, bulk: Bulk) {
        if bytes >= spliced_bytes_min(bulk) {
            self.streak = 0;
        } else if bulk == Bulk::Splice {
            self.short(SHORT_SPLICES, Mode::Sparse);
        } else {
            self.short(SHORT_SPLICES, Mode::Bulk);
        }
    }

    /// No pipe is free, or splicing is not supported: copies instead.
    pub(super) fn copy_instead(&mut self, for_ever: bool) {
        self.copies_left = if for_ever { u32::MAX } else { RECEIVES_WITHOUT_PIPE };
        self.enter(Mode::Bulk);
    }

    /// Whether data read waits to be written.
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

/// Minimum of available bytes for which splicing is cheaper.
fn spliced_bytes_min(bulk: Bulk) -> usize {
    match bulk {
        Bulk::Auto | Bulk::Copy => SPLICE_BYTES_MIN,
        Bulk::Splice => SMALL_BUFFER_BYTES as usize,
    }
}

/// A client and its server.
#[derive(Debug)]
pub(super) struct Pair {
    /// The client's address, for the log.
    pub(super) peer: SocketAddr,
    pub(super) client: Fd,
    /// Returns the limits when dropped.
    pub(super) limit_guard: Option<LimitGuard>,
    /// Its line in the access log.
    pub(super) entry: AccessEntry,
    /// `None` until connected.
    pub(super) server: Option<Fd>,
    /// The dial in progress, if any.
    pub(super) dial: Option<Key>,
    pub(super) up: Half,
    pub(super) down: Half,
    /// Set once a side is broken.
    pub(super) broken: Option<BrokenSide>,
    /// Time of the last data in either direction.
    pub(super) last_data: Moment,
}

impl Pair {
    pub(super) fn new(peer: SocketAddr, client: Fd, now: Moment) -> Pair {
        Pair {
            peer,
            client,
            limit_guard: None,
            entry: AccessEntry::default(),
            server: None,
            dial: None,
            up: Half::new(),
            down: Half::new(),
            broken: None,
            last_data: now,
        }
    }

    /// Counts bytes that were read.
    pub(super) fn moved(&mut self, way: Way, bytes: usize) {
        match way {
            Way::Up => self.entry.up(bytes),
            Way::Down => self.entry.down(bytes),
        }
    }

    /// A direction with its source and its sink.
    pub(super) fn half(&mut self, way: Way) -> Option<(&mut Half, &Fd, &Fd)> {
        let server = self.server.as_ref()?;
        Some(match way {
            Way::Up => (&mut self.up, &self.client, server),
            Way::Down => (&mut self.down, server, &self.client),
        })
    }

    /// Both directions have ended.
    pub(super) fn is_over(&self) -> bool {
        self.up.output == Output::Shut && self.down.output == Output::Shut
    }

    /// Makes the close of both sockets a reset.
    pub(super) fn reset_on_close(&self) {
        net::reset_on_close(&self.client);
        if let Some(server) = &self.server {
            net::reset_on_close(server);
        }
    }
}
