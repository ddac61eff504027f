//! Reads a link: receives, decodes and delivers frames. [`crate::worker::dispatch`] calls it for
//! link completions, and when a plane has handled an event of the session.

use std::io;

use crate::io::chunk::Chunk;
use crate::io::driver::{BufferClass, Driver, RecvMode};
use crate::limits::{CONTROL_BACKLOG, POOL_BUFFER_BYTES};
use crate::session::{Sink, StreamKey, TunnelError};
use crate::tls::record;
use crate::wire::{DecodeStep, Protocol};
use crate::worker::context::Cx;
use crate::worker::message::Run;
use crate::worker::stream::conn::Reading;
use crate::worker::stream::tunnel::Deferred;
use crate::worker::stream::tunnel::lane::{Destination, Lack, LinkReadMode, Transform};
use crate::worker::stream::{Flows, Streams};
use crate::worker::table::Key;
use crate::worker::token::{Kind, StreamOwner};

/// Why a tunnel in plaintext does not come up: caused by one of the two command lines.
const PEER_IS_ENCRYPTED: &str = "the peer speaks TLS, and this end plaintext: give this end STLS= \
                                 and TLSCONF= too, or the peer neither";

impl Streams {
    /// A bulk buffer is available for a link that waits for one.
    pub(in crate::worker) fn link_has_buffer<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key) {
        if let Some(tunnel) = self.tunnels.get_mut(key) {
            tunnel.lane.starved.take_if(|lack| *lack == Lack::Receive);
            self.read_link(cx, key);
        }
    }

    /// Starts reading the link. Backpressure: not while the peer leaves too many control frames
    /// unread.
    pub(in crate::worker::stream) fn read_link<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key) {
        let Some(tunnel) = self.tunnels.get_mut(key) else { return };
        let full = (tunnel.session.control_backlog() >= CONTROL_BACKLOG
            && !tunnel.lane.transform.is_always_read())
            || tunnel.lane.transform.is_backed_up();
        if tunnel.lane.reading != Reading::Idle || tunnel.lane.starved.is_some() || full {
            return;
        }
        match tunnel.lane.read_mode {
            LinkReadMode::Received => {
                let mode = RecvMode::Multishot;
                let token = Kind::LinkReceive.of(key);
                let op = cx.driver.recv(tunnel.lane.link.input(), mode, BufferClass::Bulk, token);
                tunnel.lane.reading = Reading::Armed { op, mode, cancelled: false };
            }
            LinkReadMode::Spliced => {
                let token = Kind::LinkReady.of(key);
                cx.driver.poll(tunnel.lane.link.input(), libc::POLLIN as u32, false, token);
                tunnel.lane.reading = Reading::Watched;
            }
        }
    }

    pub(in crate::worker) fn link_received<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        flows: &mut impl Flows,
        key: Key,
        more: bool,
        got: io::Result<Option<Chunk>>,
    ) {
        let Some(tunnel) = self.tunnels.get_mut(key) else {
            cx.counters.stale += 1;
            return;
        };
        if !more {
            tunnel.lane.reading = Reading::Idle;
        }
        match got {
            Ok(Some(chunk)) => {
                if tunnel.session.is_up() && !tunnel.session.peer_is_ours() {
                    // The original implementation leaves Nagle on. It acknowledges a keystroke
                    // first and holds the echo until that frame is acknowledged in turn; a delayed
                    // ACK would add 40 ms.
                    tunnel.lane.link.acknowledge_now();
                }
                cx.busy_poll.on_payload(chunk.len() >= POOL_BUFFER_BYTES as usize, cx.now);
                if !self.on_link_bytes(cx, flows, key, chunk) {
                    return;
                }
                self.frames_read(cx, key);
            }
            Ok(None) => return self.link_ended(cx, key),
            Err(error) => match error.raw_os_error() {
                Some(libc::ENOBUFS) => return self.tunnels.wait_for_buffer(cx, key),
                Some(libc::ECANCELED) => {}
                _ => {
                    return self.drop_tunnel(cx, key, &format!("receiving from the peer: {error}"));
                }
            },
        }
        if !more {
            self.read_link(cx, key);
        }
    }

    /// Takes bytes of the link: to the transform, or to the session. `false`: the tunnel is gone.
    pub(in crate::worker::stream) fn on_link_bytes<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        flows: &mut impl Flows,
        key: Key,
        chunk: Chunk,
    ) -> bool {
        let Some(tunnel) = self.tunnels.get_mut(key) else { return false };
        if let Some(tls) = tunnel.lane.transform.tls_mut() {
            tunnel.heard = true;
            tls.receive(chunk, cx.now);
            self.take_from_tls(cx, flows, key);
            return self.tunnels.get(key).is_some();
        }
        if !tunnel.heard && is_tls(&chunk) {
            self.drop_tunnel(cx, key, PEER_IS_ENCRYPTED);
            return false;
        }
        if let Err(error) = self.read_frames(cx, flows, key, chunk) {
            self.drop_tunnel(cx, key, &error.to_string());
            return false;
        }
        true
    }

    /// Decodes received bytes: frames go to the session, payload to its destination.
    pub(in crate::worker::stream) fn read_frames<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        flows: &mut impl Flows,
        key: Key,
        mut chunk: Chunk,
    ) -> Result<(), TunnelError> {
        let now = cx.now;
        if let Some(tunnel) = self.tunnels.get_mut(key) {
            tunnel.session.received(now);
            tunnel.heard = true;
        }
        while !chunk.is_empty() {
            let Some(tunnel) = self.tunnels.get_mut(key) else { return Ok(()) };
            let (consumed, step) = tunnel.lane.decoder.step(&chunk)?;
            tunnel.lane.read_bytes += consumed as u64;
            match step {
                DecodeStep::Frame(frame) => {
                    let payload_bytes = frame.payload_bytes();
                    let sink = tunnel.session.on_frame(frame, now)?;
                    chunk.advance(consumed);
                    // The events of a frame must be handled before its payload is delivered: they
                    // may open or end the stream.
                    if !self.handle_events(cx, flows, key) {
                        if let Some(tunnel) = self.tunnels.get_mut(key) {
                            tunnel.defer(Some((sink, payload_bytes)), Some(chunk));
                        }
                        return Ok(());
                    }
                    self.set_destination(cx, flows, key, sink, payload_bytes);
                }
                DecodeStep::Payload => {
                    let destination = tunnel.lane.destination;
                    let payload = chunk.split_to(consumed);
                    match destination {
                        Destination::Conn(conn) => self.deliver(cx, conn, payload),
                        Destination::Urgent(conn) => self.deliver_urgent(cx, conn, &payload),
                        Destination::Flow => {
                            if let Some(run) = tunnel.continue_run(payload) {
                                flows.on_run(cx, &mut self.tunnels, run);
                            }
                        }
                        Destination::Nowhere => {}
                    }
                }
                DecodeStep::More => chunk.advance(consumed),
            }
        }
        self.throttle_link(cx, key);
        Ok(())
    }

    #[inline]
    fn set_destination<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        flows: &mut impl Flows,
        key: Key,
        sink: Sink,
        payload_bytes: u32,
    ) {
        let Some(tunnel) = self.tunnels.get_mut(key) else { return };
        let owner = |stream| tunnel.session.user_of(stream).map(StreamOwner::of);
        tunnel.lane.destination = match sink {
            Sink::Discard => Destination::Nowhere,
            Sink::Stream(stream) => match owner(stream) {
                // 0.3: each frame is one datagram.
                Some(StreamOwner::Flow(flow)) => {
                    let bytes = (payload_bytes, payload_bytes);
                    return self.begin_run(cx, flows, key, (stream, flow), bytes);
                }
                Some(StreamOwner::Conn(conn)) => Destination::Conn(conn),
                None => Destination::Nowhere,
            },
            Sink::Urgent(stream) => match owner(stream) {
                Some(StreamOwner::Conn(conn)) => Destination::Urgent(conn),
                _ => Destination::Nowhere,
            },
            Sink::Datagrams { key: stream, size_bytes } => match owner(stream) {
                Some(StreamOwner::Flow(flow)) => {
                    return self.begin_run(
                        cx,
                        flows,
                        key,
                        (stream, flow),
                        (size_bytes, payload_bytes),
                    );
                }
                _ => Destination::Nowhere,
            },
        };
    }

    /// The head of a run was received: size of its datagrams, and total size.
    fn begin_run<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        flows: &mut impl Flows,
        key: Key,
        (stream, flow): (StreamKey, Key),
        (size_bytes, bytes): (u32, u32),
    ) {
        let Some(tunnel) = self.tunnels.get_mut(key) else { return };
        let parts = cx.buffers.take_gather();
        let is_counted = tunnel.session.protocol() == Protocol::V03;
        let run = Run { flow, stream, is_counted, size_bytes, left_bytes: bytes, parts };
        if let Some(run) = tunnel.begin_run(run) {
            flows.on_run(cx, &mut self.tunnels, run);
        }
    }

    /// Bytes of the link were decoded, as far as other planes let them.
    fn frames_read<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key) {
        if self.tunnels.get(key).is_some_and(|tunnel| !tunnel.is_deferred()) {
            self.update_link_read_mode(cx, key);
        }
        self.tunnels.mark(key);
    }

    /// An event that another plane had to handle is handled: what came behind it is read.
    pub(in crate::worker) fn continue_tunnel<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        flows: &mut impl Flows,
        key: Key,
    ) {
        let Some(tunnel) = self.tunnels.get_mut(key) else { return };
        let Some(Deferred { payload, rest }) = tunnel.deferred.take() else { return };
        if !self.handle_events(cx, flows, key) {
            if let Some(tunnel) = self.tunnels.get_mut(key) {
                tunnel.defer(payload, rest);
            }
            return;
        }
        if let Some((sink, payload_bytes)) = payload {
            self.set_destination(cx, flows, key, sink, payload_bytes);
        }
        if let Some(rest) = rest {
            if let Err(error) = self.read_frames(cx, flows, key, rest) {
                return self.drop_tunnel(cx, key, &error.to_string());
            }
            self.frames_read(cx, key);
        }
        self.take_from_transform(cx, flows, key);
        self.tunnels.mark(key);
        self.read_link(cx, key);
    }

    /// Goes on with received bytes that wait in the transform.
    pub(in crate::worker::stream) fn take_from_transform<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        flows: &mut impl Flows,
        key: Key,
    ) {
        match self.tunnels.get(key).map(|tunnel| &tunnel.lane.transform) {
            Some(Transform::SerialLine(_)) => self.take_from_line(cx, flows, key),
            Some(Transform::Tls(_)) => self.take_from_tls(cx, flows, key),
            Some(Transform::None) | None => {}
        }
    }

    fn throttle_link<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key) {
        let Some(tunnel) = self.tunnels.get_mut(key) else { return };
        if tunnel.session.control_backlog() >= CONTROL_BACKLOG
            || tunnel.lane.transform.is_backed_up()
        {
            tunnel.lane.reading.cancel(&mut cx.driver);
        }
    }
}

/// Whether a connection's first bytes are those of TLS: of a handshake, or of an alert at our hello.
fn is_tls(bytes: &[u8]) -> bool {
    matches!(bytes, [record::HANDSHAKE | record::ALERT, 3, ..])
}
