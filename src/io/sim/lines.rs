//! Serial lines: two devices, and a line between them that damages what passes.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use super::conn::{Conn, Side, Socket};
use super::{Kernel, Object};

impl Kernel {
    /// The devices at both ends of a line, of workers 0 and 1. `address` stands for the line where
    /// something is done to it.
    pub(crate) fn line(&mut self, address: SocketAddr) -> io::Result<[OwnedFd; 2]> {
        let index = self.conns.len();
        let sockets = [Socket::new(address, true), Socket::new(address, true)];
        self.conns.push(Conn { is_line: true, ..Conn::new(sockets) });
        self.set_owner(0);
        let near = self.open(Object::Conn(index, Side::Near))?;
        self.set_owner(1);
        let far = self.open(Object::Conn(index, Side::Far))?;
        Ok([near, far])
    }

    /// What of these bytes arrives at the other end: one changed, lost, or too many, or the rest
    /// lost.
    pub(super) fn damaged(&mut self, mut bytes: Vec<u8>) -> Vec<u8> {
        if bytes.is_empty() || !self.happens(self.conditions.noise) {
            return bytes;
        }
        self.damages += 1;
        let at = self.rng.usize(..bytes.len());
        match self.rng.u8(..4) {
            0 => bytes[at] ^= 1 << self.rng.u8(..8),
            1 => drop(bytes.remove(at)),
            2 => bytes.insert(at, self.rng.u8(..)),
            _ => bytes.truncate(at),
        }
        bytes
    }

    /// How often a line has damaged something.
    pub(crate) fn damages(&self) -> u64 {
        self.damages
    }
}
