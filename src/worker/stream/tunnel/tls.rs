//! TLS as the transform between session and link: [`crate::tls`] has handshake and records.
//!
//! Received records are opened in the buffers that they came in, then cut into chunks without heads
//! and tags. A record that goes on in the next buffer is put together in one of the lane's own. What
//! is sent is sealed from the chunks of a batch into buffers of the pool, a record into each.

use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;

use rustls::{AlertDescription, CipherSuite};

use crate::io::chunk::Chunk;
use crate::io::driver::Gather;
use crate::limits::{HANDSHAKE_SECS, RECORD_ROOM_BYTES_MIN};
use crate::session::Moment;
use crate::tls::handshake::Handshake;
use crate::tls::record::{
    self, CONTROL_BYTES_MAX, Content, HEAD_BYTES, OVERHEAD_BYTES, PAYLOAD_BYTES_MAX,
    RecordCounters, RecordError, Records,
};
use crate::tls::settings::{ALPN, Peer, Role, Settings};
use crate::worker::buffers::Buffers;

/// Ends the link. Layer: TLS; scope: the link.
#[derive(Debug, thiserror::Error)]
pub(super) enum TlsError {
    /// Caused by the peer, or by what this end makes of its key.
    #[error("{0}")]
    Handshake(rustls::Error),
    /// Caused by the peer.
    #[error("the handshake took more than {HANDSHAKE_SECS} s")]
    Timeout,
    /// Caused by the peer, or by the command line here.
    #[error(
        "the peer speaks plaintext, and this end is encrypted: give the peer STLS= and TLSCONF=, \
         or this end neither"
    )]
    Plaintext,
    /// Caused by the peer.
    #[error("the peer's TLS is for something else: it has not agreed to the protocol sockmux")]
    OtherProtocol,
    /// Caused by this end, whose list of peers has changed.
    #[error("{0}")]
    NotKnown(String),
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// What [`Tls::step`] did.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// There may be more to do.
    Again,
    /// Nothing: more has to be received.
    Waits,
    /// Nothing: there is no buffer.
    NoBuffer,
    /// The handshake is done.
    Secured,
    /// The peer has sent all that it has.
    Closed,
}

/// TLS of one link.
pub(super) struct Tls {
    stage: Stage,
    /// End of the time for the handshake. None while the peer may come at any time, and after it.
    deadline: Option<Moment>,
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
        Tls {
            stage,
            deadline: (!awaits_peer).then(|| handshake_deadline(now)),
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
        }
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

    /// Whether frames can be sent.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.stage, Stage::Open(_))
    }

    /// Whether nothing waits here to be sent.
    pub(super) fn is_settled(&self) -> bool {
        self.outbox.is_empty() && self.unsealed.is_none()
    }

    /// Whether received data waits for a buffer.
    #[inline]
    pub(super) fn is_backed_up(&self) -> bool {
        self.lacks_buffer
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
        self.deadline
    }

    pub(super) fn on_time(&self, now: Moment) -> Result<(), TlsError> {
        match self.deadline {
            Some(deadline) if deadline <= now => Err(TlsError::Timeout),
            _ => Ok(()),
        }
    }

    /// Takes bytes of the link.
    pub(super) fn receive(&mut self, chunk: Chunk, now: Moment) {
        if !self.is_open() {
            self.deadline.get_or_insert(handshake_deadline(now));
        }
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
            let step = self.shake_hands(settings, &mut chunk);
            if step.is_err() {
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
            handshake.advance(&self.carry, &mut self.outbox).map_err(TlsError::Handshake)?;
        self.carry.clear();
        if !is_done {
            return Ok(Step::Again);
        }
        let Stage::Handshake(handshake) = std::mem::replace(&mut self.stage, Stage::Failed) else {
            return Ok(Step::Again);
        };
        let mut established = handshake.finish().map_err(TlsError::Handshake)?;
        established.records.set_records_per_key(settings.records_per_key());
        if established.alpn.as_deref() != Some(ALPN) {
            return Err(TlsError::OtherProtocol);
        }
        let peer = settings.peer(&established.certificates).map_err(TlsError::NotKnown)?;
        self.peer = Some((peer, established.suite));
        self.stage = Stage::Open(Box::new(established.records));
        self.deadline = None;
        Ok(Step::Secured)
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
            let least_bytes = plain.len_bytes().min(RECORD_ROOM_BYTES_MIN) + OVERHEAD_BYTES;
            let mut result = Ok(0);
            let is_written = buffers.write_by(sealed, least_bytes, |room| {
                let most_bytes = (room.len() - OVERHEAD_BYTES).min(PAYLOAD_BYTES_MAX);
                let bytes = plain.len_bytes().min(most_bytes);
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
            Some(TlsError::Record(error)) => error.alert(),
            Some(TlsError::NotKnown(_)) => Some(AlertDescription::AccessDenied),
            Some(TlsError::OtherProtocol) => Some(AlertDescription::NoApplicationProtocol),
            // Those of a handshake are in the outbox already.
            Some(TlsError::Handshake(_) | TlsError::Timeout | TlsError::Plaintext) => None,
        };
        let (Stage::Open(records), Some(alert)) = (&mut self.stage, alert) else { return };
        let mut sealed = [0; CONTROL_BYTES_MAX];
        if let Ok(bytes) = records.seal_alert(alert, &mut sealed) {
            self.outbox.extend_from_slice(&sealed[..bytes]);
        }
    }
}

fn handshake_deadline(now: Moment) -> Moment {
    now.after(std::time::Duration::from_secs(HANDSHAKE_SECS))
}

/// Moves bytes to `carry` until a whole record stands there. `false`: it goes on in the next chunk.
fn fill(carry: &mut Vec<u8>, chunk: &mut Chunk) -> Result<bool, RecordError> {
    let mut take = |carry: &mut Vec<u8>, wanted: usize| {
        let bytes = wanted.saturating_sub(carry.len()).min(chunk.len());
        carry.extend_from_slice(&chunk[..bytes]);
        chunk.advance(bytes);
        carry.len() >= wanted
    };
    if !take(carry, HEAD_BYTES) {
        return Ok(false);
    }
    Ok(record::length(carry)?.is_some_and(|whole| take(carry, whole)))
}

/// Seals the first `bytes` of a batch into `room`: where they stand if that is one chunk.
fn seal_front(
    records: &mut Records,
    plain: &mut Gather,
    bytes: usize,
    room: &mut [u8],
) -> Result<usize, RecordError> {
    let front = plain.iter().next().filter(|front| front.len() >= bytes);
    let length = match front {
        Some(front) => records.seal(&front[..bytes], room)?,
        None => {
            let mut at = HEAD_BYTES;
            for part in plain.iter() {
                let part_bytes = part.len().min(HEAD_BYTES + bytes - at);
                room[at..at + part_bytes].copy_from_slice(&part[..part_bytes]);
                at += part_bytes;
                if at == HEAD_BYTES + bytes {
                    break;
                }
            }
            records.seal_in_place(room, bytes)?
        }
    };
    plain.advance(bytes);
    Ok(length)
}

#[cfg(test)]
mod tests;
