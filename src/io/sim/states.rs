//! What can be asked of a descriptor.

use std::net::SocketAddr;
use std::os::fd::RawFd;

use super::conn::Side;
use super::{Kernel, Object, mask};
use crate::wire::NO_ADDRESS;

impl Kernel {
    /// Events of a descriptor, as in poll(2).
    pub(crate) fn events(&self, fd: RawFd) -> u32 {
        match self.object(fd) {
            Some(Object::Conn(conn, side)) => self.conns[conn].events(side, self.socket_bytes()),
            Some(Object::PipeReader(pipe)) => self.pipes[pipe].events(true, self.pipe_slots()),
            Some(Object::PipeWriter(pipe)) => self.pipes[pipe].events(false, self.pipe_slots()),
            Some(Object::Listener(at)) => {
                let listener = &self.listeners[at];
                let is_ready = listener.is_shut || !listener.backlog.is_empty();
                if is_ready { libc::POLLIN as u32 } else { 0 }
            }
            Some(Object::Datagrams(at)) => {
                let waits = if self.datagrams[at].queue.is_empty() { 0 } else { libc::POLLIN };
                mask(libc::POLLOUT | waits)
            }
            Some(Object::Socket | Object::Placeholder) | None => 0,
        }
    }

    /// Grows with whatever could make an edge for a poll of a descriptor.
    pub(super) fn edge(&self, fd: RawFd) -> u64 {
        match self.object(fd) {
            Some(Object::Conn(conn, side)) => {
                let ways = &self.conns[conn].ways;
                ways[side.other() as usize].edges[0] + ways[side as usize].edges[1]
            }
            Some(Object::PipeReader(pipe) | Object::PipeWriter(pipe)) => self.pipes[pipe].edge,
            Some(Object::Datagrams(at)) => self.datagrams[at].edge,
            _ => 0,
        }
    }

    /// Bytes that wait to be read.
    pub(crate) fn waiting_bytes(&mut self, fd: RawFd) -> usize {
        match self.object(fd) {
            Some(Object::Conn(conn, side)) => self.conns[conn].incoming(side).queue.len(),
            Some(Object::PipeReader(pipe) | Object::PipeWriter(pipe)) => {
                self.pipes[pipe].len_bytes()
            }
            _ => 0,
        }
    }

    /// Bytes that were sent and have not arrived.
    pub(crate) fn unsent_bytes(&mut self, fd: RawFd) -> usize {
        match self.object(fd) {
            Some(Object::Conn(conn, side)) => self.conns[conn].outgoing(side).transit_bytes,
            _ => 0,
        }
    }

    /// Own address and the peer's.
    pub(crate) fn addresses(&mut self, fd: RawFd) -> (SocketAddr, SocketAddr) {
        match self.object(fd) {
            Some(Object::Conn(conn, side)) => {
                let of = |side: Side| self.conns[conn].sockets[side as usize].address;
                (of(side), of(side.other()))
            }
            Some(Object::Listener(at)) => (self.listeners[at].address, NO_ADDRESS),
            Some(Object::Datagrams(at)) => {
                let socket = &self.datagrams[at];
                (socket.address, socket.peer.unwrap_or(NO_ADDRESS))
            }
            _ => (NO_ADDRESS, NO_ADDRESS),
        }
    }
}
