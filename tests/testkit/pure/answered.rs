//! A single session with one stream, opened and accepted in 0.3.

use sockmux_uring::session::{Session, StreamKey};
use sockmux_uring::wire::{Frame, StreamRef};

use super::lone::{START, sent};

/// A stream opened here, which the peer has accepted with id 7.
pub(crate) fn open(session: &mut Session) -> StreamKey {
    let at = "127.0.0.1:1".parse().expect("an address");
    let key = session.open(0, at, at).expect("a stream");
    sent(session);
    let opened = Frame::Opened { from: Some(7), to: StreamRef::Ours(2), first_bytes: 0 };
    session.on_frame(opened, START).expect("CONNECTED");
    key
}
