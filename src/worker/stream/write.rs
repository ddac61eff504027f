//! Writes payload from the link to local sockets.
//!
//! Payload is sent from the buffer that received it, without waiting. What the socket does not
//! accept is copied into pool buffers, so that a slow reader never holds the link's buffers, and is
//! sent when there is room. Payload in pipes is written by [`crate::worker::stream::tunnel::splice`].

use std::io;

use crate::io::chunk::Chunk;
use crate::io::direct;
use crate::io::driver::{Driver, Gather, SendWait};
use crate::io::net;
use crate::limits::LOCAL_PARTS;
use crate::worker::context::Cx;
use crate::worker::payload_queue::Piece;
use crate::worker::stream::Streams;
use crate::worker::stream::conn::Stage;
use crate::worker::table::Key;
use crate::worker::token::Kind;

impl Streams {
    /// Delivers payload from the link to a local socket.
    #[inline]
    pub(super) fn deliver<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key, chunk: Chunk) {
        let Some(conn) = self.conns.get_mut(key) else {
            cx.counters.stale += 1;
            return;
        };
        if conn.broken.is_some() {
            // It accepts no writes. Consumption is not reported, so the peer gets no further
            // credit.
            return;
        }
        let waits = conn.stalled || conn.waiting || !matches!(conn.stage, Stage::Open);
        if waits {
            if matches!(conn.stage, Stage::ProxyHandshake(_)) {
                return self.hold_client_data(cx, key, &chunk);
            }
            // A slow reader, or an exit still connecting: the link needs its buffer back.
            if !cx.buffers.spill(&chunk, &mut conn.spill, &mut conn.output) {
                self.out_of_buffers(cx, key);
                return;
            }
        } else {
            conn.output.push_chunk(chunk);
        }
        self.conns.mark(key);
    }

    pub(super) fn deliver_urgent<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key, bytes: &[u8]) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        match (&conn.stage, &conn.fd, bytes.last()) {
            // TCP keeps only the last urgent byte, and so does the worker until the server is
            // reached.
            (Stage::ResolvingName | Stage::Dialing(_), _, Some(&byte)) => conn.urgent = Some(byte),
            (Stage::Open, Some(fd), Some(&byte)) => {
                if let Err(error) = net::send_urgent(fd, byte) {
                    self.break_conn(cx, key, Some(&error));
                }
            }
            _ => {}
        }
    }

    /// Flushes every marked connection.
    pub(in crate::worker) fn write_conns<D: Driver>(&mut self, cx: &mut Cx<D>) {
        let mut at = 0;
        while at < self.conns.dirty.len() {
            let key = self.conns.dirty[at];
            at += 1;
            if let Some(conn) = self.conns.get_mut(key) {
                conn.dirty = false;
                self.write_conn(cx, key);
            }
        }
        self.conns.dirty.clear();
    }

    /// Writes output, or completes a shutdown when none is left.
    pub(super) fn write_conn<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key) {
        loop {
            let Some(conn) = self.conns.get_mut(key) else { return };
            let Some(fd) = &conn.fd else { return };
            if conn.sending || matches!(conn.stage, Stage::Dialing(_)) {
                return;
            }
            if conn.output.is_empty() {
                self.output_done(cx, key);
                return;
            }
            if conn.output.begins_in_pipe() {
                if !self.pipe_to_socket(cx, key) {
                    return;
                }
                continue;
            }
            let mut gather = cx.buffers.take_gather();
            while gather.parts() < LOCAL_PARTS {
                let Some(chunk) = conn.output.pop_chunk() else { break };
                gather.push(chunk);
            }
            if conn.stalled || !conn.output.begins_in_pipe() {
                conn.sending = true;
                let wait = if conn.stalled { SendWait::Yes } else { SendWait::No };
                conn.ops.write = Some(cx.driver.send(fd, gather, wait, Kind::ConnSend.of(key)));
                return;
            }
            // Spliced data follows; this is sent with `MSG_MORE`.
            cx.counters.direct_sends += 1;
            let result = direct::send(fd, &mut gather, true);
            let all = result.as_ref().is_ok_and(|&bytes| bytes == gather.len_bytes());
            self.conn_sent(cx, key, result, gather);
            if !all {
                self.wait_for_room(cx, key);
            }
        }
    }

    /// A socket in bulk has not accepted everything: polls it for room. Payload that arrives
    /// meanwhile still goes into its pipe.
    pub(super) fn wait_for_room<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        let Some(fd) = &conn.fd else { return };
        conn.stalled = false;
        conn.waiting = true;
        conn.sending = true;
        let token = Kind::ConnWritable.of(key);
        conn.ops.write = Some(cx.driver.poll(fd, libc::POLLOUT as u32, false, token));
    }

    pub(in crate::worker) fn conn_sent<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        key: Key,
        result: io::Result<usize>,
        gather: Box<Gather>,
    ) {
        let conn = self.conns.get_mut(key);
        let end_doubtful = conn.is_some_and(|conn| std::mem::take(&mut conn.end_doubtful));
        self.finish_send(cx, key, result, gather);
        if end_doubtful {
            self.read_conn(cx, key);
        }
    }

    fn finish_send<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        key: Key,
        result: io::Result<usize>,
        mut gather: Box<Gather>,
    ) {
        let now = cx.now;
        let Some(conn) = self.conns.get_mut(key) else {
            cx.buffers.give_back(gather);
            cx.counters.stale += 1;
            return;
        };
        conn.sending = false;
        if conn.fd.is_none() {
            // The socket was closed meanwhile, and the session knows.
            return cx.buffers.give_back(gather);
        }
        let bytes = match result {
            Ok(bytes) => bytes,
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => 0,
            Err(error) => {
                cx.buffers.give_back(gather);
                return self.writing_failed(cx, key, &error);
            }
        };
        gather.advance(bytes);
        conn.entry.local_took(bytes);
        conn.last_data = now;
        let (tunnel, stream, mixed) = (conn.tunnel, conn.stream, conn.own_bytes > 0);
        let mut kept = true;
        if !gather.is_empty() {
            kept = self.put_back(cx, key, &mut gather);
        }
        cx.buffers.give_back(gather);
        let taken = if mixed { self.delivered_part(key, bytes as u64) } else { bytes as u64 };
        if let (Some(tunnel), Some(stream)) = (self.tunnels.get_mut(tunnel), stream) {
            tunnel.session_mut().consumed(stream, taken, now);
        }
        self.tunnels.mark(tunnel);
        if kept {
            self.conns.mark(key);
        } else {
            self.out_of_buffers(cx, key);
        }
    }

    /// Returns what the socket has not accepted to the front of the output, and copies all output
    /// into pool buffers. `false`: the pool is exhausted.
    fn put_back<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key, gather: &mut Gather) -> bool {
        let Some(conn) = self.conns.get_mut(key) else { return true };
        if conn.stalled {
            // All of it is in pool buffers already.
            for chunk in gather.drain().rev() {
                conn.output.push_chunk_front(chunk);
            }
            return true;
        }
        conn.stalled = true;
        let newer = conn.output.take_queue();
        let (buffers, spill, output) = (&cx.buffers, &mut conn.spill, &mut conn.output);
        let mut keep = |chunk: Chunk| buffers.spill(&chunk, spill, output);
        if !gather.drain().all(&mut keep) {
            return false;
        }
        newer.into_iter().all(|piece| match piece {
            Piece::Chunk(chunk) => buffers.spill(&chunk, spill, output),
            Piece::Piped(bytes) => {
                output.push_piped(bytes);
                true
            }
        })
    }

    /// Writing to the socket of a stream has failed.
    fn writing_failed<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key, error: &io::Error) {
        match self.conns.get(key).map(|conn| &conn.stage) {
            Some(Stage::ProxyHandshake(_)) => self.writing_server_failed(cx, key, error),
            _ => self.break_conn(cx, key, Some(error)),
        }
    }

    /// All output is written: performs the pending shutdown.
    fn output_done<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        let linger = cx.timeouts_of(conn.exit.as_ref()).linger;
        let linger = linger.map(|linger| cx.now.after(linger));
        debug_assert!(conn.output_is_empty());
        conn.stalled = false;
        conn.spill = None;
        match conn.stage {
            Stage::Flushing { then_reset: true } => self.reset_after_output(cx, key),
            Stage::Settling => {}
            Stage::Flushing { then_reset: false } if conn.read_ended => self.close_conn(key),
            Stage::Flushing { then_reset: false } => {
                if let Some(fd) = &conn.fd {
                    net::shut_down_write(fd);
                }
                conn.stage = Stage::Lingering;
                conn.end_after_output = false;
                self.set_deadline(cx, key, linger);
                self.read_conn(cx, key);
            }
            _ => {
                if std::mem::take(&mut conn.end_after_output)
                    && let Some(fd) = &conn.fd
                {
                    net::shut_down_write(fd);
                }
                if matches!(conn.stage, Stage::ProxyHandshake(_)) {
                    self.server_has_room(cx, key);
                }
            }
        }
    }
}
