//! What came from the link to local sockets.
//!
//! What was delivered is sent from the buffer in which it came, without waiting. What the socket
//! does not take is copied into buffers of our own, so that a slow reader never holds the link's,
//! and is sent when there is room. What stands in a pipe goes by [`crate::worker::tunnel::splice`].

use std::io;

use tracing::warn;

use crate::io::chunk::Chunk;
use crate::io::direct;
use crate::io::driver::{Driver, Gather, SendWait};
use crate::io::net;
use crate::limits::LOCAL_PARTS;
use crate::worker::log_limit::Class;
use crate::worker::stream::local::Stage;
use crate::worker::stream::pieces::Piece;
use crate::worker::token::Kind;
use crate::worker::{Key, Worker};

impl<D: Driver> Worker<D> {
    /// Payload from the link for a local socket.
    #[inline]
    pub(in crate::worker) fn deliver(&mut self, key: Key, chunk: Chunk) {
        let Some(local) = self.locals.get_mut(key) else {
            self.cx.counters.stale += 1;
            return;
        };
        if local.broken.is_some() {
            // It takes no more. The peer is allowed no more either.
            return;
        }
        let waits = local.stalled || local.waiting || !matches!(local.stage, Stage::Open);
        if waits {
            if matches!(local.stage, Stage::Talking(_)) {
                return self.client_said(key, &chunk);
            }
            // A slow reader, or an exit that has not reached its server: the link needs its
            // buffer back.
            if !self.cx.buffers.spill(&chunk, &mut local.spill, &mut local.output) {
                self.out_of_buffers(key);
                return;
            }
        } else {
            local.output.push_chunk(chunk);
        }
        self.mark_local(key);
    }

    pub(in crate::worker) fn deliver_urgent(&mut self, key: Key, bytes: &[u8]) {
        let Some(local) = self.locals.get_mut(key) else { return };
        match (&local.stage, &local.fd, bytes.last()) {
            // TCP keeps one urgent byte, the last, and so do we until the server is reached.
            (Stage::Asking | Stage::Dialing(_), _, Some(&byte)) => local.urgent = Some(byte),
            (Stage::Open, Some(fd), Some(&byte)) => {
                if let Err(error) = net::send_urgent(fd, byte) {
                    self.local_takes_no_more(key, Some(&error));
                }
            }
            _ => {}
        }
    }

    /// The local connection may have output to write, or an end to make.
    #[inline]
    pub(in crate::worker) fn mark_local(&mut self, key: Key) {
        let Some(local) = self.locals.get_mut(key) else { return };
        if !local.dirty {
            local.dirty = true;
            self.dirty_locals.push(key);
        }
    }

    /// Writes what was delivered, or ends what has nothing left to write.
    pub(in crate::worker) fn write_local(&mut self, key: Key) {
        loop {
            let Some(local) = self.locals.get_mut(key) else { return };
            let Some(fd) = &local.fd else { return };
            if local.sending || matches!(local.stage, Stage::Dialing(_)) {
                return;
            }
            if local.output.is_empty() {
                self.output_done(key);
                return;
            }
            if local.output.begins_in_pipe() {
                if !self.pass_on(key) {
                    return;
                }
                continue;
            }
            let mut gather = self.cx.buffers.take_gather();
            while gather.parts() < LOCAL_PARTS {
                let Some(chunk) = local.output.pop_chunk() else { break };
                gather.push(chunk);
            }
            if local.stalled || !local.output.begins_in_pipe() {
                local.sending = true;
                let wait = if local.stalled { SendWait::Yes } else { SendWait::No };
                self.cx.driver.send(fd, gather, wait, Kind::LocalSend.of(key));
                return;
            }
            // What follows is spliced, and this is sent with it.
            self.cx.counters.direct_sends += 1;
            let result = direct::send(fd, &mut gather, true);
            let all = result.as_ref().is_ok_and(|&bytes| bytes == gather.len_bytes());
            self.local_sent(key, result, gather);
            if !all {
                self.wait_for_room(key);
            }
        }
    }

    /// A socket in bulk did not take all it was given: it is watched, and what comes meanwhile
    /// still goes into its pipe.
    pub(in crate::worker) fn wait_for_room(&mut self, key: Key) {
        let Some(local) = self.locals.get_mut(key) else { return };
        let Some(fd) = &local.fd else { return };
        local.stalled = false;
        local.waiting = true;
        local.sending = true;
        self.cx.driver.poll(fd, libc::POLLOUT as u32, false, Kind::LocalWritable.of(key));
    }

    pub(in crate::worker) fn local_sent(
        &mut self,
        key: Key,
        result: io::Result<usize>,
        gather: Box<Gather>,
    ) {
        let local = self.locals.get_mut(key);
        let end_doubtful = local.is_some_and(|local| std::mem::take(&mut local.end_doubtful));
        self.local_took(key, result, gather);
        if end_doubtful {
            self.read_local(key);
        }
    }

    fn local_took(&mut self, key: Key, result: io::Result<usize>, mut gather: Box<Gather>) {
        let now = self.cx.now;
        let Some(local) = self.locals.get_mut(key) else {
            self.cx.buffers.give_back(gather);
            self.cx.counters.stale += 1;
            return;
        };
        local.sending = false;
        if local.fd.is_none() {
            // The socket was given up meanwhile, and the session knows.
            return self.cx.buffers.give_back(gather);
        }
        let bytes = match result {
            Ok(bytes) => bytes,
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => 0,
            Err(error) => {
                self.cx.buffers.give_back(gather);
                return self.writing_failed(key, &error);
            }
        };
        gather.advance(bytes);
        local.last_data = now;
        let (tunnel, stream, mixed) = (local.tunnel, local.stream, local.own_bytes > 0);
        let mut kept = true;
        if !gather.is_empty() {
            kept = self.put_back(key, &mut gather);
        }
        self.cx.buffers.give_back(gather);
        let taken = if mixed { self.delivered_part(key, bytes as u64) } else { bytes as u64 };
        if let (Some(tunnel), Some(stream)) = (self.tunnels.get_mut(tunnel), stream) {
            tunnel.session_mut().taken(stream, taken, now);
        }
        self.tunnels.mark(tunnel);
        if kept {
            self.mark_local(key);
        } else {
            self.out_of_buffers(key);
        }
    }

    /// What the socket did not take goes back to the front of the output, all of which is now kept
    /// in buffers of our own. `false`: there are none left.
    fn put_back(&mut self, key: Key, gather: &mut Gather) -> bool {
        let Some(local) = self.locals.get_mut(key) else { return true };
        if local.stalled {
            // All of it is in our own buffers already.
            for chunk in gather.drain().rev() {
                local.output.push_chunk_front(chunk);
            }
            return true;
        }
        local.stalled = true;
        let newer = local.output.take_queue();
        let (kit, spill, output) = (&self.cx.buffers, &mut local.spill, &mut local.output);
        let mut keep = |chunk: Chunk| kit.spill(&chunk, spill, output);
        if !gather.drain().all(&mut keep) {
            return false;
        }
        newer.into_iter().all(|piece| match piece {
            Piece::Chunk(chunk) => kit.spill(&chunk, spill, output),
            Piece::Piped(bytes) => {
                output.push_piped(bytes);
                true
            }
        })
    }

    pub(in crate::worker) fn out_of_buffers(&mut self, key: Key) {
        self.cx.counters.spill_exhausted += 1;
        if self.cx.may_log(Class::Shortage)
            && let Some(local) = self.locals.get(key)
        {
            let free_buffers = self.cx.buffers.free_buffers();
            warn!(client = %local.client, free_buffers, "slow readers use up the buffers: stream reset");
        }
        self.local_failed(key, "out of buffers", &io::Error::from(io::ErrorKind::OutOfMemory));
    }

    /// All that was delivered is written.
    fn output_done(&mut self, key: Key) {
        let Some(local) = self.locals.get_mut(key) else { return };
        let linger = self.cx.plan.timeouts_of(local.exit).linger;
        let linger = linger.map(|linger| self.cx.now.after(linger));
        debug_assert!(local.output_is_empty());
        local.stalled = false;
        local.spill = None;
        match local.stage {
            Stage::Flushing { then_reset: true } => self.reset_after_output(key),
            Stage::Settling => {}
            Stage::Flushing { then_reset: false } if local.read_ended => self.close_local(key),
            Stage::Flushing { then_reset: false } => {
                if let Some(fd) = &local.fd {
                    net::shut_down_write(fd);
                }
                local.stage = Stage::Lingering;
                local.end_after_output = false;
                self.set_deadline(key, linger);
                self.read_local(key);
            }
            _ => {
                if std::mem::take(&mut local.end_after_output)
                    && let Some(fd) = &local.fd
                {
                    net::shut_down_write(fd);
                }
                if matches!(local.stage, Stage::Talking(_)) {
                    self.tell_held(key);
                }
            }
        }
    }
}
