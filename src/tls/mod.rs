//! TLS 1.3 for the persistent connection.
//!
//! [`handshake`] lets rustls agree on keys, which its verifiers bind to the peer's identity; [`settings`]
//! has what it is made with. [`record`] seals and opens the records behind it, in the buffers of the
//! worker: rustls would allocate and copy each. The wire is standard TLS 1.3, so that other programs
//! can speak and dissect it.
//!
//! Nothing here has a descriptor, a deadline or a log. A handshake draws random numbers, and its
//! verifiers may ask for the time; records do neither.
#![warn(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss)]

pub mod dates;
pub mod handshake;
pub mod record;
pub mod settings;
