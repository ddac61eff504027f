//! What an operation was for: kind and key in the 64 bits that come back with its completion.

use super::table::Key;
use crate::io::driver::Token;

/// What a completion is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A byte for the worker itself: a signal, a stop, an answer of the resolver.
    Wake,
    /// A connection at a listener.
    Accept,
    /// A connection at a port on request.
    AskedAccept,
    /// An attempt of a dial to connect.
    Connect,
    /// Its command, which carries the tunnel, has ended; the key's slot is its number, here and below.
    LinkCommandExit,
    /// Its command has written to standard error.
    LinkCommandStderr,
    LinkReceive,
    LinkSend,
    ConnReceive,
    /// A receive into a bulk buffer: counted, whoever it was for.
    ConnReceiveBulk,
    ConnSend,
    /// A local socket has something: data, urgent data or its end.
    ConnReady,
    /// A local socket takes more.
    ConnWritable,
    /// A local socket is broken, or ended both ways.
    ConnBroken,
    /// A link has something.
    LinkReady,
    /// A link takes more.
    LinkWritable,
    /// Nobody reads what is written to a link.
    LinkBroken,
    /// A pair's client has something; and so on, for what the client sends (up) and what the server
    /// does (down).
    UpReady,
    DownReady,
    UpReceive,
    DownReceive,
    UpSend,
    DownSend,
    /// Where it goes takes more again.
    UpRoom,
    DownRoom,
    /// Where it comes from is broken, or ended both ways.
    UpBroken,
    DownBroken,
    /// Datagrams have come to an entrance; the key's slot is its number.
    PortReady,
    /// They have come to a port on request.
    AskedReady,
    /// A flow's server has answered.
    FlowReady,
    /// A client whose PROXY header is awaited has said something.
    GreetingReady,
    /// A command of an exit has written to its standard error.
    ExecStderr,
    /// A command of an exit has ended.
    ExecExit,
    /// A connection at a port that a conversation listens at.
    ExpectedAccept,
}

const KINDS: [Kind; 34] = [
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
    Kind::FlowReady,
    Kind::GreetingReady,
    Kind::ExecStderr,
    Kind::ExecExit,
    Kind::ExpectedAccept,
];

impl Kind {
    /// The token of an operation of this kind on what `key` names.
    #[inline]
    pub(super) fn of(self, key: Key) -> Token {
        Token((self as u64) << 56 | key.pack())
    }

    /// The token of an operation of this kind on something that has a plain number.
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

/// Whose a stream is: what its session keeps for us with it, and gives back with each event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StreamOwner {
    /// A connection of [`super::stream`].
    Conn(Key),
    /// A flow of [`super::datagram`].
    Flow(Key),
}

/// Tells flows from connections, above what a key takes.
const FLOW_BIT: u64 = 1 << 61;

impl StreamOwner {
    /// As sessions keep it.
    #[inline]
    pub(super) fn user(self) -> u64 {
        match self {
            StreamOwner::Conn(key) => key.pack(),
            StreamOwner::Flow(key) => key.pack() | FLOW_BIT,
        }
    }

    /// Back from what a session has kept.
    #[inline]
    pub(super) fn of(user: u64) -> StreamOwner {
        match user & FLOW_BIT {
            0 => StreamOwner::Conn(Key::unpack(user)),
            _ => StreamOwner::Flow(Key::unpack(user)),
        }
    }

    /// The connection, if it is one.
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
