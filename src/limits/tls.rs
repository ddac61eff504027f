//! Encrypted links: the handshake, records, and changes of keys.

use std::ops::RangeInclusive;

use super::BATCH_BYTES;

/// How long a TLS handshake may take, in seconds: three round trips and a lost packet or two on the
/// slowest path. It bounds what a peer that says nothing further costs.
pub const HANDSHAKE_SECS: u64 = 10;

/// Bytes of a handshake that one side may send. A chain of four certificates with RSA keys and a
/// post-quantum key share are some 12 KiB.
pub const HANDSHAKE_BYTES_MAX: usize = 64 << 10;

/// Records that are sealed with one key before the next one is made. AES-GCM is safe for 2^24.5 full
/// records; 2^23 are 128 GiB, a minute of bulk at the least.
pub const RECORDS_PER_KEY: u64 = 1 << 23;

/// Bytes after which a new key may be asked for: at the least a handful of records, at the most what
/// [`RECORDS_PER_KEY`] hold.
pub const REKEY_BYTES: RangeInclusive<u64> = 64 << 10..=RECORDS_PER_KEY * RECORD_BYTES;

/// Payload of a full record: by the standard.
pub const RECORD_BYTES: u64 = 1 << 14;

/// Records without data (empty ones, changes of keys, session tickets) that a peer may send in a row.
/// Each costs a decryption or two derivations of a key.
pub const IDLE_RECORDS_MAX: u32 = 32;

/// Largest payload of a DATA frame on an encrypted link, in bytes: a batch. A batch, which may end in
/// such a frame, is then sealed at once into fewer buffers than frames may take of the pool.
pub const ENCRYPTED_FRAME_BYTES: u64 = BATCH_BYTES as u64;

/// Room in a buffer of the pool in which a record of bulk is begun, in bytes. In less it would cost more
/// than it saves, and the next buffer is taken.
pub const RECORD_ROOM_BYTES_MIN: usize = 4 << 10;
