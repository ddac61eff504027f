//! How connections end.

use super::conn::Side;
use super::descriptors::Descriptors;
use super::{Kernel, Object};

impl Kernel {
    /// Ends what a side of a connection sends.
    pub(crate) fn end_as(&mut self, conn: usize, side: Side) {
        self.changed();
        self.trace(|| format!("end of connection {conn}, {side:?}"));
        let at = self.now_micros + self.latency();
        let conn = &mut self.conns[conn];
        conn.socket(side).write_shut = true;
        let way = conn.outgoing(side);
        if way.end_at.is_none() {
            way.last_at = way.last_at.max(at);
            way.end_at = Some(way.last_at);
        }
    }

    /// Closes a side of a connection: in order, or by a reset if it was asked for or something was
    /// not read.
    pub(crate) fn close_as(&mut self, conn: usize, side: Side, by_reset: bool) {
        self.changed();
        self.trace(|| format!("close of connection {conn}, {side:?}: {}", self.describe(conn)));
        let (now, later) = (self.now_micros, self.now_micros + self.latency());
        let unread = !self.conns[conn].incoming(side).queue.is_empty();
        let this = &mut self.conns[conn];
        let is_line = this.is_line;
        let socket = this.socket(side);
        socket.closed = true;
        if is_line {
            return;
        }
        let resets = by_reset || socket.lingers || unread;
        let (lingers, is_reset) = (by_reset || socket.lingers, socket.reset);
        let resets = resets && !is_reset;
        if resets {
            let way = this.outgoing(side);
            if lingers {
                // What has not left is dropped, an end of data with it.
                way.end_at.take_if(|end_at| *end_at > now);
                way.transit.retain(|&(at, _)| at <= now);
                way.transit_bytes = way.transit.iter().map(|(_, bytes)| bytes.len()).sum();
            }
            let at = way.last_at.max(later);
            this.socket(side.other()).reset_at.get_or_insert(at);
        } else if !is_reset {
            self.end_as(conn, side);
        }
        let conn = &mut self.conns[conn];
        conn.over = conn.sockets.iter().all(|socket| socket.closed);
    }

    /// Takes note of the descriptors that were closed since.
    pub(crate) fn reap_closed(&mut self) {
        for fd in Descriptors::closed(self.objects.keys().copied()) {
            let Some((_, object)) = self.objects.remove(&fd) else { continue };
            self.changed();
            match object {
                Object::Conn(conn, side) => self.close_as(conn, side, false),
                Object::Listener(at) => {
                    self.listeners[at].is_open = false;
                    while let Some(conn) = self.listeners[at].backlog.pop_front() {
                        self.close_as(conn, Side::Far, true);
                    }
                }
                Object::PipeReader(pipe) => {
                    self.pipes[pipe].reader_closed = true;
                    self.pipes[pipe].slots.clear();
                    self.pipes[pipe].edge += 1;
                }
                Object::PipeWriter(pipe) => {
                    self.pipes[pipe].writer_closed = true;
                    self.pipes[pipe].edge += 1;
                }
                Object::Datagrams(at) => self.datagrams[at].is_open = false,
                Object::Socket | Object::Placeholder => {}
            }
        }
    }
}
