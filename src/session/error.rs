//! Errors of tunnels and of opening streams.

use crate::wire::WireError;

/// Ends the tunnel. Layer: session; scope: every stream of this tunnel.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TunnelError {
    /// The bytes are no frames. Caused by the peer.
    #[error("peer is not speaking SockMux: {0}")]
    Wire(#[from] WireError),
    /// Caused by the peer.
    #[error("peer said no hello within {seconds} s (TIMEOUT=acc)")]
    HelloTimeout {
        /// The timeout.
        seconds: u64,
    },
    /// Caused by the peer.
    #[error("peer sends other packets than its hello")]
    NoHello,
    /// Caused by the peer, or the path to it.
    #[error("nothing came from the peer for {seconds} s (TIMEOUT=keepalive)")]
    Silent {
        /// The timeout.
        seconds: u64,
    },
    /// Caused by the peer.
    #[error("peer said hello again in the middle of a tunnel")]
    HelloAgain,
    /// Caused by the peer.
    #[error("peer said again that it is going away")]
    GoingAwayAgain,
    /// Caused by the peer.
    #[error("peer switched its cipher on, which was never agreed: give it SOXCONF=crypt:no")]
    CipherOn,
    /// Caused by the peer.
    #[error("peer sent {backlog_bytes} bytes of a stream unasked, at most {limit_bytes} are taken")]
    WindowOverrun {
        /// Bytes that wait for the local socket.
        backlog_bytes: u64,
        /// The limit.
        limit_bytes: u64,
    },
    /// Caused by the peer.
    #[error("peer opened stream {number:#x}, which is open or cannot be")]
    BadNumber {
        /// The number in the frame.
        number: u32,
    },
    /// Caused by the peer.
    #[error("peer asked for a port, or opened a stream beside another, where that was not agreed")]
    PortsNotAgreed,
    /// Caused by the peer.
    #[error("peer asked for or answered about a port of a stream that is not for it to do so")]
    PortsReversed,
    /// Caused by the peer.
    #[error("peer asked for more than {limit} ports of a stream at once")]
    TooManyPorts {
        /// The limit.
        limit: usize,
    },
    /// Caused by the peer.
    #[error("peer asked for an entrance, or answered about one, where that was not agreed")]
    EntrancesNotAgreed,
    /// Caused by the peer.
    #[error("peer asked for entrance {request} again, which is open or not answered yet")]
    EntranceAgain {
        /// Its number.
        request: u32,
    },
    /// Caused by the peer.
    #[error("peer asked for more than {limit} entrances at once")]
    TooManyEntrances {
        /// The limit.
        limit: usize,
    },
    /// Caused by the peer.
    #[error("peer acknowledged or allowed {extra_bytes} bytes that cannot be right")]
    AckOverrun {
        /// The excess.
        extra_bytes: u64,
    },
}

/// Why a stream cannot be opened here. Scope: the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The hello is not complete.
    #[error("the tunnel is not up")]
    NotUp,
    /// The peer accepts no new ones.
    #[error("the peer is going away")]
    GoingAway,
    /// The peer supports no port requests, or the control stream has ended.
    #[error("the peer opens no ports on request: both ends have to speak SockMux 1")]
    NoPorts,
    /// Too many requests are unanswered.
    #[error("{limit} ports were asked of the peer for this stream, and none was answered yet")]
    TooManyPorts {
        /// Most unanswered requests of a stream.
        limit: usize,
    },
    /// The peer cannot be asked for entrances.
    #[error(
        "the peer opens no entrances on request (PORT=...?at=peer): it is an original or an older \
         version, or SOXCONF=protocol:0.3 is set there"
    )]
    NoEntrances,
    /// Too many are open or unanswered.
    #[error("{limit} entrances were asked of the peer already")]
    TooManyEntrances {
        /// Most entrances of a tunnel.
        limit: usize,
    },
    /// The peer is a version of ours without datagrams.
    #[error("the peer takes no datagrams (PORT=.../udp): it is an older version, update it")]
    NoDatagrams,
    /// The peer accepts no more.
    #[error("the peer takes {limit} streams at once, and as many are open")]
    TooMany {
        /// The peer's limit.
        limit: u32,
    },
}
