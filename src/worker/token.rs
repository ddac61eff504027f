//! Tokens: the kind and the key of an operation, packed into the 64 bits that the driver returns
//! with its completion.

use super::table::Key;
use crate::io::driver::Token;

/// What a completion belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A byte for the worker: a signal, a stop request, or an answer of the resolver.
    Wake,
    /// A connection at a listener.
    Accept,
    /// A connection at a forwarded port.
    AskedAccept,
    /// A connect attempt of a dial.
    Connect,
    /// The command that carries the link has exited. Its number is in the key's slot, here and
    /// below.
    LinkCommandExit,
    /// That command has written to its standard error.
    LinkCommandStderr,
    LinkReceive,
    LinkSend,
    ConnReceive,
    /// A receive into a bulk buffer. It is counted even if the connection is gone.
    ConnReceiveBulk,
    ConnSend,
    /// A local socket is readable: data, urgent data or the end of data.
    ConnReady,
    /// A local socket is writable.
    ConnWritable,
    /// A local socket has an error, or both directions have ended.
    ConnBroken,
    /// A link is readable.
    LinkReady,
    /// A link is writable.
    LinkWritable,
    /// The reader of a link is gone.
    LinkBroken,
    /// A pair's client is readable. Up is client to server, down is server to client, here and
    /// below.
    UpReady,
    DownReady,
    UpReceive,
    DownReceive,
    UpSend,
    DownSend,
    /// The sink of this direction is writable.
    UpRoom,
    DownRoom,
    /// The source of this direction has an error, or both its directions have ended.
    UpBroken,
    DownBroken,
    /// A UDP entrance is readable. Its number is in the key's slot.
    PortReady,
    /// A forwarded UDP port is readable.
    AskedReady,
    /// A UDP entrance that a peer has asked for is readable.
    GivenReady,
    /// The socket of a flow is readable.
    FlowReady,
    /// A client whose PROXY header is awaited is readable.
    HeaderReady,
    /// A command of an exit has written to its standard error.
    ExecStderr,
    /// A command of an exit has exited.
    ExecExit,
    /// A connection at a listener of a proxy session.
    ExpectedAccept,
}

const KINDS: [Kind; 35] = [
    Kind::Wake,
    Kind::Accept,
    Kind::AskedAccept,
    Kind::Connect,
    Kind::LinkCommandExit,
    Kind::LinkCommandStderr,
    Kind::LinkReceive,
    Kind::LinkSend,
    Kind::ConnReceive,
    Kind::ConnReceiveBulk,
    Kind::ConnSend,
    Kind::ConnReady,
    Kind::ConnWritable,
    Kind::ConnBroken,
    Kind::LinkReady,
    Kind::LinkWritable,
    Kind::LinkBroken,
    Kind::UpReady,
    Kind::DownReady,
    Kind::UpReceive,
    Kind::DownReceive,
    Kind::UpSend,
    Kind::DownSend,
    Kind::UpRoom,
    Kind::DownRoom,
    Kind::UpBroken,
    Kind::DownBroken,
    Kind::PortReady,
    Kind::AskedReady,
    Kind::GivenReady,
    Kind::FlowReady,
    Kind::HeaderReady,
    Kind::ExecStderr,
    Kind::ExecExit,
    Kind::ExpectedAccept,
];

impl Kind {
    /// The token of an operation of this kind on the entry with this key.
    #[inline]
    pub(super) fn of(self, key: Key) -> Token {
        Token((self as u64) << 56 | key.pack())
    }

    /// The token of an operation of this kind on an object with a plain number.
    #[inline]
    pub(super) fn number(self, number: u32) -> Token {
        Token((self as u64) << 56 | u64::from(number))
    }
}

/// The kind and the key of a token.
#[inline]
pub(super) fn read(token: Token) -> (Kind, Key) {
    (KINDS[(token.0 >> 56) as usize], Key::unpack(token.0))
}

/// The plain number of a token.
#[inline]
pub(super) fn number(token: Token) -> u32 {
    token.0 as u32
}

/// The owner of a stream. The session stores it with the stream and returns it with each event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StreamOwner {
    /// A connection of [`super::stream`].
    Conn(Key),
    /// A flow of [`super::datagram`].
    Flow(Key),
}

/// Marks flows; above the 56 bits of a packed key.
const FLOW_BIT: u64 = 1 << 61;

impl StreamOwner {
    /// The value that a session stores.
    #[inline]
    pub(super) fn user(self) -> u64 {
        match self {
            StreamOwner::Conn(key) => key.pack(),
            StreamOwner::Flow(key) => key.pack() | FLOW_BIT,
        }
    }

    /// From the value that a session has stored.
    #[inline]
    pub(super) fn of(user: u64) -> StreamOwner {
        match user & FLOW_BIT {
            0 => StreamOwner::Conn(Key::unpack(user)),
            _ => StreamOwner::Flow(Key::unpack(user)),
        }
    }

    /// The connection, if the owner is one.
    #[inline]
    pub(super) fn conn(user: u64) -> Option<Key> {
        match StreamOwner::of(user) {
            StreamOwner::Conn(key) => Some(key),
            StreamOwner::Flow(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_gives_back_whose_a_stream_is() {
        let key = Key::unpack(0x00ab_cdef_1234_5678);
        for owner in [StreamOwner::Conn(key), StreamOwner::Flow(key)] {
            assert_eq!(StreamOwner::of(owner.user()), owner);
        }
        assert_eq!(StreamOwner::conn(StreamOwner::Conn(key).user()), Some(key));
        assert_eq!(StreamOwner::conn(StreamOwner::Flow(key).user()), None);
    }

    #[test]
    fn tokens_give_back_what_they_were_made_of() {
        let key = Key::unpack(0x00ab_cdef_1234_5678);
        for kind in KINDS {
            assert_eq!(read(kind.of(key)), (kind, key));
            assert_eq!(number(kind.number(77)), 77);
        }
    }
}
