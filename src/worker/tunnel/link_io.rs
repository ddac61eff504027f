//! Moves bytes between a link and its session: receives, decodes and delivers frames, and sends the
//! session's frames in batches. [`crate::worker::dispatch`] calls it for link completions and
//! [`crate::worker::turn`] to flush.

use std::io;
use std::rc::Rc;

use crate::io::chunk::Chunk;
use crate::io::driver::{BufferClass, Driver, Gather, RecvMode, SendWait};
use crate::limits::{
    BATCH_PARTS, CONTROL_BACKLOG, DATAGRAM_KEEP_BYTES, POOL_BUFFER_BYTES, SPLICE_TURN_BYTES,
};
use crate::session::{Sink, Transmit, TunnelError};
use crate::wire::DecodeStep;
use crate::worker::stream::conn::{Reading, Stage};
use crate::worker::token::{Kind, StreamOwner};
use crate::worker::tunnel::lane::{Destination, Lack, LinkReadMode, Outgoing};
use crate::worker::{Drain, Key, Worker};

impl<D: Driver> Worker<D> {
    /// Flushes every marked tunnel.
    pub(in crate::worker) fn write_tunnels(&mut self) {
        let mut at = 0;
        while at < self.tunnels.dirty.len() {
            let key = self.tunnels.dirty[at];
            at += 1;
            if let Some(tunnel) = self.tunnels.get_mut(key) {
                tunnel.dirty = false;
                self.write_link(key);
            }
        }
        self.tunnels.dirty.clear();
    }

    /// Marks tunnels that used up their share of this turn; no completion would.
    pub(in crate::worker) fn mark_unfinished(&mut self) {
        while let Some(key) = self.tunnels.unfinished.pop() {
            self.tunnels.mark(key);
        }
    }

    /// A bulk buffer is available for a link that waits for one.
    pub(in crate::worker) fn link_has_buffer(&mut self, key: Key) {
        if let Some(tunnel) = self.tunnels.get_mut(key) {
            tunnel.lane.starved.take_if(|lack| *lack == Lack::Receive);
            self.read_link(key);
        }
    }

    /// Starts reading the link. Backpressure: not while the peer leaves too many control frames
    /// unread.
    pub(in crate::worker) fn read_link(&mut self, key: Key) {
        let Some(tunnel) = self.tunnels.get_mut(key) else { return };
        let full = tunnel.session.control_backlog() >= CONTROL_BACKLOG
            && !tunnel.lane.transform.is_always_read();
        if tunnel.lane.reading != Reading::Idle || tunnel.lane.starved.is_some() || full {
            return;
        }
        match tunnel.lane.read_mode {
            LinkReadMode::Received => {
                let mode = RecvMode::Multishot;
                let token = Kind::LinkReceive.of(key);
                let op =
                    self.cx.driver.recv(tunnel.lane.link.input(), mode, BufferClass::Bulk, token);
                tunnel.lane.reading = Reading::Armed { op, mode, cancelled: false };
            }
            LinkReadMode::Spliced => {
                let token = Kind::LinkReady.of(key);
                self.cx.driver.poll(tunnel.lane.link.input(), libc::POLLIN as u32, false, token);
                tunnel.lane.reading = Reading::Watched;
            }
        }
    }

    pub(in crate::worker) fn link_received(
        &mut self,
        key: Key,
        more: bool,
        got: io::Result<Option<Chunk>>,
    ) {
        let Some(tunnel) = self.tunnels.get_mut(key) else {
            self.cx.counters.stale += 1;
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
                self.cx
                    .busy_poll
                    .on_payload(chunk.len() >= POOL_BUFFER_BYTES as usize, self.cx.now);
                if let Err(error) = self.read_frames(key, chunk) {
                    self.drop_tunnel(key, &error.to_string());
                    return;
                }
                self.update_link_read_mode(key);
                self.tunnels.mark(key);
            }
            Ok(None) => return self.link_ended(key),
            Err(error) => match error.raw_os_error() {
                Some(libc::ENOBUFS) => return self.tunnels.wait_for_buffer(&mut self.cx, key),
                Some(libc::ECANCELED) => {}
                _ => return self.drop_tunnel(key, &format!("receiving from the peer: {error}")),
            },
        }
        if !more {
            self.read_link(key);
        }
    }

    /// Decodes received bytes: frames go to the session, payload to its destination.
    pub(in crate::worker) fn read_frames(
        &mut self,
        key: Key,
        mut chunk: Chunk,
    ) -> Result<(), TunnelError> {
        let now = self.cx.now;
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
                    self.handle_events(key);
                    self.set_destination(key, sink, payload_bytes);
                }
                DecodeStep::Payload => {
                    let destination = tunnel.lane.destination;
                    let payload = chunk.split_to(consumed);
                    match destination {
                        Destination::Conn(conn) => self.deliver(conn, payload),
                        Destination::Urgent(conn) => self.deliver_urgent(conn, &payload),
                        Destination::Flow => {
                            let (cx, tunnels) = (&mut self.cx, &mut self.tunnels);
                            self.datagrams.run_continues(cx, tunnels, key, payload);
                        }
                        Destination::Nowhere => {}
                    }
                }
                DecodeStep::More => chunk.advance(consumed),
            }
        }
        self.throttle_link(key);
        Ok(())
    }

    #[inline]
    fn set_destination(&mut self, key: Key, sink: Sink, payload_bytes: u32) {
        let Some(tunnel) = self.tunnels.get_mut(key) else { return };
        let owner = |stream| tunnel.session.user_of(stream).map(StreamOwner::of);
        tunnel.lane.destination = match sink {
            Sink::Discard => Destination::Nowhere,
            Sink::Stream(stream) => match owner(stream) {
                // 0.3: each frame is one datagram.
                Some(StreamOwner::Flow(flow)) => {
                    let (cx, tunnels) = (&mut self.cx, &mut self.tunnels);
                    return self.datagrams.run_begins(
                        cx,
                        tunnels,
                        key,
                        (stream, flow),
                        (payload_bytes, payload_bytes),
                    );
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
                    let (cx, tunnels) = (&mut self.cx, &mut self.tunnels);
                    return self.datagrams.run_begins(
                        cx,
                        tunnels,
                        key,
                        (stream, flow),
                        (size_bytes, payload_bytes),
                    );
                }
                _ => Destination::Nowhere,
            },
        };
    }

    fn throttle_link(&mut self, key: Key) {
        let Some(tunnel) = self.tunnels.get_mut(key) else { return };
        if tunnel.session.control_backlog() >= CONTROL_BACKLOG {
            tunnel.lane.reading.cancel(&mut self.cx.driver);
        }
    }

    /// Sends what the session has to send, in batches of one gathered send each. Batches that end
    /// in spliced payload, contain large runs of datagrams, or go to something other than a socket
    /// are sent synchronously, and more may follow in the same turn.
    pub(in crate::worker) fn write_link(&mut self, key: Key) {
        let mut left_bytes = SPLICE_TURN_BYTES;
        if self.tunnels.get(key).is_some_and(|tunnel| !tunnel.lane.transform.is_none()) {
            self.write_line(key);
            self.take_from_line(key);
            self.handle_events(key);
            return self.read_link(key);
        }
        loop {
            let Some(tunnel) = self.tunnels.get(key) else { return };
            if tunnel.lane.sending || matches!(self.drain, Drain::Leaving(_)) {
                break;
            }
            let (gather, has_runs) = self.make_batch(key);
            let Some(tunnel) = self.tunnels.get_mut(key) else { return };
            if gather.is_empty() {
                self.cx.buffers.give_back(gather);
                break;
            }
            let piped = tunnel.lane.outgoing.as_ref().map(|outgoing| outgoing.left_bytes);
            let socket = tunnel.lane.link.output().filter(|_| tunnel.lane.link.is_socket());
            if let Some(socket) = socket
                && piped.is_none()
                && !has_runs
            {
                let token = Kind::LinkSend.of(key);
                let send = self.cx.driver.send(socket, gather, SendWait::Yes, token);
                tunnel.lane.begin_sending(Some(send), self.cx.now);
                break;
            }
            let bytes = piped.unwrap_or(gather.len_bytes());
            let sent = self.send_now(key, gather, piped.is_some()) && self.pipe_to_link(key);
            if !sent {
                break;
            }
            left_bytes = left_bytes.saturating_sub(bytes);
            if left_bytes == 0 {
                self.tunnels.unfinished.push(key);
                break;
            }
        }
        self.handle_events(key);
        self.read_link(key);
    }

    /// Builds a batch of frames; also returns whether it contains large runs of datagrams. It ends
    /// at payload in a pipe, and on a serial line after the first frame.
    pub(in crate::worker) fn make_batch(&mut self, key: Key) -> (Box<Gather>, bool) {
        let (mut gather, mut has_runs) = (self.cx.buffers.take_gather(), false);
        let Some(tunnel) = self.tunnels.get_mut(key) else { return (gather, false) };
        let batch_bytes = tunnel.lane.transform.batch_bytes();
        while gather.len_bytes() < batch_bytes
            && gather.parts() < BATCH_PARTS
            && tunnel.lane.outgoing.is_none()
            && self.cx.buffers.can_write_frame()
        {
            let in_batch = !gather.is_empty();
            let Some(transmit) = tunnel.session.poll_transmit(&mut self.cx.buffers.head, in_batch)
            else {
                break;
            };
            self.cx.buffers.write_head(&mut gather);
            match transmit {
                Transmit::Control => {}
                Transmit::Urgent { byte } => self.cx.buffers.write(&mut gather, &[byte]),
                Transmit::Datagrams { user, bytes, .. } => {
                    let queue = self.datagrams.queue_of(Key::unpack(user));
                    let queue = queue.expect("streams with datagrams have a flow");
                    self.cx.buffers.append(&mut gather, queue, bytes);
                    has_runs |= bytes >= DATAGRAM_KEEP_BYTES as u64;
                }
                Transmit::Data { user, bytes, .. } => {
                    let user = Key::unpack(user);
                    let conn = self.conns.get_mut(user).expect("streams with data have a local");
                    conn.keep_sent(bytes);
                    let piped = self.cx.buffers.append(&mut gather, &mut conn.input, bytes);
                    if piped > 0 {
                        let taken = conn.input.take_piped(piped);
                        assert_eq!(taken, piped, "nothing stands behind what is in the pipe");
                        // The head goes out with this batch, the payload from the pipe right behind
                        // it.
                        let pipe = conn.input.pipe().expect("it stands in the pipe");
                        let (pipe, left_bytes) = (Rc::clone(pipe), piped);
                        tunnel.lane.outgoing = Some(Outgoing { conn: user, pipe, left_bytes });
                    }
                    if conn.input.is_empty() {
                        conn.packed = None;
                    }
                    if matches!(conn.stage, Stage::Draining) {
                        conn.last_data = self.cx.now;
                        if conn.input.is_empty() {
                            // The rest of a broken connection has been sent.
                            self.conns.remove(user);
                        }
                    }
                }
            }
        }
        if !gather.is_empty() {
            let lane = &mut tunnel.lane;
            let piped_bytes = lane.outgoing.as_ref().map_or(0, |outgoing| outgoing.left_bytes);
            lane.framed_bytes += (gather.len_bytes() + piped_bytes) as u64;
        } else if !self.cx.buffers.can_write_frame() {
            // The session may have frames that lack only a buffer.
            self.tunnels.wait_for_pool(&mut self.cx, key);
        }
        (gather, has_runs)
    }

    /// Sends a batch synchronously. What a socket does not accept goes through the driver; what
    /// another link does not accept is kept until it is writable. `false`: later data must wait.
    /// `more`: the batch ends in the head of a frame with spliced payload.
    pub(in crate::worker) fn send_now(
        &mut self,
        key: Key,
        mut gather: Box<Gather>,
        more: bool,
    ) -> bool {
        let Some(tunnel) = self.tunnels.get_mut(key) else { return false };
        self.cx.counters.direct_sends += 1;
        match tunnel.lane.link.send(&mut gather, more) {
            Ok(bytes) => gather.advance(bytes),
            Err(error) if is_again(&error) => {}
            Err(error) => {
                self.cx.buffers.give_back(gather);
                self.drop_tunnel(key, &format!("sending to the peer: {error}"));
                return false;
            }
        }
        if gather.is_empty() {
            self.cx.buffers.give_back(gather);
            return true;
        }
        let mut send = None;
        match tunnel.lane.link.output() {
            Some(socket) if tunnel.lane.link.is_socket() => {
                let token = Kind::LinkSend.of(key);
                send = Some(self.cx.driver.send(socket, gather, SendWait::Yes, token));
            }
            Some(output) => {
                let token = Kind::LinkWritable.of(key);
                self.cx.driver.poll(output, libc::POLLOUT as u32, false, token);
                tunnel.lane.unsent = Some(gather);
            }
            None => self.cx.buffers.give_back(gather),
        }
        tunnel.lane.begin_sending(send, self.cx.now);
        false
    }

    pub(in crate::worker) fn link_sent(
        &mut self,
        key: Key,
        result: io::Result<usize>,
        mut gather: Box<Gather>,
    ) {
        let Some(tunnel) = self.tunnels.get_mut(key) else {
            self.cx.buffers.give_back(gather);
            self.cx.counters.stale += 1;
            return;
        };
        tunnel.lane.send = None;
        match result {
            Ok(bytes) => {
                gather.advance(bytes);
                if gather.is_empty() {
                    tunnel.lane.sending = false;
                    self.cx.buffers.give_back(gather);
                    if self.pipe_to_link(key) {
                        self.tunnels.mark(key);
                    }
                } else if let Some(socket) = tunnel.lane.link.output() {
                    let token = Kind::LinkSend.of(key);
                    let send = self.cx.driver.send(socket, gather, SendWait::Yes, token);
                    tunnel.lane.begin_sending(Some(send), self.cx.now);
                }
            }
            // Cancelled by [`super::Tunnels::free_stalled_buffers`]: copy the batch to return its
            // receive buffers, and send it again.
            Err(error) if error.raw_os_error() == Some(libc::ECANCELED) => {
                let is_copied = self.cx.buffers.copy_bulk_of_batch(&mut gather);
                if let Some(socket) = tunnel.lane.link.output() {
                    let token = Kind::LinkSend.of(key);
                    let send = self.cx.driver.send(socket, gather, SendWait::Yes, token);
                    tunnel.lane.send = (!is_copied).then_some(send);
                }
            }
            Err(error) => {
                self.cx.buffers.give_back(gather);
                self.drop_tunnel(key, &format!("sending to the peer: {error}"));
            }
        }
    }
}

/// The descriptor has no data, or no room, for now.
pub(in crate::worker) fn is_again(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}
