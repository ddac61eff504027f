//! Frames of a link: decodes what was received, and delivers it, as far as other planes and the tunnel's
//! share of a turn let it. [`super::link_read`] and the modules beside it receive.

use crate::io::chunk::Chunk;
use crate::io::driver::Driver;
use crate::limits::CONTROL_BACKLOG;
use crate::session::{Sink, StreamKey, TunnelError};
use crate::wire::{DecodeStep, Frame, Protocol};
use crate::worker::context::Cx;
use crate::worker::message::Run;
use crate::worker::stream::tunnel::Deferred;
use crate::worker::stream::tunnel::lane::{Destination, Transform};
use crate::worker::stream::{Flows, Streams};
use crate::worker::table::Key;
use crate::worker::token::StreamOwner;

impl Streams {
    /// Takes in received bytes and decodes them. `false`: the tunnel is gone.
    pub(in crate::worker::stream) fn receive_chunk<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        flows: &mut impl Flows,
        key: Key,
        chunk: Chunk,
    ) -> bool {
        let Some(tunnel) = self.tunnels.get_mut(key) else { return false };
        tunnel.heard = true;
        tunnel.lane.received.push_back(chunk);
        self.read_on(cx, flows, key)
    }

    /// Decodes what was received. `false`: the tunnel is gone.
    fn read_on<D: Driver>(&mut self, cx: &mut Cx<D>, flows: &mut impl Flows, key: Key) -> bool {
        if let Err(error) = self.read_frames(cx, flows, key) {
            self.drop_tunnel(cx, key, &error.to_string());
            return false;
        }
        self.tunnels.get(key).is_some()
    }

    /// Decodes what was received: frames go to the session, payload to its destination.
    fn read_frames<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        flows: &mut impl Flows,
        key: Key,
    ) -> Result<(), TunnelError> {
        let (turn, work) = (cx.counters.turns, cx.turn_work);
        while let Some(tunnel) = self.tunnels.get_mut(key) {
            if tunnel.is_held_up() {
                return Ok(());
            }
            let Some(chunk) = tunnel.lane.received.pop_front() else { break };
            tunnel.lane.budget.enter(turn, work);
            tunnel.session.received(cx.now);
            self.read_chunk(cx, flows, key, chunk)?;
        }
        self.throttle_link(cx, key);
        Ok(())
    }

    /// Decodes a chunk; what has to wait of it is put back.
    fn read_chunk<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        flows: &mut impl Flows,
        key: Key,
        mut chunk: Chunk,
    ) -> Result<(), TunnelError> {
        let now = cx.now;
        while !chunk.is_empty() {
            let Some(tunnel) = self.tunnels.get_mut(key) else { return Ok(()) };
            if tunnel.lane.budget.is_spent() {
                tunnel.lane.put_back(chunk);
                self.tunnels.postpone(cx, key);
                return Ok(());
            }
            let (consumed, step) = tunnel.lane.decoder.step(&chunk)?;
            tunnel.lane.read_bytes += consumed as u64;
            match step {
                DecodeStep::Frame(frame) => {
                    let payload_bytes = frame.payload_bytes();
                    let is_acknowledgement = matches!(frame, Frame::LaneRead { .. });
                    tunnel.lane.budget.spend(&frame);
                    let sink = tunnel.session.on_frame(frame, now)?;
                    tunnel.session.read(tunnel.lane.decoder.counted_bytes(), now);
                    chunk.advance(consumed);
                    if is_acknowledgement {
                        tunnel.drop_read(&mut cx.buffers)?;
                    }
                    // The events of a frame must be handled before its payload is delivered: they
                    // may open or end the stream.
                    if !self.handle_events(cx, flows, key) {
                        if let Some(tunnel) = self.tunnels.get_mut(key) {
                            tunnel.defer(Some((sink, payload_bytes)));
                            tunnel.lane.put_back(chunk);
                        }
                        return Ok(());
                    }
                    self.set_destination(cx, flows, key, sink, payload_bytes);
                }
                DecodeStep::Payload => {
                    let destination = tunnel.lane.destination;
                    tunnel.session.read(consumed as u64, now);
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

    /// An event that another plane had to handle is handled: what was received behind it is read.
    pub(in crate::worker) fn continue_tunnel<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        flows: &mut impl Flows,
        key: Key,
    ) {
        let Some(tunnel) = self.tunnels.get_mut(key) else { return };
        let Some(Deferred { payload }) = tunnel.deferred.take() else { return };
        if !self.handle_events(cx, flows, key) {
            if let Some(tunnel) = self.tunnels.get_mut(key) {
                tunnel.defer(payload);
            }
            return;
        }
        if let Some((sink, payload_bytes)) = payload {
            self.set_destination(cx, flows, key, sink, payload_bytes);
        }
        self.go_on(cx, flows, key);
    }

    /// Goes on with what was received, and with the link when nothing is left of it.
    pub(in crate::worker) fn go_on<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        flows: &mut impl Flows,
        key: Key,
    ) {
        if !self.read_on(cx, flows, key) {
            return;
        }
        self.frames_read(cx, key);
        self.take_from_transform(cx, flows, key);
        let Some(tunnel) = self.tunnels.get(key) else { return };
        if tunnel.lane.input_ended && !tunnel.is_held_up() {
            return self.link_ended(cx, key);
        }
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

    /// Bytes of the link were decoded, as far as they could be.
    pub(super) fn frames_read<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key) {
        if self.tunnels.get(key).is_some_and(|tunnel| !tunnel.is_held_up()) {
            self.update_link_read_mode(cx, key);
        }
        self.tunnels.mark(key);
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
