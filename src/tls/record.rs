//! Records of a connection whose handshake is done: sealed and opened in the caller's buffers.
//!
//! A record is a head of 5 bytes (type 23, version, length), then what is sealed: payload, the byte of
//! its real type, zeros; then the tag. The head is authenticated, too. The nonce is the direction's IV
//! XOR the number of the record.
//!
//! Sent records have no padding. Received ones may have any, and may be empty. A KeyUpdate is answered
//! where the peer asks for that; session tickets are passed over.

use std::fmt;
use std::ops::Range;

use aws_lc_rs::aead::{
    AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey,
};
use rustls::{AlertDescription, ConnectionTrafficSecrets};
use zeroize::Zeroizing;

use super::handshake::KeySchedule;
use crate::limits::{IDLE_RECORDS_MAX, RECORDS_PER_KEY};
use crate::narrow::to_u16;

/// Bytes of a record's head.
pub const HEAD_BYTES: usize = 5;
/// Most payload of a record.
pub const PAYLOAD_BYTES_MAX: usize = 1 << 14;
/// Bytes that a record is longer than its payload: head, type and tag.
pub const OVERHEAD_BYTES: usize = HEAD_BYTES + 1 + TAG_BYTES;
/// Longest record.
pub const RECORD_BYTES_MAX: usize = HEAD_BYTES + SEALED_BYTES_MAX;
/// Bytes of a record with a KeyUpdate, or more than those of one with an alert.
pub const CONTROL_BYTES_MAX: usize = OVERHEAD_BYTES + KEY_UPDATE_BYTES;

/// Begins a plaintext alert.
pub const ALERT: u8 = 21;
/// Begins the first record of a handshake.
pub const HANDSHAKE: u8 = 22;
/// Begins every record that is encrypted, those of a handshake too.
pub const APPLICATION_DATA: u8 = 23;
/// The first type of records.
const CHANGE_CIPHER_SPEC: u8 = 20;

const SESSION_TICKET: u8 = 4;
const KEY_UPDATE: u8 = 24;
const KEY_UPDATE_BYTES: usize = 5;

const TAG_BYTES: usize = 16;
/// Most bytes behind a head: by the standard, with any cipher.
const SEALED_BYTES_MAX: usize = PAYLOAD_BYTES_MAX + 256;
const FATAL: u8 = 2;

/// Ends the link. Layer: TLS; scope: the link; caused by the peer, or by who is on the path to it.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum RecordError {
    /// No head of a record.
    #[error("peer sent what is no TLS record: {head:02x?}")]
    NotTls {
        /// The bytes in its place.
        head: [u8; HEAD_BYTES],
    },
    /// Longer than allowed.
    #[error("peer sent a TLS record of {bytes} bytes, at most {max} are allowed", max = SEALED_BYTES_MAX)]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// Not what was sealed with the key.
    #[error("a TLS record was changed on its way, or sealed with another key")]
    NotAuthentic,
    /// Nothing but zeros.
    #[error("peer sent a TLS record without a type")]
    NoType,
    /// A type or a message that has no place here.
    #[error("peer sent a TLS record of type {kind} where none is expected")]
    Unexpected {
        /// The type.
        kind: u8,
    },
    /// A message that breaks the rules of its type.
    #[error("peer sent a malformed TLS message of type {kind}")]
    Malformed {
        /// The type of the record.
        kind: u8,
    },
    /// Work without an end.
    #[error("peer sent {IDLE_RECORDS_MAX} TLS records in a row without any data")]
    TooManyIdle,
    /// The peer ends the connection for this reason.
    #[error("peer sent the TLS alert {0:?}")]
    Alert(AlertDescription),
    /// Of the library; caused by this machine.
    #[error("TLS cannot go on: {0}")]
    Keys(rustls::Error),
}

impl RecordError {
    /// What the peer is told. `None`: it knows.
    pub fn alert(&self) -> Option<AlertDescription> {
        Some(match self {
            RecordError::TooLong { .. } => AlertDescription::RecordOverflow,
            RecordError::NotAuthentic => AlertDescription::BadRecordMac,
            RecordError::Malformed { .. } => AlertDescription::DecodeError,
            RecordError::NotTls { .. }
            | RecordError::NoType
            | RecordError::Unexpected { .. }
            | RecordError::TooManyIdle => AlertDescription::UnexpectedMessage,
            RecordError::Keys(_) => AlertDescription::InternalError,
            RecordError::Alert(_) => return None,
        })
    }
}

/// Length of the record that begins with these bytes, head included. `None`: too few to know.
///
/// # Errors
/// No record begins so.
pub fn length(bytes: &[u8]) -> Result<Option<usize>, RecordError> {
    let Some(&head) = bytes.first_chunk::<HEAD_BYTES>() else { return Ok(None) };
    let [kind, major, _, high, low] = head;
    if !(CHANGE_CIPHER_SPEC..=APPLICATION_DATA).contains(&kind) || major != 3 {
        return Err(RecordError::NotTls { head });
    }
    match usize::from(u16::from_be_bytes([high, low])) {
        bytes if bytes > SEALED_BYTES_MAX => Err(RecordError::TooLong { bytes }),
        bytes => Ok(Some(HEAD_BYTES + bytes)),
    }
}

/// A plaintext alert, for a peer with which no keys are agreed.
pub fn plain_alert(alert: AlertDescription) -> [u8; HEAD_BYTES + 2] {
    [ALERT, 3, 3, 0, 2, FATAL, alert.into()]
}

/// What a record held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Data, at this place in the record. Never empty.
    Data(Range<usize>),
    /// Nothing for the layer above.
    Nothing,
    /// close_notify: the peer has sent all that it has.
    Closed,
}

/// One direction: its key, and the number of the next record.
struct Direction {
    key: LessSafeKey,
    iv: Zeroizing<[u8; NONCE_LEN]>,
    number: u64,
}

impl Direction {
    fn new((number, secrets): (u64, ConnectionTrafficSecrets)) -> Result<Direction, RecordError> {
        use ConnectionTrafficSecrets::{Aes128Gcm, Aes256Gcm, Chacha20Poly1305};
        let (algorithm, key, iv) = match &secrets {
            Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
            Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
            Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv),
            _ => return Err(broken("an unknown cipher")),
        };
        let key = UnboundKey::new(algorithm, key.as_ref()).map_err(|_| broken("a key's size"))?;
        let iv: [u8; NONCE_LEN] = iv.as_ref().try_into().map_err(|_| broken("an IV's size"))?;
        Ok(Direction { key: LessSafeKey::new(key), iv: Zeroizing::new(iv), number })
    }

    /// The nonce of the next record.
    #[inline]
    fn next_nonce(&mut self) -> Nonce {
        let mut nonce = *self.iv;
        for (byte, of_number) in nonce[NONCE_LEN - 8..].iter_mut().zip(self.number.to_be_bytes()) {
            *byte ^= of_number;
        }
        self.number += 1;
        Nonce::assume_unique_for_key(nonce)
    }
}

fn broken(what: &str) -> RecordError {
    RecordError::Keys(rustls::Error::General(what.to_owned()))
}

/// How often the keys of a connection have changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RecordCounters {
    /// KeyUpdates received from the peer, and sent to it.
    pub key_updates_in: u64,
    /// See [`RecordCounters::key_updates_in`].
    pub key_updates_out: u64,
}

/// Both directions of a connection.
pub struct Records {
    sent: Direction,
    received: Direction,
    keys: KeySchedule,
    /// Sent records after which a new key is taken.
    records_per_key: u64,
    /// The peer asks for a KeyUpdate of ours.
    update_asked: bool,
    /// Received records without data, in a row.
    idle: u32,
    counters: RecordCounters,
}

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sent, received) = (self.sent.number, self.received.number);
        write!(f, "Records({sent} sent, {received} received)")
    }
}

impl Records {
    /// Behind a handshake that has agreed on these keys.
    pub(super) fn new(
        secrets: rustls::ExtractedSecrets,
        keys: KeySchedule,
    ) -> Result<Records, RecordError> {
        Ok(Records {
            sent: Direction::new(secrets.tx)?,
            received: Direction::new(secrets.rx)?,
            keys,
            records_per_key: RECORDS_PER_KEY,
            update_asked: false,
            idle: 0,
            counters: RecordCounters::default(),
        })
    }

    /// What has happened so far.
    pub fn counters(&self) -> &RecordCounters {
        &self.counters
    }

    /// Takes a new key after so many sent records.
    pub fn set_records_per_key(&mut self, records: u64) {
        self.records_per_key = records.max(1);
    }

    /// Whether a KeyUpdate has to be sent before anything else.
    #[inline]
    pub fn update_is_due(&self) -> bool {
        self.update_asked || self.sent.number >= self.records_per_key
    }

    /// Whether the peer waits for a KeyUpdate, even if there is nothing else to send.
    pub fn update_is_asked(&self) -> bool {
        self.update_asked
    }

    /// Seals `payload` into the front of `record`, and returns the length there: [`OVERHEAD_BYTES`]
    /// more.
    ///
    /// # Errors
    /// Only of the library.
    ///
    /// # Panics
    /// If there is no room, or more than [`PAYLOAD_BYTES_MAX`].
    pub fn seal(&mut self, payload: &[u8], record: &mut [u8]) -> Result<usize, RecordError> {
        self.seal_as(APPLICATION_DATA, payload, record)
    }

    fn seal_as(
        &mut self,
        kind: u8,
        payload: &[u8],
        record: &mut [u8],
    ) -> Result<usize, RecordError> {
        let record = &mut record[..payload.len() + OVERHEAD_BYTES];
        let head = write_head(record, payload.len());
        let (sealed, type_and_tag) = record[HEAD_BYTES..].split_at_mut(payload.len());
        let nonce = self.sent.next_nonce();
        let aad = Aad::from(head);
        self.sent
            .key
            .seal_out_of_place_scatter(nonce, aad, payload, sealed, &[kind], type_and_tag)
            .map_err(|_| broken("sealing failed"))?;
        Ok(record.len())
    }

    /// As [`Records::seal`], of payload that stands in `record` behind the place of the head.
    ///
    /// # Errors
    /// Only of the library.
    ///
    /// # Panics
    /// If there is no room, or more than [`PAYLOAD_BYTES_MAX`].
    pub fn seal_in_place(
        &mut self,
        record: &mut [u8],
        payload_bytes: usize,
    ) -> Result<usize, RecordError> {
        let record = &mut record[..payload_bytes + OVERHEAD_BYTES];
        let head = write_head(record, payload_bytes);
        let (payload, type_and_tag) = record[HEAD_BYTES..].split_at_mut(payload_bytes);
        let nonce = self.sent.next_nonce();
        let aad = Aad::from(head);
        self.sent
            .key
            .seal_in_place_scatter(nonce, aad, payload, &[APPLICATION_DATA], type_and_tag)
            .map_err(|_| broken("sealing failed"))?;
        Ok(record.len())
    }

    /// Seals a KeyUpdate into the front of `record`; what follows is sealed with the next key.
    ///
    /// # Errors
    /// Only of the library.
    ///
    /// # Panics
    /// If there is less room than [`CONTROL_BYTES_MAX`].
    pub fn seal_key_update(&mut self, record: &mut [u8]) -> Result<usize, RecordError> {
        // 0: the peer need not answer with one of its own.
        let update = [KEY_UPDATE, 0, 0, 1, 0];
        let bytes = self.seal_as(HANDSHAKE, &update, record)?;
        self.sent = Direction::new(self.keys.next_sent().map_err(RecordError::Keys)?)?;
        self.update_asked = false;
        self.counters.key_updates_out += 1;
        Ok(bytes)
    }

    /// Seals an alert into the front of `record`. `CloseNotify`: nothing follows.
    ///
    /// # Errors
    /// Only of the library.
    ///
    /// # Panics
    /// If there is less room than [`CONTROL_BYTES_MAX`].
    pub fn seal_alert(
        &mut self,
        alert: AlertDescription,
        record: &mut [u8],
    ) -> Result<usize, RecordError> {
        self.seal_as(ALERT, &[FATAL, alert.into()], record)
    }

    /// Opens a record in place: all of it, by its [`length`]. Nothing of it may be used after an
    /// error.
    ///
    /// # Errors
    /// The link has to end.
    pub fn open(&mut self, record: &mut [u8]) -> Result<Content, RecordError> {
        let (&mut head, sealed) =
            record.split_first_chunk_mut::<HEAD_BYTES>().ok_or(RecordError::NotAuthentic)?;
        if head[0] != APPLICATION_DATA {
            return Err(RecordError::Unexpected { kind: head[0] });
        }
        let nonce = self.received.next_nonce();
        let opened = self.received.key.open_in_place(nonce, Aad::from(head), sealed);
        let inner = opened.map_err(|_| RecordError::NotAuthentic)?;
        if inner.len() > PAYLOAD_BYTES_MAX + 1 {
            return Err(RecordError::TooLong { bytes: inner.len() + TAG_BYTES });
        }
        let end = inner.iter().rposition(|&byte| byte != 0).ok_or(RecordError::NoType)?;
        let content = match (inner[end], &inner[..end]) {
            (APPLICATION_DATA, []) => Content::Nothing,
            (APPLICATION_DATA, _) => {
                self.idle = 0;
                return Ok(Content::Data(HEAD_BYTES..HEAD_BYTES + end));
            }
            (ALERT, &[_, alert]) => match AlertDescription::from(alert) {
                AlertDescription::CloseNotify => return Ok(Content::Closed),
                // It announces a close_notify.
                AlertDescription::UserCanceled => Content::Nothing,
                alert => return Err(RecordError::Alert(alert)),
            },
            (HANDSHAKE, messages) => {
                let updates = read_messages(messages)?;
                if let Some(is_asked) = updates {
                    let next = self.keys.next_received().map_err(RecordError::Keys)?;
                    self.received = Direction::new(next)?;
                    self.counters.key_updates_in += 1;
                    self.update_asked |= is_asked;
                }
                Content::Nothing
            }
            (ALERT, _) => return Err(RecordError::Malformed { kind: ALERT }),
            (kind, _) => return Err(RecordError::Unexpected { kind }),
        };
        self.idle += 1;
        if self.idle > IDLE_RECORDS_MAX {
            return Err(RecordError::TooManyIdle);
        }
        Ok(content)
    }
}

/// Writes the head of a record with this much payload.
#[inline]
fn write_head(record: &mut [u8], payload_bytes: usize) -> [u8; HEAD_BYTES] {
    assert!(payload_bytes <= PAYLOAD_BYTES_MAX, "more payload than a record holds");
    let [high, low] = to_u16(payload_bytes + 1 + TAG_BYTES).to_be_bytes();
    let head = [APPLICATION_DATA, 3, 3, high, low];
    record[..HEAD_BYTES].copy_from_slice(&head);
    head
}

/// Messages of the handshake behind its end: whole ones, and a KeyUpdate only as the last, since what
/// follows has another key. Returns whether there is one, and if so, whether the peer asks for ours.
fn read_messages(mut bytes: &[u8]) -> Result<Option<bool>, RecordError> {
    let malformed = RecordError::Malformed { kind: HANDSHAKE };
    if bytes.is_empty() {
        return Err(malformed);
    }
    while let Some((&[kind, a, b, c], rest)) = bytes.split_first_chunk() {
        let message_bytes = u32::from_be_bytes([0, a, b, c]) as usize;
        match (kind, rest) {
            (KEY_UPDATE, &[asks @ (0 | 1)]) if message_bytes == 1 => return Ok(Some(asks == 1)),
            (SESSION_TICKET, _) if message_bytes <= rest.len() => bytes = &rest[message_bytes..],
            (KEY_UPDATE | SESSION_TICKET, _) => return Err(malformed),
            _ => return Err(RecordError::Unexpected { kind: HANDSHAKE }),
        }
    }
    if bytes.is_empty() { Ok(None) } else { Err(malformed) }
}
