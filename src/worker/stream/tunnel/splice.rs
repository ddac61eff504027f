//! Zero-copy bulk: from a local socket through the stream's pipe to the link, and from the link
//! through another pipe to the local socket at the other end.
//!
//! The driver polls the descriptors; the splice calls are made here, synchronously. Data that
//! cannot be spliced is copied by [`crate::worker::stream::read`], [`crate::worker::stream::write`]
//! and the modules of the link beside this one, and the fallback is counted.
//!
//! The stream decides how its socket is read (see [`crate::worker::stream::conn::ReadMode`]). Each
//! end of a tunnel decides on its own how it reads the link, by the size of the frames that arrive.

use std::io;

use tracing::trace;

use crate::cli::plan::Bulk;
use crate::io::direct;
use crate::io::driver::Driver;
use crate::limits::{
    AHEAD_BYTES_MAX, AHEAD_BYTES_MIN, CONTROL_BACKLOG, PIPE_BYTES, SPLICE_BYTES_MIN,
    SPLICE_TURN_BYTES,
};
use crate::worker::context::Cx;
use crate::worker::stream::conn::{ReadMode, Reading, Stage};
use crate::worker::stream::tunnel::is_again;
use crate::worker::stream::tunnel::lane::{Destination, Lack, LinkReadMode, Transform};
use crate::worker::stream::{Flows, Streams};
use crate::worker::table::Key;

/// Big frames in a row that switch the link to splicing.
const BIG_FRAMES: u8 = 2;
/// Turns in a row without a big frame that switch it back to receiving.
const SMALL_TURNS: u8 = 32;
/// Short splices in a row that end the splicing of a stream.
const SHORT_SPLICES: u8 = 8;

/// Result of an attempt to move payload.
enum Progress {
    /// This many bytes were moved.
    Bytes(usize),
    /// Nothing to move for now.
    Nothing,
    /// The rest of the frame must be copied.
    Copy,
    /// The tunnel is gone.
    Gone,
}

impl Streams {
    /// Whether a wanted read of a local socket must wait for its pipe. Also ends the splicing of a
    /// stream that is no longer in bulk.
    pub(in crate::worker::stream) fn pipe_is_busy<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        key: Key,
    ) -> bool {
        let Some(conn) = self.conns.get_mut(key) else { return true };
        if conn.read_mode != ReadMode::Spliced {
            return false;
        }
        let open = matches!(conn.stage, Stage::Open) && conn.stream.is_some();
        if !open || (conn.streak >= SHORT_SPLICES && conn.input.is_empty()) {
            conn.read_mode = ReadMode::Bulk;
            conn.streak = 0;
            conn.full_reads = 0;
            conn.input.drop_pipes(&mut cx.buffers.pipes);
            return false;
        }
        // Framed payload that waits for the link is still in the pipe. Reading is retried when it
        // has been sent.
        conn.input.pipe().is_some_and(|pipe| pipe.held_bytes() > PIPE_BYTES - SPLICE_BYTES_MIN)
    }

    /// A spliced local socket is readable: fills the stream's pipe.
    pub(in crate::worker::stream) fn fill_from_conn<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        key: Key,
    ) {
        let now = cx.now;
        let Some(conn) = self.conns.get_mut(key) else { return };
        let (Some(fd), Some(stream), Stage::Open) = (&conn.fd, conn.stream, &conn.stage) else {
            return self.read_conn(cx, key);
        };
        let Some(pipe) = conn.input.need_pipe(&mut cx.buffers.pipes) else {
            return self.copy_conn(cx, key);
        };
        let room_bytes = PIPE_BYTES.saturating_sub(pipe.held_bytes());
        match pipe.fill(fd, room_bytes.min(SPLICE_TURN_BYTES)) {
            Ok(0) => self.conn_ended(cx, key),
            Ok(bytes) => {
                cx.counters.spliced_from_local += bytes as u64;
                cx.busy_poll.on_payload(true, now);
                conn.entry.local_gave(bytes);
                conn.input.push_piped(bytes);
                conn.last_data = now;
                let short = bytes < SPLICE_BYTES_MIN && cx.plan.soxconf.bulk == Bulk::Auto;
                conn.streak = if short { conn.streak.saturating_add(1) } else { 0 };
                let tunnel = conn.tunnel;
                if let Some(tunnel) = self.tunnels.get_mut(tunnel) {
                    tunnel.session.data_ready(stream, bytes as u64);
                }
                self.tunnels.mark(tunnel);
                self.read_conn(cx, key);
            }
            // Small pieces have used up the slots of the pipe, or the next data cannot be spliced.
            // Reading is retried when the pipe is empty.
            Err(error) if (is_again(&error) || is_refused(&error)) && pipe.held_bytes() > 0 => {
                cx.counters.pipe_full += u64::from(direct::waiting_bytes(fd) > 0);
                self.arm_error_watch(cx, key);
            }
            // The socket was polled readable. A splice stops at urgent data for ever, even after it
            // was taken; a receive gets past it.
            Err(error) if is_again(&error) => self.copy_conn(cx, key),
            Err(error) if is_refused(&error) => {
                conn.copy_only = true;
                cx.counters.splice_refused += 1;
                self.copy_conn(cx, key);
            }
            Err(error) => self.finish_broken(cx, key, "reset", &error),
        }
    }

    /// Copies a stream in bulk that cannot be spliced for now.
    fn copy_conn<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key) {
        if let Some(conn) = self.conns.get_mut(key) {
            conn.read_mode = ReadMode::Bulk;
            conn.streak = 0;
            conn.full_reads = 0;
        }
        self.read_conn(cx, key);
    }

    /// The link is writable.
    pub(in crate::worker) fn link_writable<D: Driver>(&mut self, cx: &mut Cx<D>, link: Key) {
        let Some((key, tunnel)) = self.tunnels.of_link_mut(link) else {
            cx.counters.stale += 1;
            return;
        };
        tunnel.lane.sending = false;
        if matches!(tunnel.lane.transform, Transform::SerialLine(_)) {
            return self.tunnels.mark(key);
        }
        let unsent = tunnel.lane.unsent.take();
        let piped = tunnel.lane.outgoing.is_some();
        if unsent.is_none_or(|gather| self.send_now(cx, key, gather, piped))
            && self.pipe_to_link(cx, key)
        {
            self.tunnels.mark(key);
        }
    }

    /// Data was received from the link: switches to splicing if it begins big frames in a row.
    pub(in crate::worker::stream) fn update_link_read_mode<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        key: Key,
    ) {
        if !self.can_splice_payload(cx, key) {
            return;
        }
        let Some(tunnel) = self.tunnels.get_mut(key) else { return };
        if tunnel.lane.read_mode == LinkReadMode::Received {
            tunnel.lane.streak += 1;
            if tunnel.lane.streak >= BIG_FRAMES {
                trace!(tunnel = key.number(), peer = %tunnel.lane.link, "the link is spliced");
                tunnel.lane.read_mode = LinkReadMode::Spliced;
                tunnel.lane.streak = 0;
                tunnel.lane.reading.cancel(&mut cx.driver);
            }
        }
    }

    /// A polled link is readable: decodes frames and splices the payload of big ones.
    pub(in crate::worker) fn link_ready<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        flows: &mut impl Flows,
        link: Key,
        events: io::Result<u32>,
    ) {
        let Some((key, tunnel)) = self.tunnels.of_link_mut(link) else {
            cx.counters.stale += 1;
            return;
        };
        tunnel.lane.reading = Reading::Idle;
        if events.is_err() {
            return self.read_link(cx, key);
        }
        if let Err(error) = tunnel.lane.link.claim() {
            return self.break_tunnel(cx, key, &format!("receiving from the peer: {error}"));
        }
        if matches!(tunnel.lane.transform, Transform::SerialLine(_)) {
            self.read_line(cx, flows, key);
            return self.read_link(cx, key);
        }
        // Bounds what one link may take of a turn; the link is polled again and completes at once
        // if data is left.
        let mut left_bytes = SPLICE_TURN_BYTES;
        let mut spliced_any = false;
        while left_bytes > 0 {
            let progress = if self.can_splice_payload(cx, key) {
                self.link_to_pipe(cx, key, left_bytes)
            } else {
                Progress::Copy
            };
            let progress = match progress {
                Progress::Copy => self.read_ahead(cx, flows, key),
                other => {
                    spliced_any = true;
                    other
                }
            };
            match progress {
                Progress::Bytes(bytes) => left_bytes = left_bytes.saturating_sub(bytes),
                Progress::Nothing | Progress::Copy => break,
                Progress::Gone => return,
            }
        }
        let Some(tunnel) = self.tunnels.get_mut(key) else { return };
        tunnel.lane.streak = if spliced_any { 0 } else { tunnel.lane.streak.saturating_add(1) };
        if tunnel.lane.streak >= SMALL_TURNS && tunnel.lane.link.is_socket() {
            tunnel.lane.read_mode = LinkReadMode::Received;
            tunnel.lane.streak = 0;
        }
        self.tunnels.mark(key);
        self.read_link(cx, key);
    }

    /// Reads a little ahead and decodes it.
    fn read_ahead<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        flows: &mut impl Flows,
        key: Key,
    ) -> Progress {
        let Some(tunnel) = self.tunnels.get_mut(key) else { return Progress::Gone };
        let is_full = tunnel.session.control_backlog() >= CONTROL_BACKLOG
            || tunnel.lane.transform.is_backed_up();
        if is_full || tunnel.is_held_up() {
            return Progress::Nothing;
        }
        let most_bytes = match tunnel.lane.decoder.payload_left() {
            0 if !tunnel.is_encrypted() => tunnel.lane.ahead_bytes,
            // Payload that cannot be spliced.
            _ => AHEAD_BYTES_MAX,
        };
        tunnel.lane.splicing = false;
        match cx.buffers.read_ahead(&tunnel.lane.link, most_bytes) {
            Ok(Some(chunk)) => {
                let bytes = chunk.len();
                if !self.on_link_bytes(cx, flows, key, chunk) {
                    return Progress::Gone;
                }
                let Some(tunnel) = self.tunnels.get_mut(key) else { return Progress::Gone };
                let big = tunnel.lane.decoder.payload_left() as usize >= SPLICE_BYTES_MIN;
                tunnel.lane.ahead_bytes = match bytes == most_bytes && !big {
                    true => AHEAD_BYTES_MAX,
                    false => AHEAD_BYTES_MIN,
                };
                if bytes == most_bytes { Progress::Bytes(bytes) } else { Progress::Nothing }
            }
            Ok(None) => {
                self.link_ended(cx, key);
                Progress::Gone
            }
            Err(error) if is_again(&error) => Progress::Nothing,
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                tunnel.lane.starved = Some(Lack::Pool);
                self.tunnels.wait_for_pool(cx, key);
                Progress::Nothing
            }
            Err(error) => {
                self.break_tunnel(cx, key, &format!("receiving from the peer: {error}"));
                Progress::Gone
            }
        }
    }

    /// Whether the next payload is large and its destination is a socket that can be spliced to.
    fn can_splice_payload<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key) -> bool {
        let Some(tunnel) = self.tunnels.get(key).filter(|tunnel| !tunnel.is_held_up()) else {
            return false;
        };
        let Destination::Conn(conn_key) = tunnel.lane.destination else { return false };
        let least = if tunnel.lane.splicing { 1 } else { SPLICE_BYTES_MIN };
        if tunnel.lane.copy_only || (tunnel.lane.decoder.payload_left() as usize) < least {
            return false;
        }
        let Some(conn) = self.conns.get_mut(conn_key) else { return false };
        let open = matches!(conn.stage, Stage::Open) && conn.fd.is_some();
        if !open || conn.copy_only || conn.broken.is_some() {
            return false;
        }
        self.has_pipe_room(cx, conn_key)
    }

    /// Moves payload of the current frame from the link into its stream's pipe, and on to the
    /// socket.
    fn link_to_pipe<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key, most_bytes: usize) -> Progress {
        let now = cx.now;
        let Some(tunnel) = self.tunnels.get_mut(key) else { return Progress::Gone };
        let Destination::Conn(conn_key) = tunnel.lane.destination else { return Progress::Copy };
        let Some(conn) = self.conns.get_mut(conn_key) else { return Progress::Copy };
        let Some(pipe) = conn.output.need_room(&mut cx.buffers.pipes) else {
            return Progress::Copy;
        };
        let bytes = (tunnel.lane.decoder.payload_left() as usize).min(most_bytes);
        match pipe.fill(tunnel.lane.link.input(), bytes) {
            Ok(0) => {
                self.link_ended(cx, key);
                Progress::Gone
            }
            Ok(bytes) => {
                tunnel.lane.decoder.payload_passed(bytes as u32);
                tunnel.lane.read_bytes += bytes as u64;
                tunnel.lane.splicing = tunnel.lane.decoder.payload_left() > 0;
                tunnel.session.received(now);
                tunnel.session.read(bytes as u64, now);
                cx.counters.spliced_to_local += bytes as u64;
                cx.busy_poll.on_payload(true, now);
                conn.output.push_piped(bytes);
                conn.last_data = now;
                // Now, while the pages are still in the cache.
                self.write_conn(cx, conn_key);
                Progress::Bytes(bytes)
            }
            Err(error) if is_again(&error) => {
                if pipe.held_bytes() == 0 || direct::waiting_bytes(tunnel.lane.link.input()) == 0 {
                    return Progress::Nothing;
                }
                // The pipe has no free slot and its socket is not draining it.
                if conn.output.add_pipe(&mut cx.buffers.pipes) {
                    return Progress::Bytes(0);
                }
                if self.free_stalled_pipes(cx, conn_key) {
                    return Progress::Bytes(0);
                }
                cx.counters.pipe_full += 1;
                Progress::Copy
            }
            Err(error) if is_refused(&error) => {
                tunnel.lane.copy_only = true;
                cx.counters.splice_refused += 1;
                Progress::Copy
            }
            Err(error) => {
                self.break_tunnel(cx, key, &format!("receiving from the peer: {error}"));
                Progress::Gone
            }
        }
    }

    /// Moves the front of a stream's pipe to its local socket, or out of the pipe where the socket
    /// cannot be spliced to. `false`: the socket accepts no more for now, or is gone.
    pub(in crate::worker::stream) fn pipe_to_socket<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        key: Key,
    ) -> bool {
        let now = cx.now;
        let Some(conn) = self.conns.get_mut(key) else { return false };
        let (Some(fd), Some(pipe)) = (&conn.fd, conn.output.pipe()) else { return false };
        match pipe.drain(fd, conn.output.piped_bytes()) {
            Ok(bytes) if bytes > 0 => {
                conn.entry.local_took(bytes);
                conn.output.take_piped(bytes);
                conn.stalled = false;
                conn.last_data = now;
                conn.output.drop_empty(&mut cx.buffers.pipes);
                let (tunnel, stream) = (conn.tunnel, conn.stream);
                if let (Some(tunnel), Some(stream)) = (self.tunnels.get_mut(tunnel), stream) {
                    tunnel.session.consumed(stream, bytes as u64, now);
                }
                self.tunnels.mark(tunnel);
                true
            }
            Err(error) if is_again(&error) => {
                self.wait_for_room(cx, key);
                false
            }
            Err(error) if is_refused(&error) => {
                conn.copy_only = true;
                cx.counters.splice_refused += 1;
                let copied = cx.buffers.copy_out(pipe, conn.output.piped_bytes());
                match copied {
                    Ok(mut batch) => {
                        conn.output.take_piped(batch.len_bytes());
                        batch.drain().for_each(|chunk| conn.output.push_chunk_front(chunk));
                        cx.buffers.give_back(batch);
                        conn.output.drop_empty(&mut cx.buffers.pipes);
                        true
                    }
                    Err(error) => {
                        self.break_conn(cx, key, Some(&error));
                        false
                    }
                }
            }
            result => {
                self.break_conn(cx, key, Some(&why(&result)));
                false
            }
        }
    }

    /// A local socket is writable.
    pub(in crate::worker) fn conn_writable<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key) {
        let Some(conn) = self.conns.get_mut(key) else {
            cx.counters.stale += 1;
            return;
        };
        conn.sending = false;
        conn.waiting = false;
        self.conns.mark(key);
    }
}

/// Whether a descriptor does not support splicing.
pub(super) fn is_refused(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EINVAL)
}

/// Why a pipe was not drained: an error, or zero bytes, which a socket never reports.
pub(super) fn why(result: &io::Result<usize>) -> io::Error {
    match result {
        Ok(_) => io::Error::from(io::ErrorKind::WriteZero),
        Err(error) => match error.raw_os_error() {
            Some(number) => io::Error::from_raw_os_error(number),
            None => io::Error::from(error.kind()),
        },
    }
}
