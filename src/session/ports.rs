//! Ports on request: an exit may ask the peer to open a port for the client of one of its streams,
//! and to be led to a port of that client's host. What comes of it are streams beside the first.

use std::net::SocketAddr;

use super::{OpenError, Session, StreamKey};
use crate::wire::Transport;

impl Session {
    /// The peer opens ports on request, and calls clients.
    pub fn peer_opens_ports(&self) -> bool {
        false
    }

    /// Asks the peer for a port for the client of a stream that it began. Answered by
    /// [`super::Event::PortGiven`]; streams that come in by it say so
    /// ([`super::Beside::Port`]). `request` is not in use by another port of the stream.
    ///
    /// # Errors
    /// [`OpenError::NoPorts`] when the peer knows nothing of ports, or the stream is no more.
    pub fn ask_port(
        &mut self,
        _beside: StreamKey,
        _request: u32,
        _transport: Transport,
    ) -> Result<(), OpenError> {
        Err(OpenError::NoPorts)
    }

    /// A port that was asked for is of no more use.
    pub fn close_port(&mut self, _beside: StreamKey, _request: u32) {}

    /// Answers [`super::Event::PortAsked`]: where we listen, or why not.
    pub fn answer_port(
        &mut self,
        _beside: StreamKey,
        _request: u32,
        _result: Result<SocketAddr, &str>,
    ) {
    }

    /// The client of a stream that began here has come in by a port that the peer asked for: begins
    /// a stream for it, of bytes or of datagrams.
    ///
    /// # Errors
    /// As [`Session::open`]; [`OpenError::NoPorts`] when the first stream is no more.
    pub fn open_beside(
        &mut self,
        _user: u64,
        (_beside, _request): (StreamKey, u32),
        (_client, _entrance): (SocketAddr, SocketAddr),
        _transport: Transport,
    ) -> Result<StreamKey, OpenError> {
        Err(OpenError::NoPorts)
    }

    /// A server has connected here, and the peer is to lead it to this port of the host of the
    /// client of a stream that it began: begins a stream for it. `server` and `own` are the
    /// addresses of the connection.
    ///
    /// # Errors
    /// As [`Session::open`]; [`OpenError::NoPorts`] when the first stream is no more.
    pub fn call(
        &mut self,
        _user: u64,
        (_beside, _port): (StreamKey, u16),
        (_server, _own): (SocketAddr, SocketAddr),
    ) -> Result<StreamKey, OpenError> {
        Err(OpenError::NoPorts)
    }
}
