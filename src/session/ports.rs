//! Port requests: an exit may ask the peer to open a port for the client of one of its streams, or
//! to connect to a port of that client's host. Connections that result are streams related to the
//! first, the control stream.
//!
//! Each request is answered once, in order among those with the same number, even if it was
//! withdrawn in between. So no answer is taken for another's.

use std::net::SocketAddr;

use super::control::ControlFrame;
use super::local::{reason_of, sayable};
use super::stream::Stream;
use super::{Event, OpenError, Related, Session, StreamKey, TunnelError};
use crate::limits::PORTS_PER_STREAM;
use crate::wire::{self, Protocol, Route, StreamRef, Transport, v1};

/// A stream's port requests.
#[derive(Debug, Default)]
pub(super) struct PortRequests {
    /// The stream is to be opened as related to another one; sent once.
    relation: Option<wire::Relation>,
    /// Unanswered requests, oldest first, at most [`PORTS_PER_STREAM`]: ours if the peer opened the
    /// stream, otherwise the peer's.
    waiting: Vec<PendingRequest>,
}

/// An unanswered request.
#[derive(Debug, Clone, Copy)]
struct PendingRequest {
    request: u32,
    /// We have withdrawn it.
    is_over: bool,
}

impl PortRequests {
    pub(super) fn of_relation(relation: wire::Relation) -> Box<PortRequests> {
        Box::new(PortRequests { relation: Some(relation), waiting: Vec::new() })
    }

    fn is_waiting(&self, request: u32) -> bool {
        self.waiting.iter().any(|waiting| waiting.request == request)
    }

    /// Removes the oldest request of this number.
    fn answered(&mut self, request: u32) -> Option<PendingRequest> {
        let at = self.waiting.iter().position(|waiting| waiting.request == request)?;
        Some(self.waiting.remove(at))
    }
}

/// A frame about a port.
#[derive(Debug)]
pub(super) enum PortFrame {
    Listen { to: u32, request: u32, transport: Transport },
    Unlisten { to: u32, request: u32 },
    Listening { id: u32, request: u32, result: Result<SocketAddr, String> },
}

impl PortFrame {
    pub(super) fn encode(&self, head: &mut Vec<u8>) {
        match self {
            PortFrame::Listen { to, request, transport } => {
                v1::listen(head, Route::theirs(*to), *request, *transport);
            }
            PortFrame::Unlisten { to, request } => {
                v1::unlisten(head, Route::theirs(*to), *request);
            }
            PortFrame::Listening { id, request, result } => {
                let result = result.as_ref().map(|&at| at).map_err(String::as_str);
                v1::listening(head, Route::ours(*id), *request, result);
            }
        }
    }
}

impl Stream {
    /// It is still to be opened as a related stream.
    pub(super) fn opens_related(&self) -> bool {
        self.ports.as_ref().is_some_and(|ports| ports.relation.is_some())
    }

    /// Takes the relation to be sent, once.
    pub(super) fn take_relation(&mut self) -> Option<wire::Relation> {
        self.ports.as_mut()?.relation.take()
    }
}

impl Session {
    /// The peer supports port requests.
    pub fn peer_opens_ports(&self) -> bool {
        let ours = self.config.offer.is_some_and(|offer| offer.ports);
        self.protocol == Protocol::V1 && ours && self.peer.ports()
    }

    /// Requests a port from the peer for the client of a stream that the peer opened. Answered by
    /// [`super::Event::PortGiven`]; connections to the port arrive as [`super::Related::Port`].
    /// `request` must not be in use by another port of the stream.
    ///
    /// # Errors
    /// [`OpenError::NoPorts`] when the peer does not support port requests, or the stream has
    /// ended; [`OpenError::TooManyPorts`] when too many are unanswered, including withdrawn ones.
    pub fn ask_port(
        &mut self,
        control: StreamKey,
        request: u32,
        transport: Transport,
    ) -> Result<(), OpenError> {
        let to = self.control_number(control, false)?;
        let stream = self.streams.get_mut(control).ok_or(OpenError::NoPorts)?;
        let ports = stream.ports.get_or_insert_default();
        if ports.waiting.len() >= PORTS_PER_STREAM {
            return Err(OpenError::TooManyPorts { limit: PORTS_PER_STREAM });
        }
        ports.waiting.push(PendingRequest { request, is_over: false });
        self.outbox.push(ControlFrame::Port(PortFrame::Listen { to, request, transport }));
        Ok(())
    }

    /// Withdraws a port or a request for one. No events of it follow.
    pub fn close_port(&mut self, control: StreamKey, request: u32) {
        let Ok(to) = self.control_number(control, false) else { return };
        let ports = self.streams.get_mut(control).and_then(|stream| stream.ports.as_mut());
        for waiting in ports.into_iter().flat_map(|ports| &mut ports.waiting) {
            waiting.is_over |= waiting.request == request;
        }
        self.outbox.push(ControlFrame::Port(PortFrame::Unlisten { to, request }));
    }

    /// Answers [`super::Event::PortAsked`] with our listening address, or the reason for not
    /// listening. Ignored after [`super::Event::PortClosed`].
    pub fn answer_port(
        &mut self,
        control: StreamKey,
        request: u32,
        result: Result<SocketAddr, &str>,
    ) {
        let Ok(id) = self.control_number(control, true) else { return };
        let ports = self.streams.get_mut(control).and_then(|stream| stream.ports.as_mut());
        if ports.and_then(|ports| ports.answered(request)).is_some() {
            let result = result.map_err(sayable);
            self.outbox.push(ControlFrame::Port(PortFrame::Listening { id, request, result }));
        }
    }

    /// A client connected here to a port that the peer requested: opens a related stream for it, of
    /// bytes or of datagrams. Also allowed while the peer is going away.
    ///
    /// # Errors
    /// As [`Session::open`]; [`OpenError::NoPorts`] when the control stream has ended.
    pub fn open_related(
        &mut self,
        user: u64,
        (control, request): (StreamKey, u32),
        (client, entrance): (SocketAddr, SocketAddr),
        transport: Transport,
    ) -> Result<StreamKey, OpenError> {
        let number = self.control_number(control, true)?;
        let relation = wire::Relation::Port { control: number, request };
        self.begin(user, (client, entrance), transport, Some(relation))
    }

    /// A server connected here, and the peer is to connect it to this port of the host of the
    /// control stream's client: opens a related stream for it. `server` and `own` are the addresses
    /// of the connection. Also allowed while the peer is going away.
    ///
    /// # Errors
    /// As [`Session::open`]; [`OpenError::NoPorts`] when the control stream has ended.
    pub fn call(
        &mut self,
        user: u64,
        (control, port): (StreamKey, u16),
        (server, own): (SocketAddr, SocketAddr),
    ) -> Result<StreamKey, OpenError> {
        let number = self.control_number(control, false)?;
        let relation = wire::Relation::Call { control: number, port };
        self.begin(user, (server, own), Transport::Tcp, Some(relation))
    }

    /// The number of a control stream that was opened here, or by the peer.
    fn control_number(&self, key: StreamKey, began_here: bool) -> Result<u32, OpenError> {
        let stream = self.streams.get(key).filter(|stream| {
            self.peer_opens_ports() && stream.opener == began_here && !stream.write_failed
        });
        let number =
            stream.and_then(|stream| if began_here { Some(stream.id) } else { stream.peer_id });
        number.ok_or(OpenError::NoPorts)
    }

    /// The control stream of a frame about a port, with the engine's number of it. `None`: its
    /// local side has ended.
    fn on_ports(
        &mut self,
        to: StreamRef,
        asks: bool,
    ) -> Result<Option<(StreamKey, u64)>, TunnelError> {
        if !self.peer_opens_ports() {
            return Err(TunnelError::PortsNotAgreed);
        }
        // The side that did not open the stream asks; the other answers.
        if matches!(to, StreamRef::Ours(_)) != asks {
            return Err(TunnelError::PortsReversed);
        }
        let key = self.find(to);
        let live = |key| self.streams.get(key).filter(|stream| !stream.write_failed)?.user;
        Ok(key.and_then(|key| Some((key, live(key)?))))
    }

    pub(super) fn on_listen(
        &mut self,
        to: StreamRef,
        request: u32,
        transport: Transport,
    ) -> Result<(), TunnelError> {
        let Some((key, user)) = self.on_ports(to, true)? else { return Ok(()) };
        let Some(stream) = self.streams.get_mut(key) else { return Ok(()) };
        let id = stream.id;
        let ports = stream.ports.get_or_insert_default();
        if ports.waiting.len() >= PORTS_PER_STREAM {
            return Err(TunnelError::TooManyPorts { limit: PORTS_PER_STREAM });
        }
        if ports.is_waiting(request) {
            let result = Err(String::from("a port of this number is being opened already"));
            self.outbox.push(ControlFrame::Port(PortFrame::Listening { id, request, result }));
            return Ok(());
        }
        ports.waiting.push(PendingRequest { request, is_over: false });
        self.events.push_back(Event::PortAsked { user, request, transport });
        Ok(())
    }

    pub(super) fn on_unlisten(&mut self, to: StreamRef, request: u32) -> Result<(), TunnelError> {
        let Some((key, user)) = self.on_ports(to, true)? else { return Ok(()) };
        let Some(stream) = self.streams.get_mut(key) else { return Ok(()) };
        let id = stream.id;
        if stream.ports.as_mut().and_then(|ports| ports.answered(request)).is_some() {
            let result = Err(String::from("closed"));
            self.outbox.push(ControlFrame::Port(PortFrame::Listening { id, request, result }));
        }
        self.events.push_back(Event::PortClosed { user, request });
        Ok(())
    }

    pub(super) fn on_listening(
        &mut self,
        to: StreamRef,
        request: u32,
        result: Result<SocketAddr, &[u8]>,
    ) -> Result<(), TunnelError> {
        let Some((key, user)) = self.on_ports(to, false)? else { return Ok(()) };
        let ports = self.streams.get_mut(key).and_then(|stream| stream.ports.as_mut());
        let Some(waiting) = ports.and_then(|ports| ports.answered(request)) else {
            self.counters.unsuited_frames += 1;
            return Ok(());
        };
        if !waiting.is_over {
            let result = result.map_err(reason_of);
            self.events.push_back(Event::PortGiven { user, request, result });
        }
        Ok(())
    }

    /// Opens a related stream of the peer. Accepted even while new streams are refused, because the
    /// control stream may need it to complete.
    pub(super) fn on_related(
        &mut self,
        from: u32,
        transport: Transport,
        relation: wire::Relation,
        addresses: (Option<SocketAddr>, Option<SocketAddr>),
    ) -> Result<(), TunnelError> {
        if !self.peer_opens_ports() {
            return Err(TunnelError::PortsNotAgreed);
        }
        self.check_number(from)?;
        match self.related(relation) {
            Ok(related) => {
                self.let_in(from, addresses, Some(transport), Some(related));
            }
            Err(reason) => {
                self.push_refusal(from, String::from(reason), false);
            }
        }
        Ok(())
    }

    /// Resolves the relation of a new stream of the peer, or returns the reason for refusing it.
    fn related(&self, relation: wire::Relation) -> Result<Related, &'static str> {
        let name = match relation {
            wire::Relation::Port { control, .. } => StreamRef::Theirs(control),
            wire::Relation::Call { control, .. } => StreamRef::Ours(control),
        };
        let stream = self.streams.by_number(name).and_then(|key| self.streams.get(key));
        let stream = stream.filter(|stream| !stream.write_failed);
        let over = "the stream that it belongs to is over";
        let (stream, user) = stream.and_then(|stream| Some((stream, stream.user?))).ok_or(over)?;
        match relation {
            wire::Relation::Call { port, .. } => Ok(Related::Call { user, port }),
            // The answer to a request precedes its clients, so this client belongs to an older
            // port.
            wire::Relation::Port { request, .. }
                if stream.ports.as_ref().is_some_and(|ports| ports.is_waiting(request)) =>
            {
                Err("its port is closed")
            }
            wire::Relation::Port { request, .. } => Ok(Related::Port { user, request }),
        }
    }
}
