//! Reads local sockets into the session, and ends connections. Called for completions of
//! connections and whenever the session allows more input.
//!
//! How a socket is read depends on its [`ReadMode`]; an idle connection holds no buffer in any
//! mode.

use std::io;

use tracing::{debug, trace};

use crate::cli::plan::Bulk;
use crate::io::chunk::Chunk;
use crate::io::driver::{BufferClass, Driver, RecvMode};
use crate::io::net;
use crate::limits::{BULK_BUFFER_BYTES, PACKED_BYTES_MAX, POOL_BUFFER_BYTES, SMALL_BUFFER_BYTES};
use crate::session::Moment;
use crate::worker::context::waiters::Waiter;
use crate::worker::context::{Cx, Effect};
use crate::worker::stream::Streams;
use crate::worker::stream::conn::{Conn, ReadMode, Reading, Stage};
use crate::worker::stream::tunnel::Tunnel;
use crate::worker::table::Key;
use crate::worker::token::Kind;

/// Short reads in a row that end bulk mode.
const SHORT_READS: u8 = 2;
/// Reads in a row that filled a bulk buffer, after which a stream is spliced.
const FULL_READS: u8 = 3;
/// Reads in quick succession that make a sparse stream busy.
const QUICK_READS: u8 = 16;
/// Maximum interval of quick succession.
const QUICK_MICROS: u64 = 1_000;

impl Streams {
    /// Starts a read if the session has credit and none is in flight.
    pub(in crate::worker) fn read_conn<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        let busy = conn.reading != Reading::Idle || conn.starved || conn.joining;
        if conn.fd.is_none() || busy || conn.read_ended {
            return;
        }
        let wanted = match (&conn.stage, conn.stream) {
            (Stage::Open, Some(stream)) => {
                self.tunnels.get_mut(conn.tunnel).is_some_and(|t| t.session_mut().may_read(stream))
            }
            (Stage::ProxyHandshake(handshake), Some(stream)) if handshake.reads_server() => {
                self.tunnels.get_mut(conn.tunnel).is_some_and(|t| t.session_mut().may_read(stream))
            }
            (Stage::Lingering, _) => true,
            _ => false,
        };
        if !wanted || self.pipe_is_busy(cx, key) {
            return match self.is_drained(key) {
                // Only the end of data is left to read.
                true => self.receive_conn(cx, key, RecvMode::Now, BufferClass::Small),
                false => self.arm_error_watch(cx, key),
            };
        }
        let Some(conn) = self.conns.get(key) else { return };
        match conn.read_mode {
            ReadMode::Sparse | ReadMode::Spliced => self.arm_readable(cx, key),
            ReadMode::Busy => self.receive_conn(cx, key, RecvMode::Multishot, BufferClass::Small),
            ReadMode::Bulk => self.receive_conn(cx, key, RecvMode::Now, BufferClass::Bulk),
        }
    }

    /// A receive buffer is available for a connection that waits for one.
    pub(in crate::worker) fn conn_has_buffer<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key) {
        if let Some(conn) = self.conns.get_mut(key) {
            conn.starved = false;
            self.read_conn(cx, key);
        }
    }

    /// Polls a socket for data.
    pub(super) fn arm_readable<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        if let Some(fd) = &conn.fd {
            let events = (libc::POLLIN | libc::POLLPRI) as u32;
            conn.ops.read = Some(cx.driver.poll(fd, events, false, Kind::ConnReady.of(key)));
            conn.reading = Reading::Watched;
        }
    }

    /// Polls for errors of a connection that is not being read, once.
    pub(super) fn arm_error_watch<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        let knows = conn.guarded || conn.broken.is_some();
        if let (Some(fd), Stage::Open, false) = (&conn.fd, &conn.stage, knows) {
            conn.guarded = true;
            // Errors and hang-ups are reported without being requested.
            conn.ops.guard = Some(cx.driver.poll(fd, 0, false, Kind::ConnBroken.of(key)));
        }
    }

    pub(in crate::worker) fn conn_broken<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        key: Key,
        events: io::Result<u32>,
    ) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        conn.guarded = false;
        // A hang-up without an error is an orderly end, possibly of one direction only, which
        // io_uring reports unrequested. A socket that is being read meets the error there, after
        // the data before it.
        let broken = events.is_ok_and(|events| events & libc::POLLERR as u32 != 0);
        let is_read = conn.reading != Reading::Idle || conn.starved || conn.read_ended;
        let is_open = matches!(conn.stage, Stage::Open) && conn.stream.is_some();
        if broken && is_open && !is_read {
            self.break_conn(cx, key, None);
        }
    }

    /// Starts a receive, or queues for a buffer.
    fn receive_conn<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        key: Key,
        mode: RecvMode,
        class: BufferClass,
    ) {
        let kind = match class {
            BufferClass::Small => Kind::ConnReceive,
            BufferClass::Bulk => Kind::ConnReceiveBulk,
        };
        let has_buffer = cx.has_buffer_for(class, Waiter::Conn(key));
        let Some(conn) = self.conns.get_mut(key) else { return };
        let Some(fd) = &conn.fd else { return };
        if !has_buffer {
            conn.starved = true;
            return cx.waiters.push(class, Waiter::Conn(key));
        }
        // Counted from here until its completion: a bulk receive takes its buffer only then.
        if class == BufferClass::Bulk {
            cx.waiters.bulk_receives += 1;
        }
        let op = cx.driver.recv(fd, mode, class, kind.of(key));
        conn.ops.read = Some(op);
        conn.reading = Reading::Armed { op, mode, cancelled: false };
    }

    pub(in crate::worker) fn conn_received<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        key: Key,
        class: BufferClass,
        more: bool,
        got: io::Result<Option<Chunk>>,
    ) {
        let Some(conn) = self.conns.get_mut(key) else {
            cx.counters.stale += 1;
            return;
        };
        if !more {
            conn.reading = Reading::Idle;
        }
        match got {
            Ok(Some(chunk)) => {
                conn.entry.local_gave(chunk.len());
                if let (Stage::Open, Some(stream)) = (&conn.stage, conn.stream) {
                    let bytes = chunk.len();
                    cx.busy_poll.on_payload(bytes >= POOL_BUFFER_BYTES as usize, cx.now);
                    let tunnel = conn.tunnel;
                    // It would keep a bulk buffer of which it fills little.
                    let is_small = class == BufferClass::Small || bytes <= PACKED_BYTES_MAX;
                    let is_scarce = is_small && cx.is_scarce(class);
                    let is_missed = class == BufferClass::Bulk && cx.waiters.wants_bulk();
                    conn.received_at = cx.now;
                    let may_go_on = self.tunnels.get_mut(tunnel).is_some_and(|tunnel| {
                        let is_in_way = is_missed && tunnel.is_stalled(cx.now);
                        let Conn { input, packed, .. } = conn;
                        let tails = (tunnel.packed_mut(), packed);
                        if !((is_scarce || is_in_way) && cx.buffers.pack(&chunk, tails, input)) {
                            input.push_chunk(chunk);
                        }
                        tunnel.session_mut().data_ready(stream, bytes as u64);
                        tunnel.session_mut().may_read(stream)
                    });
                    self.update_read_mode(cx, key, bytes, may_go_on);
                    self.tunnels.mark(tunnel);
                } else if matches!(conn.stage, Stage::ProxyHandshake(_)) {
                    // Reading goes on when the protocol has handled it.
                    return self.server_answered(cx, key, chunk);
                }
                if !more {
                    self.read_conn(cx, key);
                }
            }
            Ok(None) => self.conn_ended(cx, key),
            Err(error) => match error.raw_os_error() {
                Some(libc::ENOBUFS) => {
                    conn.starved = true;
                    cx.waiters.push(class, Waiter::Conn(key));
                }
                Some(libc::ECANCELED) => self.read_conn(cx, key),
                Some(libc::EAGAIN) => self.arm_readable(cx, key),
                _ => self.reading_failed(cx, key, &error),
            },
        }
    }

    /// Updates the read mode after a receive of `bytes`, and cancels a multishot receive that must
    /// not continue.
    pub(super) fn update_read_mode<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        key: Key,
        bytes: usize,
        go_on: bool,
    ) {
        let now = cx.now;
        let Some(conn) = self.conns.get_mut(key) else { return };
        let tunnel = self.tunnels.get(conn.tunnel);
        let (wants_splice, full_reads) = match cx.plan.soxconf.bulk {
            Bulk::Auto => (true, FULL_READS),
            Bulk::Splice => (true, 0),
            Bulk::Copy => (false, 0),
        };
        let full = bytes >= SMALL_BUFFER_BYTES as usize;
        let quick = now.0 - conn.last_data.0 < QUICK_MICROS;
        conn.last_data = now;
        let before = conn.read_mode;
        match conn.read_mode {
            ReadMode::Sparse | ReadMode::Busy if full => {
                conn.read_mode = ReadMode::Bulk;
                conn.streak = 0;
            }
            ReadMode::Sparse => {
                conn.streak = if quick { conn.streak + 1 } else { 0 };
                if conn.streak >= QUICK_READS {
                    conn.read_mode = ReadMode::Busy;
                    cx.deadline_count += 1;
                }
            }
            ReadMode::Busy | ReadMode::Spliced => {}
            ReadMode::Bulk => {
                conn.streak = if full { 0 } else { conn.streak + 1 };
                let whole = bytes >= BULK_BUFFER_BYTES as usize;
                conn.full_reads = if whole { conn.full_reads.saturating_add(1) } else { 0 };
                if conn.streak >= SHORT_READS {
                    conn.read_mode = ReadMode::Sparse;
                    conn.streak = 0;
                } else if wants_splice && !conn.copy_only && conn.full_reads >= full_reads {
                    if tunnel.is_some_and(Tunnel::splices) {
                        conn.read_mode = ReadMode::Spliced;
                        conn.streak = 0;
                    } else if tunnel.is_some_and(Tunnel::is_encrypted) {
                        cx.counters.splice_encrypted += 1;
                        conn.copy_only = true;
                    }
                }
            }
        }
        if conn.read_mode != before {
            let (client, mode) = (conn.client, conn.read_mode.name());
            trace!(stream = key.number(), %client, mode, "read mode");
        }
        if conn.read_mode != ReadMode::Busy || !go_on {
            conn.reading.cancel(&mut cx.driver);
        }
    }

    /// A busy stream has been idle for a while: polls it again, without a buffer.
    pub(super) fn demote<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        conn.read_mode = ReadMode::Sparse;
        conn.streak = 0;
        conn.reading.cancel(&mut cx.driver);
    }

    /// Handles the end of data of a local socket.
    pub(super) fn conn_ended<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key) {
        let now = cx.now;
        let Some(conn) = self.conns.get_mut(key) else { return };
        let is_sent_to = conn.sending && !conn.waiting;
        if is_sent_to && conn.fd.as_ref().is_some_and(|fd| net::is_hung_up(fd)) {
            // The send in flight may have met a reset, which the kernel reports only once.
            conn.end_doubtful = true;
            return;
        }
        trace!(stream = key.number(), client = %conn.client, "end of data from the local connection");
        conn.read_ended = true;
        conn.entry.local_ended();
        match (&conn.stage, conn.stream) {
            (Stage::Open, Some(stream)) => {
                let tunnel = conn.tunnel;
                let broken = conn.broken.as_ref().map(|broken| broken.ends_in_order());
                if broken != Some(false)
                    && let Some(tunnel) = self.tunnels.get_mut(tunnel)
                {
                    tunnel.session_mut().data_end(stream, now);
                }
                if broken.is_some() {
                    let error = io::Error::from(io::ErrorKind::ConnectionReset);
                    return self.finish_broken(cx, key, "reset", &error);
                }
                self.tunnels.mark(tunnel);
            }
            (Stage::Lingering, _) => self.close_conn(key),
            (Stage::ProxyHandshake(_), _) => self.server_ended(cx, key),
            _ => {}
        }
    }

    /// Closes the socket with a reset. The connection remains, to be drained or removed by the
    /// caller.
    pub(super) fn drop_socket<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        key: Key,
        what: &'static str,
        error: &io::Error,
    ) -> Option<&mut Conn> {
        let conn = self.conns.get_mut(key)?;
        cx.effects.push_back(Effect::StreamOver(key));
        debug!(stream = key.number(), client = %conn.client, %error, what, "local connection failed");
        match (what, error.kind()) {
            (_, io::ErrorKind::TimedOut) if what != "reset" => conn.entry.timed_out(None),
            ("reset", _) => conn.entry.reset_by_local(Some(&error.to_string())),
            _ => conn.entry.reset_here(what),
        }
        conn.output.clear(&mut cx.buffers.pipes);
        conn.spill = None;
        if let Some(fd) = conn.fd.take() {
            net::reset_on_close(&fd);
            conn.ops.cancel(&mut cx.driver);
        }
        let stage = std::mem::replace(&mut conn.stage, Stage::Draining);
        if let Some(dial) = stage.dial() {
            cx.forget_dial(dial, None);
        }
        self.conns.get_mut(key)
    }

    /// Fails a connection. Received data goes to the peer only as far as its window allows now;
    /// [`Self::finish_broken`] delivers all of it.
    pub(in crate::worker) fn conn_failed<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        key: Key,
        what: &'static str,
        error: &io::Error,
    ) {
        let Some(conn) = self.drop_socket(cx, key, what, error) else { return };
        let (tunnel, stream) = (conn.tunnel, conn.stream);
        conn.broken = None;
        conn.deadline = None;
        let keep = match (self.tunnels.get_mut(tunnel), stream) {
            (Some(tunnel), Some(stream)) => tunnel.session_mut().local_reset(stream, what),
            _ => false,
        };
        // Otherwise received data still goes to the link.
        if !keep {
            self.conns.remove(key);
        }
        self.tunnels.mark(tunnel);
    }

    /// Reading the socket of a stream has failed.
    pub(super) fn reading_failed<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        key: Key,
        error: &io::Error,
    ) {
        match self.conns.get(key).map(|conn| &conn.stage) {
            Some(Stage::ProxyHandshake(_)) => self.reading_server_failed(cx, key, error),
            Some(Stage::Open) => self.finish_broken(cx, key, "reset", error),
            Some(_) => self.conn_failed(cx, key, "reset", error),
            None => {}
        }
    }

    /// A polled socket is readable: takes urgent data first, then receives the rest.
    pub(in crate::worker) fn conn_ready<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        key: Key,
        events: io::Result<u32>,
    ) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        conn.reading = Reading::Idle;
        let (Ok(events), Some(fd)) = (events, &conn.fd) else { return };
        let read_mode = conn.read_mode;
        if events & libc::POLLPRI as u32 != 0
            && let (Some(byte), Some(stream)) = (net::take_urgent(fd), conn.stream)
        {
            let tunnel = conn.tunnel;
            conn.keep_urgent(byte);
            if let Some(tunnel) = self.tunnels.get_mut(tunnel) {
                tunnel.session_mut().urgent(stream, byte);
            }
            self.tunnels.mark(tunnel);
        }
        let class = match read_mode {
            _ if events & !(libc::POLLPRI as u32) == 0 => return self.read_conn(cx, key),
            ReadMode::Spliced => return self.fill_from_conn(cx, key),
            ReadMode::Bulk => BufferClass::Bulk,
            ReadMode::Sparse | ReadMode::Busy => BufferClass::Small,
        };
        self.receive_conn(cx, key, RecvMode::Now, class);
    }

    /// Closes a connection in order.
    pub(super) fn close_conn(&mut self, key: Key) {
        let Some(conn) = self.conns.remove(key) else { return };
        if let Some(fd) = conn.fd {
            // Ends operations in flight on it; the descriptor is closed when they have ended.
            net::shut_down(&fd);
        }
    }

    /// Sets or clears the deadline of a connection.
    pub(in crate::worker) fn set_deadline<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        key: Key,
        deadline: Option<Moment>,
    ) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        conn.deadline = deadline;
        if deadline.is_some() {
            cx.deadline_count += 1;
        }
    }
}
