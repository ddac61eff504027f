//! How a tunnel or an open can fail.

use crate::wire::WireError;

/// Ends the tunnel. Layer: session; scope: every stream of this tunnel.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TunnelError {
    /// Bytes that are no frames. Begun by the peer.
    #[error("peer is not speaking SockMux: {0}")]
    Wire(#[from] WireError),
    /// Begun by the peer.
    #[error("peer said no hello within {seconds} s (TIMEOUT=acc)")]
    HelloTimeout {
        /// How long was waited.
        seconds: u64,
    },
    /// Begun by the peer, or the path to it.
    #[error("nothing came from the peer for {seconds} s (TIMEOUT=keepalive)")]
    Silent {
        /// How long was waited.
        seconds: u64,
    },
    /// Begun by the peer.
    #[error("peer said hello again in the middle of a tunnel")]
    HelloAgain,
    /// Begun by the peer.
    #[error("peer switched its cipher on, which was never agreed: give it SOXCONF=crypt:no")]
    CipherOn,
    /// Begun by the peer.
    #[error("peer sent {backlog_bytes} bytes of a stream unasked, at most {limit_bytes} are taken")]
    WindowOverrun {
        /// What is waiting for the local socket.
        backlog_bytes: u64,
        /// The bound.
        limit_bytes: u64,
    },
    /// Begun by the peer.
    #[error("peer opened stream {number:#x}, which is open or cannot be")]
    BadNumber {
        /// The number that it gave.
        number: u32,
    },
    /// Begun by the peer.
    #[error("peer asked for a port, or opened a stream beside another, where that was not agreed")]
    PortsNotAgreed,
    /// Begun by the peer.
    #[error("peer asked for or answered about a port of a stream that is not for it to do so")]
    PortsReversed,
    /// Begun by the peer.
    #[error("peer asked for more than {limit} ports of a stream at once")]
    TooManyPorts {
        /// The bound.
        limit: usize,
    },
    /// Begun by the peer.
    #[error("peer acknowledged or allowed {extra_bytes} bytes that cannot be right")]
    AckOverrun {
        /// The excess.
        extra_bytes: u64,
    },
}

/// Why a stream cannot begin here. Scope: the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The hello is not done.
    #[error("the tunnel is not up")]
    NotUp,
    /// The peer takes no new ones.
    #[error("the peer is going away")]
    GoingAway,
    /// No port can be asked for, or the stream that it is for is no more.
    #[error("the peer opens no ports on request: both ends have to speak SockMux 1")]
    NoPorts,
    /// The peer has not answered what was asked of it.
    #[error("{limit} ports were asked of the peer for this stream, and none was answered yet")]
    TooManyPorts {
        /// Most that may be asked for at once.
        limit: usize,
    },
    /// The peer is one of ours from before there were any.
    #[error("the peer takes no datagrams (PORT=.../udp): it is an older version, update it")]
    NoDatagrams,
    /// The peer takes no more.
    #[error("the peer takes {limit} streams at once, and as many are open")]
    TooMany {
        /// The peer's limit.
        limit: u32,
    },
}
