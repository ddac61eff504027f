//! What comes from local sockets for the session, and the end of local connections.
//!
//! Reading goes by a stream's pace, see [`Pace`]; an idle connection holds no buffer in any.

use std::io;

use tracing::{debug, trace};

use crate::cli::plan::Bulk;
use crate::io::chunk::Chunk;
use crate::io::driver::{BufferClass, Driver, RecvMode};
use crate::io::net;
use crate::limits::{
    BULK_BUFFER_BYTES, BULK_BUFFERS_SCARCE, PACKED_BYTES_MAX, POOL_BUFFER_BYTES,
    SMALL_BUFFER_BYTES, SMALL_BUFFERS_SCARCE,
};
use crate::session::Moment;
use crate::worker::stream::local::{Local, Pace, Reading, Stage};
use crate::worker::token::Kind;
use crate::worker::tunnel::Tunnel;
use crate::worker::waiters::Waiter;
use crate::worker::{Key, Worker};

/// Short reads in a row that end a stream's bulk.
const SHORT_READS: u8 = 2;
/// Reads in a row that left nothing of a bulk buffer, after which a stream is spliced.
const FULL_READS: u8 = 3;
/// Reads in a row, each soon after the one before, that make a sparse stream busy.
const QUICK_READS: u8 = 16;
/// How soon that is.
const QUICK_MICROS: u64 = 1_000;

impl<D: Driver> Worker<D> {
    /// Receives from a local socket, if the session wants more and nothing is under way.
    pub(in crate::worker) fn read_local(&mut self, key: Key) {
        let Some(local) = self.locals.get_mut(key) else { return };
        let busy = local.reading != Reading::Idle || local.starved || local.joining;
        if local.fd.is_none() || busy || local.read_ended {
            return;
        }
        let wanted = match (&local.stage, local.stream) {
            (Stage::Open, Some(stream)) => {
                self.tunnels.get_mut(local.tunnel).is_some_and(|t| t.session_mut().may_read(stream))
            }
            (Stage::Talking(talk), Some(stream)) if talk.reads_server() => {
                self.tunnels.get_mut(local.tunnel).is_some_and(|t| t.session_mut().may_read(stream))
            }
            (Stage::Lingering, _) => true,
            _ => false,
        };
        if !wanted || self.pipe_is_busy(key) {
            return match self.has_given_all(key) {
                // Only its end is left to be read.
                true => self.receive_local(key, RecvMode::Now, BufferClass::Small),
                false => self.guard_local(key),
            };
        }
        let Some(local) = self.locals.get(key) else { return };
        match local.pace {
            Pace::Sparse | Pace::Spliced => self.watch_local(key),
            Pace::Busy => self.receive_local(key, RecvMode::Multishot, BufferClass::Small),
            Pace::Bulk => self.receive_local(key, RecvMode::Now, BufferClass::Bulk),
        }
    }

    /// Asks to be told when a socket has something.
    pub(in crate::worker) fn watch_local(&mut self, key: Key) {
        let Some(local) = self.locals.get_mut(key) else { return };
        if let Some(fd) = &local.fd {
            let events = (libc::POLLIN | libc::POLLPRI) as u32;
            self.cx.driver.poll(fd, events, false, Kind::LocalReady.of(key));
            local.reading = Reading::Watched;
        }
    }

    /// Asks to be told, once, when a client or server is broken that is not read for now.
    pub(in crate::worker) fn guard_local(&mut self, key: Key) {
        let Some(local) = self.locals.get_mut(key) else { return };
        let knows = local.guarded || local.broken.is_some();
        if let (Some(fd), Stage::Open, false) = (&local.fd, &local.stage, knows) {
            local.guarded = true;
            // Errors and hang-ups are told of unasked.
            self.cx.driver.poll(fd, 0, false, Kind::LocalBroken.of(key));
        }
    }

    pub(in crate::worker) fn local_broken(&mut self, key: Key, events: io::Result<u32>) {
        let Some(local) = self.locals.get_mut(key) else { return };
        local.guarded = false;
        // A hang-up without an error is an end in good order, also of one direction, which io_uring tells
        // of unasked. One that is read meets the error by that, behind the data before it.
        let broken = events.is_ok_and(|events| events & libc::POLLERR as u32 != 0);
        let is_read = local.reading != Reading::Idle || local.starved || local.read_ended;
        let is_open = matches!(local.stage, Stage::Open) && local.stream.is_some();
        if broken && is_open && !is_read {
            self.local_takes_no_more(key, None);
        }
    }

    /// Starts a receive, or waits for a buffer to receive into.
    fn receive_local(&mut self, key: Key, mode: RecvMode, class: BufferClass) {
        let kind = match class {
            BufferClass::Small => Kind::LocalReceive,
            BufferClass::Bulk => Kind::LocalReceiveBulk,
        };
        let has_buffer = self.cx.has_buffer_for(class, Waiter::Local(key));
        let Some(local) = self.locals.get_mut(key) else { return };
        let Some(fd) = &local.fd else { return };
        if !has_buffer {
            local.starved = true;
            return self.cx.waiters.push(class, Waiter::Local(key));
        }
        if class == BufferClass::Bulk {
            self.cx.waiters.bulk_receives += 1;
        }
        let op = self.cx.driver.recv(fd, mode, class, kind.of(key));
        local.reading = Reading::Armed { op, mode, cancelled: false };
    }

    pub(in crate::worker) fn local_received(
        &mut self,
        key: Key,
        class: BufferClass,
        more: bool,
        got: io::Result<Option<Chunk>>,
    ) {
        let Some(local) = self.locals.get_mut(key) else {
            self.cx.counters.stale += 1;
            return;
        };
        if !more {
            local.reading = Reading::Idle;
        }
        match got {
            Ok(Some(chunk)) => {
                if let (Stage::Open, Some(stream)) = (&local.stage, local.stream) {
                    let bytes = chunk.len();
                    self.cx.busy_poll.came(bytes >= POOL_BUFFER_BYTES as usize, self.cx.now);
                    let tunnel = local.tunnel;
                    let is_scarce = is_scarce(&self.cx.driver, class, bytes);
                    let is_missed = class == BufferClass::Bulk && self.cx.waiters.miss_bulk();
                    local.received_at = self.cx.now;
                    let may_go_on = self.tunnels.get_mut(tunnel).is_some_and(|tunnel| {
                        let is_in_way = is_missed && tunnel.stands_still(self.cx.now);
                        let Local { input, packed, .. } = local;
                        let tails = (tunnel.packed_mut(), packed);
                        if !((is_scarce || is_in_way) && self.cx.buffers.pack(&chunk, tails, input))
                        {
                            input.push_chunk(chunk);
                        }
                        tunnel.session_mut().data_ready(stream, bytes as u64);
                        tunnel.session_mut().may_read(stream)
                    });
                    self.judge_pace(key, bytes, may_go_on);
                    self.tunnels.mark(tunnel);
                } else {
                    self.server_said(key, &chunk);
                }
                if !more {
                    self.read_local(key);
                }
            }
            Ok(None) => self.local_ended(key),
            Err(error) => match error.raw_os_error() {
                Some(libc::ENOBUFS) => {
                    local.starved = true;
                    self.cx.waiters.push(class, Waiter::Local(key));
                }
                Some(libc::ECANCELED) => self.read_local(key),
                Some(libc::EAGAIN) => self.watch_local(key),
                _ => self.reading_failed(key, &error),
            },
        }
    }

    /// A receive brought so many bytes: what is the stream's pace, and is a multishot receive to
    /// go on?
    pub(in crate::worker) fn judge_pace(&mut self, key: Key, bytes: usize, go_on: bool) {
        let now = self.cx.now;
        let Some(local) = self.locals.get_mut(key) else { return };
        let splices = self.tunnels.get(local.tunnel).is_some_and(Tunnel::splices);
        let (splices, full_reads) = match self.cx.plan.soxconf.bulk {
            Bulk::Auto => (splices, FULL_READS),
            Bulk::Splice => (splices, 0),
            Bulk::Copy => (false, 0),
        };
        let full = bytes >= SMALL_BUFFER_BYTES as usize;
        let quick = now.0 - local.last_data.0 < QUICK_MICROS;
        local.last_data = now;
        let before = local.pace;
        match local.pace {
            Pace::Sparse | Pace::Busy if full => {
                local.pace = Pace::Bulk;
                local.streak = 0;
            }
            Pace::Sparse => {
                local.streak = if quick { local.streak + 1 } else { 0 };
                if local.streak >= QUICK_READS {
                    local.pace = Pace::Busy;
                    self.cx.deadline_count += 1;
                }
            }
            Pace::Busy | Pace::Spliced => {}
            Pace::Bulk => {
                local.streak = if full { 0 } else { local.streak + 1 };
                let whole = bytes >= BULK_BUFFER_BYTES as usize;
                local.full_reads = if whole { local.full_reads.saturating_add(1) } else { 0 };
                if local.streak >= SHORT_READS {
                    local.pace = Pace::Sparse;
                    local.streak = 0;
                } else if splices && !local.copy_only && local.full_reads >= full_reads {
                    local.pace = Pace::Spliced;
                    local.streak = 0;
                }
            }
        }
        if local.pace != before {
            trace!(client = %local.client, mode = local.pace.name(), "read mode");
        }
        if local.pace != Pace::Busy || !go_on {
            local.reading.cancel(&mut self.cx.driver);
        }
    }

    /// A busy stream has been quiet for a while: it is watched again.
    pub(in crate::worker) fn calm_down(&mut self, key: Key) {
        let Some(local) = self.locals.get_mut(key) else { return };
        local.pace = Pace::Sparse;
        local.streak = 0;
        local.reading.cancel(&mut self.cx.driver);
    }

    /// End of data from a local socket.
    pub(in crate::worker) fn local_ended(&mut self, key: Key) {
        let now = self.cx.now;
        let Some(local) = self.locals.get_mut(key) else { return };
        let is_sent_to = local.sending && !local.waiting;
        if is_sent_to && local.fd.as_ref().is_some_and(|fd| net::is_hung_up(fd)) {
            // The send may have met a reset, which the kernel reports once.
            local.end_doubtful = true;
            return;
        }
        trace!(client = %local.client, "end of data from the local connection");
        local.read_ended = true;
        match (&local.stage, local.stream) {
            (Stage::Open, Some(stream)) => {
                let tunnel = local.tunnel;
                let broken = local.broken.as_ref().map(|broken| broken.ends_in_order());
                if broken != Some(false)
                    && let Some(tunnel) = self.tunnels.get_mut(tunnel)
                {
                    tunnel.session_mut().data_end(stream, now);
                }
                if broken.is_some() {
                    let error = io::Error::from(io::ErrorKind::ConnectionReset);
                    return self.local_is_empty(key, "reset", &error);
                }
                self.tunnels.mark(tunnel);
            }
            (Stage::Lingering, _) => self.close_local(key),
            (Stage::Talking(_), _) => self.server_said_all(key),
            _ => {}
        }
    }

    /// Gives up a local socket. The connection that it was of is left, to be drained or removed.
    pub(in crate::worker) fn drop_socket(
        &mut self,
        key: Key,
        what: &'static str,
        error: &io::Error,
    ) -> Option<&mut Local> {
        self.close_asked_of(key);
        self.close_ports(key);
        let local = self.locals.get_mut(key)?;
        debug!(client = %local.client, %error, what, "local connection failed");
        local.output.clear(&mut self.cx.buffers.pipes);
        if let Some(fd) = local.fd.take() {
            net::reset_on_close(&fd);
            self.cx.driver.cancel_all(&fd);
        }
        let stage = std::mem::replace(&mut local.stage, Stage::Draining);
        if let Some(dial) = stage.dial() {
            self.cx.forget_dial(dial);
        }
        self.locals.get_mut(key)
    }

    /// A local connection cannot go on. What it has sent goes to the peer only as far as the peer
    /// allows it now; see [`Self::local_is_empty`] for all of it.
    pub(in crate::worker) fn local_failed(
        &mut self,
        key: Key,
        what: &'static str,
        error: &io::Error,
    ) {
        let Some(local) = self.drop_socket(key, what, error) else { return };
        let (tunnel, stream) = (local.tunnel, local.stream);
        local.broken = None;
        local.deadline = None;
        let keep = match (self.tunnels.get_mut(tunnel), stream) {
            (Some(tunnel), Some(stream)) => tunnel.session_mut().local_reset(stream, what),
            _ => false,
        };
        // Else what it had sent still goes to the link.
        if !keep {
            self.locals.remove(key);
        }
        self.tunnels.mark(tunnel);
    }

    /// A watched socket has something: urgent data is taken first, then the rest is received.
    pub(in crate::worker) fn local_ready(&mut self, key: Key, events: io::Result<u32>) {
        let Some(local) = self.locals.get_mut(key) else { return };
        local.reading = Reading::Idle;
        let (Ok(events), Some(fd)) = (events, &local.fd) else { return };
        let pace = local.pace;
        if events & libc::POLLPRI as u32 != 0
            && let (Some(byte), Some(stream)) = (net::take_urgent(fd), local.stream)
        {
            let tunnel = local.tunnel;
            local.keep_urgent(byte);
            if let Some(tunnel) = self.tunnels.get_mut(tunnel) {
                tunnel.session_mut().urgent(stream, byte);
            }
            self.tunnels.mark(tunnel);
        }
        let class = match pace {
            _ if events & !(libc::POLLPRI as u32) == 0 => return self.read_local(key),
            Pace::Spliced => return self.fill_from_local(key),
            Pace::Bulk => BufferClass::Bulk,
            Pace::Sparse | Pace::Busy => BufferClass::Small,
        };
        self.receive_local(key, RecvMode::Now, class);
    }

    /// Ends a local connection in good order.
    pub(in crate::worker) fn close_local(&mut self, key: Key) {
        let Some(local) = self.locals.remove(key) else { return };
        if let Some(fd) = local.fd {
            // Ends what is under way on it; the descriptor is closed when that has.
            net::shut_down(&fd);
        }
    }

    /// When patience with a local connection ends, if it does.
    pub(in crate::worker) fn set_deadline(&mut self, key: Key, deadline: Option<Moment>) {
        let Some(local) = self.locals.get_mut(key) else { return };
        local.deadline = deadline;
        if deadline.is_some() {
            self.cx.deadline_count += 1;
        }
    }
}

/// Whether so much payload is not to keep the buffer of this class that it came in: few are left, and
/// it would take little of it.
#[inline]
fn is_scarce(driver: &impl Driver, class: BufferClass, bytes: usize) -> bool {
    match class {
        BufferClass::Small => driver.free_buffers(class) < SMALL_BUFFERS_SCARCE,
        BufferClass::Bulk => {
            bytes <= PACKED_BYTES_MAX && driver.free_buffers(class) < BULK_BUFFERS_SCARCE
        }
    }
}
