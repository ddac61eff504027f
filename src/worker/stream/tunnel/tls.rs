//! TLS as the transform between session and link: [`crate::tls`] has handshake and records.
//!
//! Received records are opened in the buffers that they came in, then cut into chunks without heads
//! and tags. A record that goes on in the next buffer is put together in one of the lane's own. What
//! is sent is sealed from the chunks of a batch into buffers of the pool, a record into each.

mod error;
mod look;
mod pieces;

use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;
use std::time::Duration;

use rustls::{AlertDescription, CipherSuite};

pub(super) use self::error::TlsError;
use self::look::Look;
use self::pieces::{fill, seal_front};
use crate::io::chunk::Chunk;
use crate::io::driver::Gather;
use crate::limits::{
    HANDSHAKE_SECS, LINE_HANDSHAKE_BYTES, RECORD_BYTES, RECORD_ROOM_BYTES_MIN, RECORDS_PER_KEY,
};
use crate::session::Moment;
use crate::tls::handshake::{Established, Handshake};
use crate::tls::record::{
    self, CONTROL_BYTES_MAX, Content, OVERHEAD_BYTES, PAYLOAD_BYTES_MAX, RecordCounters, Records,
};
use crate::tls::settings::{ALPN, Peer, Role, Settings};
use crate::worker::buffers::Buffers;

/// What [`Tls::step`] did.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// There may be more to do.
    Again,
    /// Nothing: more has to be received.
    Waits,
    /// Nothing: there is no buffer.
    NoBuffer,
    /// Nothing: the peers file has to be looked at before the peer's key is judged.
    Looks,
    /// The handshake is done.
    Secured,
    /// The peer has sent all that it has.
    Closed,
}

/// TLS of one link.
pub(super) struct Tls {
    stage: Stage,
    /// The peer may come at any time: neither end need be the one that dials.
    awaits_peer: bool,
    /// The time for the handshake, in seconds.
    handshake_secs: u64,
    /// Its end. None while the peer may come at any time, and after the handshake.
    deadline: Option<Moment>,
    /// Most payload of a record that is sent, in bytes.
    payload_bytes_max: usize,
    look: Look,
    /// Sent before anything else: flights of the handshake, alerts.
    outbox: Vec<u8>,
    /// A batch that found no buffers to be sealed into.
    pub(super) unsealed: Option<Box<Gather>>,
    /// Received, and not opened.
    received: VecDeque<Chunk>,
    /// The beginning of a record that goes on in the next buffer.
    carry: Vec<u8>,
    /// Data of a record that was opened in `carry`.
    carried: Range<usize>,
    /// Opened.
    opened: VecDeque<Chunk>,
    /// Places of opened data in a buffer; kept to reuse the allocation.
    places: Vec<Range<usize>>,
    /// What comes behind all that was opened: an end, or a failure.
    end: Option<Result<(), TlsError>>,
    /// Something was received.
    heard: bool,
    /// Opened data waits for a buffer.
    lacks_buffer: bool,
    /// close_notify was received, and one, or another alert, is sealed.
    is_closed: bool,
    has_said_end: bool,
    peer: Option<(Peer, CipherSuite)>,
}

enum Stage {
    Handshake(Box<Handshake>),
    Open(Box<Records>),
    /// No keys were agreed, and none will be.
    Failed,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.stage {
            Stage::Handshake(handshake) => write!(f, "Tls({handshake:?})"),
            Stage::Open(records) => write!(f, "Tls({records:?})"),
            Stage::Failed => f.write_str("Tls(failed)"),
        }
    }
}

impl Tls {
    /// Begins a handshake. `awaits_peer`: it may come at any time.
    pub(super) fn new(settings: &Settings, awaits_peer: bool, now: Moment) -> Tls {
        let mut outbox = Vec::new();
        let begun = match settings.role() {
            Role::Client { config, name } => {
                Handshake::dial(config.clone(), name.clone(), &mut outbox)
            }
            Role::Server { config } => Handshake::accept(config.clone()),
        };
        let (stage, end) = match begun {
            Ok(handshake) => (Stage::Handshake(Box::new(handshake)), None),
            Err(error) => (Stage::Failed, Some(Err(TlsError::Handshake(error)))),
        };
        let mut tls = Tls {
            stage,
            awaits_peer,
            handshake_secs: HANDSHAKE_SECS,
            deadline: None,
            payload_bytes_max: PAYLOAD_BYTES_MAX,
            look: Look::new(settings),
            outbox,
            unsealed: None,
            received: VecDeque::new(),
            carry: Vec::new(),
            carried: 0..0,
            opened: VecDeque::new(),
            places: Vec::new(),
            end,
            heard: false,
            lacks_buffer: false,
            is_closed: false,
            has_said_end: false,
            peer: None,
        };
        if !awaits_peer {
            tls.begin_time(now);
        }
        tls
    }

    /// The same on a line, which may be slow: records of at most so many bytes, and a handshake has the
    /// time that its bytes need.
    pub(super) fn over_line(self, record_bytes_max: usize, bytes_per_second: u32) -> Tls {
        let line_secs = LINE_HANDSHAKE_BYTES.div_ceil(u64::from(bytes_per_second.max(1)));
        Tls {
            handshake_secs: HANDSHAKE_SECS + line_secs,
            payload_bytes_max: record_bytes_max - OVERHEAD_BYTES,
            ..self
        }
    }

    /// The peer is there: the time of the handshake begins, if it has not.
    pub(super) fn begin_time(&mut self, now: Moment) {
        if !self.is_open() {
            let time = Duration::from_secs(self.handshake_secs);
            self.deadline.get_or_insert(now.after(time));
        }
    }

    /// Most payload of a record that is sent, in bytes.
    pub(super) fn payload_bytes_max(&self) -> usize {
        self.payload_bytes_max
    }

    /// Who the peer is, and the cipher, once the handshake is done.
    pub(super) fn peer(&self) -> Option<&(Peer, CipherSuite)> {
        self.peer.as_ref()
    }

    /// What has happened behind the handshake, if that was done.
    pub(super) fn counters(&self) -> Option<&RecordCounters> {
        match &self.stage {
            Stage::Open(records) => Some(records.counters()),
            Stage::Handshake(_) | Stage::Failed => None,
        }
    }

    /// Whether the handshake is done.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.stage, Stage::Open(_))
    }

    /// Whether frames can be sent.
    pub(super) fn takes_frames(&self) -> bool {
        self.is_open() && !self.has_said_end
    }

    /// Whether nothing waits here to be sent.
    pub(super) fn is_settled(&self) -> bool {
        self.outbox.is_empty() && self.unsealed.is_none()
    }

    /// Whether received data waits for a buffer, or for the look at the peers file.
    #[inline]
    pub(super) fn is_backed_up(&self) -> bool {
        self.lacks_buffer || self.look.is_in_the_way()
    }

    /// Why the end of the link's bytes is not one that the peer has announced, if so.
    pub(super) fn cut_off(&self) -> Option<&'static str> {
        match self.stage {
            Stage::Open(_) if self.is_closed => None,
            Stage::Open(_) => {
                Some("the connection was cut off: it ended without the end of TLS (close_notify)")
            }
            Stage::Handshake(_) | Stage::Failed => Some(
                "the peer closed the connection in the TLS handshake: it may speak plaintext \
                 (no STLS= there), or let in no connections from this address (RELIABLE=)",
            ),
        }
    }

    pub(super) fn next_timeout(&self) -> Option<Moment> {
        [self.deadline, self.look.until()].into_iter().flatten().min()
    }

    pub(super) fn on_time(&mut self, now: Moment) -> Result<(), TlsError> {
        self.look.on_time(now);
        match self.deadline {
            Some(deadline) if deadline <= now => {
                let secs = self.handshake_secs;
                Err(match self.awaits_peer && !self.heard {
                    true => TlsError::Unheard { secs },
                    false => TlsError::Timeout { secs },
                })
            }
            _ => Ok(()),
        }
    }

    /// The look at the peers file.
    pub(super) fn look_mut(&mut self) -> &mut Look {
        &mut self.look
    }

    /// Whether this, which was received in the handshake, may be the key of the peer: it comes encrypted.
    fn may_be_key(&self, chunk: &[u8]) -> bool {
        self.carry.first().or(chunk.first()) == Some(&record::APPLICATION_DATA)
    }

    /// Takes bytes of the link.
    pub(super) fn receive(&mut self, chunk: Chunk, now: Moment) {
        self.begin_time(now);
        self.received.push_back(chunk);
    }

    /// The next opened data, in order.
    pub(super) fn take_opened(&mut self) -> Option<Chunk> {
        self.opened.pop_front()
    }

    /// Goes on with what was received. Only when all opened data is taken.
    pub(super) fn step(
        &mut self,
        settings: &Settings,
        buffers: &mut Buffers,
    ) -> Result<Step, TlsError> {
        if !self.carried.is_empty() {
            return Ok(self.take_carried(buffers));
        }
        if let Some(end) = self.end.take() {
            self.is_closed = end.is_ok();
            return end.map(|()| Step::Closed);
        }
        let Some(mut chunk) = self.received.pop_front() else { return Ok(Step::Waits) };
        if let Stage::Handshake(_) = self.stage {
            if self.may_be_key(&chunk) && !self.look.is_over(settings) {
                self.received.push_front(chunk);
                return Ok(Step::Looks);
            }
            let step = self.shake_hands(settings, &mut chunk);
            if step.is_err() && !self.is_open() {
                self.stage = Stage::Failed;
            }
            if !chunk.is_empty() {
                self.received.push_front(chunk);
            }
            return step;
        }
        let Stage::Open(records) = &mut self.stage else {
            self.received.clear();
            return Ok(Step::Waits);
        };
        if !self.carry.is_empty() || chunk.get_mut().is_none() {
            if fill(&mut self.carry, &mut chunk)? {
                match records.open(&mut self.carry)? {
                    Content::Data(place) => self.carried = place,
                    Content::Nothing => self.carry.clear(),
                    Content::Closed => self.end = Some(Ok(())),
                }
            }
            if !chunk.is_empty() {
                self.received.push_front(chunk);
            }
            return Ok(Step::Again);
        }
        self.open_in_place(chunk);
        Ok(Step::Again)
    }

    /// Hands on the data of a record that was opened in `carry`.
    fn take_carried(&mut self, buffers: &mut Buffers) -> Step {
        while !self.carried.is_empty() {
            let chunk = buffers.chunk_of(&self.carry[self.carried.clone()]);
            self.lacks_buffer = chunk.is_none();
            let Some((chunk, took)) = chunk else { return Step::NoBuffer };
            self.carried.start += took;
            self.opened.push_back(chunk);
        }
        self.carry.clear();
        Step::Again
    }

    /// Opens all whole records of a buffer that nobody else refers to. The beginning of one more is kept.
    fn open_in_place(&mut self, mut chunk: Chunk) {
        let (Stage::Open(records), Some(bytes)) = (&mut self.stage, chunk.get_mut()) else {
            return;
        };
        let mut at = 0;
        loop {
            let whole = match record::length(&bytes[at..]) {
                Ok(Some(length)) if length <= bytes.len() - at => length,
                Ok(_) => break,
                Err(error) => {
                    self.end = Some(Err(error.into()));
                    break;
                }
            };
            match records.open(&mut bytes[at..at + whole]) {
                Ok(Content::Data(place)) => self.places.push(at + place.start..at + place.end),
                Ok(Content::Nothing) => {}
                Ok(Content::Closed) => self.end = Some(Ok(())),
                Err(error) => self.end = Some(Err(error.into())),
            }
            at += whole;
            if self.end.is_some() {
                break;
            }
        }
        if self.end.is_none() {
            self.carry.extend_from_slice(&bytes[at..]);
        }
        let mut cut = 0;
        for place in self.places.drain(..) {
            chunk.advance(place.start - cut);
            cut = place.end;
            self.opened.push_back(chunk.split_to(place.len()));
        }
    }

    /// Gives the handshake the next record.
    fn shake_hands(&mut self, settings: &Settings, chunk: &mut Chunk) -> Result<Step, TlsError> {
        let Stage::Handshake(handshake) = &mut self.stage else { return Ok(Step::Again) };
        if !std::mem::replace(&mut self.heard, true)
            && ![record::HANDSHAKE, record::ALERT].contains(&chunk[0])
        {
            let alert = record::plain_alert(AlertDescription::UnexpectedMessage);
            self.outbox.extend_from_slice(&alert);
            return Err(TlsError::Plaintext);
        }
        if !fill(&mut self.carry, chunk)? {
            return Ok(Step::Again);
        }
        let is_done =
            handshake.advance(&self.carry, &mut self.outbox).map_err(TlsError::of_handshake)?;
        self.carry.clear();
        if !is_done {
            return Ok(Step::Again);
        }
        let Stage::Handshake(handshake) = std::mem::replace(&mut self.stage, Stage::Failed) else {
            return Ok(Step::Again);
        };
        let Established { mut records, certificates, alpn, suite } =
            handshake.finish().map_err(TlsError::Handshake)?;
        // The number was made for full records.
        let in_full = RECORD_BYTES / self.payload_bytes_max as u64;
        let per_key = settings.records_per_key().saturating_mul(in_full.max(1));
        records.set_records_per_key(per_key.min(RECORDS_PER_KEY));
        // From here on a refusal is sealed, too.
        self.stage = Stage::Open(Box::new(records));
        self.deadline = None;
        // None: rustls goes on without one, whichever side has named none.
        if alpn.as_deref() != Some(ALPN) {
            return Err(TlsError::OtherProtocol);
        }
        let peer = settings.peer(&certificates).map_err(TlsError::NotKnown)?;
        self.peer = Some((peer, suite));
        Ok(Step::Secured)
    }

    /// The link broke: what was received and not opened, and what was to be sent, is of no use any more.
    pub(super) fn leave_link(&mut self, buffers: &mut Buffers) {
        if let Some(unsealed) = self.unsealed.take() {
            buffers.give_back(unsealed);
        }
        self.received.clear();
        self.opened.clear();
        self.carried = 0..0;
        self.carry = Vec::new();
        self.outbox = Vec::new();
        self.lacks_buffer = false;
    }

    /// Takes what goes before frames, for a link that no buffers are needed for.
    pub(super) fn take_control(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.outbox)
    }

    /// Puts what goes before frames at the end of a batch. `false`: there are no buffers for all of it.
    pub(super) fn write_control(&mut self, buffers: &mut Buffers, sealed: &mut Gather) -> bool {
        let mut taken = 0;
        while taken < self.outbox.len() {
            let rest = &self.outbox[taken..];
            let mut took = 0;
            let is_written = buffers.write_by(sealed, 1, |room| {
                took = rest.len().min(room.len());
                room[..took].copy_from_slice(&rest[..took]);
                took
            });
            if !is_written {
                break;
            }
            taken += took;
        }
        self.outbox.drain(..taken);
        self.outbox.is_empty()
    }

    /// Seals a batch, as far as there are buffers, and a KeyUpdate where one is due. What is left of
    /// `plain` has to be given again.
    pub(super) fn seal(
        &mut self,
        buffers: &mut Buffers,
        plain: &mut Gather,
        sealed: &mut Gather,
    ) -> Result<(), TlsError> {
        let Stage::Open(records) = &mut self.stage else { return Ok(()) };
        if self.has_said_end {
            return Ok(());
        }
        loop {
            if records.update_is_asked() || (records.update_is_due() && !plain.is_empty()) {
                let mut result = Ok(0);
                let is_written = buffers.write_by(sealed, CONTROL_BYTES_MAX, |room| {
                    result = records.seal_key_update(room);
                    *result.as_ref().unwrap_or(&0)
                });
                result?;
                if !is_written {
                    return Ok(());
                }
            }
            if plain.is_empty() {
                return Ok(());
            }
            let most_bytes = plain.len_bytes().min(self.payload_bytes_max);
            let least_bytes = most_bytes.min(RECORD_ROOM_BYTES_MIN) + OVERHEAD_BYTES;
            let mut result = Ok(0);
            let is_written = buffers.write_by(sealed, least_bytes, |room| {
                let bytes = (room.len() - OVERHEAD_BYTES).min(most_bytes);
                result = seal_front(records, plain, bytes, room);
                *result.as_ref().unwrap_or(&0)
            });
            result?;
            if !is_written {
                return Ok(());
            }
        }
    }

    /// Seals the last record: an alert for an error, else that nothing follows.
    pub(super) fn say_end(&mut self, error: Option<&TlsError>) {
        if self.has_said_end || (error.is_none() && self.unsealed.is_some()) {
            return;
        }
        self.has_said_end = true;
        let alert = match error {
            None => Some(AlertDescription::CloseNotify),
            Some(error) => error.alert(),
        };
        let (Stage::Open(records), Some(alert)) = (&mut self.stage, alert) else { return };
        let mut sealed = [0; CONTROL_BYTES_MAX];
        if let Ok(bytes) = records.seal_alert(alert, &mut sealed) {
            self.outbox.extend_from_slice(&sealed[..bytes]);
        }
    }
}

#[cfg(test)]
mod tests;
