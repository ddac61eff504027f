//! Writes a link: sends the session's frames in batches. [`crate::worker::turn`] calls it to flush,
//! and [`crate::worker::dispatch`] for link completions.

use std::io;
use std::rc::Rc;

use crate::io::driver::{Driver, Gather, SendWait};
use crate::limits::{BATCH_PARTS, DATAGRAM_KEEP_BYTES, SPLICE_TURN_BYTES};
use crate::session::Transmit;
use crate::worker::context::{Cx, Drain};
use crate::worker::stream::conn::Stage;
use crate::worker::stream::tunnel::is_again;
use crate::worker::stream::tunnel::lane::{Lane, Outgoing, Transform};
use crate::worker::stream::tunnel::tls::Tls;
use crate::worker::stream::{Conns, Flows, Streams};
use crate::worker::table::Key;
use crate::worker::token::Kind;

impl Streams {
    /// Flushes every marked tunnel.
    pub(in crate::worker) fn write_tunnels<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        flows: &mut impl Flows,
    ) {
        let mut at = 0;
        while at < self.tunnels.dirty.len() {
            let key = self.tunnels.dirty[at];
            at += 1;
            if let Some(tunnel) = self.tunnels.get_mut(key) {
                tunnel.dirty = false;
                self.write_link(cx, flows, key);
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

    /// Sends what the session has to send, in batches of one gathered send each. Batches that end
    /// in spliced payload, contain large runs of datagrams, or go to something other than a socket
    /// are sent synchronously, and more may follow in the same turn.
    pub(in crate::worker::stream) fn write_link<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        flows: &mut impl Flows,
        key: Key,
    ) {
        let mut left_bytes = SPLICE_TURN_BYTES;
        let tls = self.tunnels.get(key).and_then(|tunnel| tunnel.lane.transform.tls());
        if tls.is_some_and(Tls::is_backed_up) {
            // First, since it may have to be answered.
            self.take_from_tls(cx, flows, key);
        }
        if self.tunnels.get(key).is_some_and(|tunnel| tunnel.suspended.is_some()) {
            self.handle_events(cx, flows, key);
            return;
        }
        let transform = self.tunnels.get(key).map(|tunnel| &tunnel.lane.transform);
        if let Some(Transform::SerialLine(_)) = transform {
            self.write_line(cx, flows, key);
            self.take_from_line(cx, flows, key);
            self.handle_events(cx, flows, key);
            return self.read_link(cx, key);
        }
        loop {
            let Some(tunnel) = self.tunnels.get(key) else { return };
            if tunnel.lane.sending || matches!(cx.drain, Drain::Leaving(_)) {
                break;
            }
            // The rest of a frame, which has waited for the peer to read more.
            if tunnel.lane.outgoing_is_next() && !self.pipe_to_link(cx, key) {
                break;
            }
            let Some(tunnel) = self.tunnels.get(key) else { return };
            let (gather, has_runs) = match tunnel.lane.transform {
                Transform::Tls(_) => self.sealed_batch(cx, flows, key),
                _ => self.make_batch(cx, flows, key),
            };
            let Some(tunnel) = self.tunnels.get_mut(key) else { return };
            if gather.is_empty() {
                cx.buffers.give_back(gather);
                break;
            }
            let piped = tunnel.lane.outgoing_bytes();
            let socket = tunnel.lane.link.output().filter(|_| tunnel.lane.link.is_socket());
            if let Some(socket) = socket
                && piped.is_none()
                && !has_runs
            {
                let token = Kind::LinkSend.of(tunnel.lane.id);
                let send = cx.driver.send(socket, gather, SendWait::Yes, token);
                tunnel.lane.begin_sending(Some(send), cx.now);
                break;
            }
            let bytes = piped.unwrap_or(gather.len_bytes());
            let sent =
                self.send_now(cx, key, gather, piped.is_some()) && self.pipe_to_link(cx, key);
            if !sent {
                break;
            }
            left_bytes = left_bytes.saturating_sub(bytes);
            if left_bytes == 0 {
                self.tunnels.unfinished.push(key);
                break;
            }
        }
        self.handle_events(cx, flows, key);
        self.read_link(cx, key);
    }

    /// Builds a batch of frames; also returns whether it contains large runs of datagrams. It ends
    /// at payload in a pipe, and on a serial line after the first frame.
    pub(in crate::worker::stream) fn make_batch<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        flows: &mut impl Flows,
        key: Key,
    ) -> (Box<Gather>, bool) {
        let (mut gather, mut has_runs) = (cx.buffers.take_gather(), false);
        let Some(tunnel) = self.tunnels.get_mut(key) else { return (gather, false) };
        let batch_bytes = tunnel.lane.transform.batch_bytes();
        if tunnel.lane.take_resend(&mut gather, batch_bytes) {
            return (gather, false);
        }
        // What is not a part of the lane comes first, and is not kept.
        let mut unkept_bytes = 0;
        while gather.len_bytes() < batch_bytes
            && gather.parts() < BATCH_PARTS
            && tunnel.lane.outgoing.is_none()
            && tunnel.lane.retained.has_room()
            && cx.buffers.can_write_frame()
        {
            let in_batch = !gather.is_empty();
            let Some(transmit) = tunnel.session.poll_transmit(&mut cx.buffers.head, in_batch)
            else {
                break;
            };
            let head_bytes = cx.buffers.head.len();
            cx.buffers.write_head(&mut gather);
            match transmit {
                Transmit::Control => {}
                Transmit::Unkept => {
                    assert_eq!(unkept_bytes + head_bytes, gather.len_bytes(), "it comes first");
                    unkept_bytes = gather.len_bytes();
                }
                Transmit::Urgent { byte } => cx.buffers.write(&mut gather, &[byte]),
                Transmit::Datagrams { user, bytes, .. } => {
                    let queue = flows.queue_of(Key::unpack(user));
                    let queue = queue.expect("streams with datagrams have a flow");
                    cx.buffers.append(&mut gather, queue, bytes);
                    has_runs |= bytes >= DATAGRAM_KEEP_BYTES as u64;
                }
                Transmit::Data { user, bytes, .. } => {
                    let user = Key::unpack(user);
                    self.conns.send_payload(cx, &mut tunnel.lane, &mut gather, (user, bytes));
                }
            }
        }
        if !gather.is_empty() {
            let lane = &mut tunnel.lane;
            let piped_bytes = lane.outgoing.as_ref().map_or(0, |outgoing| outgoing.left_bytes);
            lane.framed_bytes += (gather.len_bytes() + piped_bytes) as u64;
            if tunnel.session.resumes() {
                tunnel.session.batch_made(cx.now);
                lane.retained.keep(cx, &gather, unkept_bytes);
            }
        } else if !cx.buffers.can_write_frame() {
            // The session may have frames that lack only a buffer.
            self.tunnels.wait_for_pool(cx, key);
        }
        (gather, has_runs)
    }

    /// Sends a batch synchronously. What a socket does not accept goes through the driver; what
    /// another link does not accept is kept until it is writable. `false`: later data must wait.
    /// `more`: the batch ends in the head of a frame with spliced payload.
    pub(in crate::worker::stream) fn send_now<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        key: Key,
        mut gather: Box<Gather>,
        more: bool,
    ) -> bool {
        let Some(tunnel) = self.tunnels.get_mut(key) else { return false };
        cx.counters.direct_sends += 1;
        match tunnel.lane.link.send(&mut gather, more) {
            Ok(bytes) => gather.advance(bytes),
            Err(error) if is_again(&error) => {}
            Err(error) => {
                cx.buffers.give_back(gather);
                self.break_tunnel(cx, key, &format!("sending to the peer: {error}"));
                return false;
            }
        }
        if gather.is_empty() {
            cx.buffers.give_back(gather);
            return true;
        }
        let mut send = None;
        match tunnel.lane.link.output() {
            Some(socket) if tunnel.lane.link.is_socket() => {
                let token = Kind::LinkSend.of(tunnel.lane.id);
                send = Some(cx.driver.send(socket, gather, SendWait::Yes, token));
            }
            Some(output) => {
                let token = Kind::LinkWritable.of(tunnel.lane.id);
                cx.driver.poll(output, libc::POLLOUT as u32, false, token);
                tunnel.lane.unsent = Some(gather);
            }
            None => cx.buffers.give_back(gather),
        }
        tunnel.lane.begin_sending(send, cx.now);
        false
    }

    pub(in crate::worker) fn link_sent<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        link: Key,
        result: io::Result<usize>,
        mut gather: Box<Gather>,
    ) {
        let Some((key, tunnel)) = self.tunnels.of_link_mut(link) else {
            cx.buffers.give_back(gather);
            cx.counters.stale += 1;
            return;
        };
        tunnel.lane.send = None;
        match result {
            Ok(bytes) => {
                gather.advance(bytes);
                if gather.is_empty() {
                    tunnel.lane.sending = false;
                    cx.buffers.give_back(gather);
                    if self.pipe_to_link(cx, key) {
                        self.tunnels.mark(key);
                    }
                } else if let Some(socket) = tunnel.lane.link.output() {
                    let token = Kind::LinkSend.of(tunnel.lane.id);
                    let send = cx.driver.send(socket, gather, SendWait::Yes, token);
                    tunnel.lane.begin_sending(Some(send), cx.now);
                }
            }
            // Cancelled by [`super::Tunnels::free_stalled_buffers`]: copy the batch to return its
            // receive buffers, and send it again.
            Err(error) if error.raw_os_error() == Some(libc::ECANCELED) => {
                let is_copied = cx.buffers.copy_bulk_of_batch(&mut gather);
                if let Some(socket) = tunnel.lane.link.output() {
                    let token = Kind::LinkSend.of(tunnel.lane.id);
                    let send = cx.driver.send(socket, gather, SendWait::Yes, token);
                    tunnel.lane.send = (!is_copied).then_some(send);
                }
            }
            Err(error) => {
                cx.buffers.give_back(gather);
                self.break_tunnel(cx, key, &format!("sending to the peer: {error}"));
            }
        }
    }
}

impl Conns {
    /// Moves payload of a connection to the end of a batch. What stands in a pipe goes out right behind it.
    fn send_payload<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        lane: &mut Lane,
        gather: &mut Gather,
        (user, bytes): (Key, u64),
    ) {
        let conn = self.get_mut(user).expect("streams with data have a local");
        conn.keep_sent(bytes);
        let piped = cx.buffers.append(gather, &mut conn.input, bytes);
        if piped > 0 {
            let taken = conn.input.take_piped(piped);
            assert_eq!(taken, piped, "nothing stands behind what is in the pipe");
            let pipe = Rc::clone(conn.input.pipe().expect("it stands in the pipe"));
            lane.outgoing = Some(Outgoing { conn: user, pipe, left_bytes: piped, kept_bytes: 0 });
        }
        if conn.input.is_empty() {
            conn.packed = None;
        }
        if matches!(conn.stage, Stage::Draining) {
            conn.last_data = cx.now;
            if conn.input.is_empty() {
                // The rest of a broken connection has been sent.
                self.remove(user);
            }
        }
    }
}
