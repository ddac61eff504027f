//! Datagrams: sent, delayed, and dropped where a socket holds too many.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{OwnedFd, RawFd};

use super::{Kernel, Object, again, error};

/// Datagrams that a socket holds.
const QUEUE_MAX: usize = 256;

/// A datagram, and who sent it.
pub(crate) type Datagram = (SocketAddr, Vec<u8>);

/// A socket for datagrams. One without a descriptor is an actor's.
#[derive(Debug)]
pub(super) struct DatagramSocket {
    pub(super) address: SocketAddr,
    /// The only peer that it hears.
    pub(super) peer: Option<SocketAddr>,
    pub(super) queue: VecDeque<Datagram>,
    pub(super) is_open: bool,
    pub(super) edge: u64,
}

/// A datagram that has not arrived.
#[derive(Debug)]
pub(super) struct OnTheWay {
    at: u64,
    to: SocketAddr,
    datagram: Datagram,
}

impl Kernel {
    /// A socket for datagrams; port 0 is any. With a peer it is connected.
    pub(crate) fn datagram_socket(
        &mut self,
        address: SocketAddr,
        peer: Option<SocketAddr>,
    ) -> io::Result<OwnedFd> {
        let index = self.datagram_actor(address);
        self.datagrams[index].peer = peer;
        self.open(Object::Datagrams(index))
    }

    /// A socket of an actor.
    pub(crate) fn datagram_actor(&mut self, mut address: SocketAddr) -> usize {
        let index = self.datagrams.len();
        if address.port() == 0 {
            let port = 30_000 + crate::narrow::to_u16(crate::narrow::to_u32(index % 30_000));
            address = SocketAddr::from((Ipv4Addr::new(10, 0, 0, 2), port));
        }
        let queue = VecDeque::new();
        self.datagrams.push(DatagramSocket { address, peer: None, queue, is_open: true, edge: 0 });
        index
    }

    /// Sends a datagram from a descriptor, to its peer unless it says where.
    pub(crate) fn send_datagram(
        &mut self,
        fd: RawFd,
        to: Option<SocketAddr>,
        bytes: &[u8],
    ) -> io::Result<()> {
        if self.happens(self.conditions.again) {
            return again();
        }
        let Some(Object::Datagrams(index)) = self.object(fd) else { return error(libc::EBADF) };
        let Some(to) = to.or(self.datagrams[index].peer) else {
            return error(libc::EDESTADDRREQ);
        };
        self.send_datagram_as(index, to, bytes);
        Ok(())
    }

    /// Sends a datagram from an actor's socket.
    pub(crate) fn send_datagram_as(&mut self, index: usize, to: SocketAddr, bytes: &[u8]) {
        self.changed();
        let at = self.now_micros + self.latency();
        let datagram = (self.datagrams[index].address, bytes.to_vec());
        self.on_the_way.push(OnTheWay { at, to, datagram });
    }

    /// What has arrived at a descriptor, as many messages as are asked for at most. Of a connected
    /// socket nobody asks who sent them.
    pub(crate) fn receive_datagrams(
        &mut self,
        fd: RawFd,
        most: usize,
    ) -> io::Result<Vec<(Option<SocketAddr>, Vec<u8>)>> {
        if self.happens(self.conditions.again) {
            return again();
        }
        let Some(Object::Datagrams(index)) = self.object(fd) else { return error(libc::EBADF) };
        let is_connected = self.datagrams[index].peer.is_some();
        let most = self.part_of(most);
        let messages: Vec<_> = std::iter::from_fn(|| self.receive_datagram_as(index))
            .take(most)
            .map(|(from, bytes)| ((!is_connected).then_some(from), bytes))
            .collect();
        if messages.is_empty() { again() } else { Ok(messages) }
    }

    /// What has arrived at an actor's socket.
    pub(crate) fn receive_datagram_as(&mut self, index: usize) -> Option<Datagram> {
        let datagram = self.datagrams[index].queue.pop_front()?;
        self.changed();
        Some(datagram)
    }

    /// Moves the datagrams that have arrived.
    pub(super) fn deliver_datagrams(&mut self) {
        let (now, mut left) = (self.now_micros, Vec::new());
        for sent in std::mem::take(&mut self.on_the_way) {
            if sent.at > now {
                left.push(sent);
                continue;
            }
            self.changes += 1;
            let hears = |socket: &&mut DatagramSocket| {
                let from = sent.datagram.0;
                socket.is_open
                    && socket.address == sent.to
                    && socket.peer.is_none_or(|peer| peer == from)
            };
            if let Some(socket) = self.datagrams.iter_mut().find(hears)
                && socket.queue.len() < QUEUE_MAX
            {
                socket.queue.push_back(sent.datagram);
                socket.edge += 1;
            }
        }
        self.on_the_way = left;
    }

    /// When a datagram arrives next.
    pub(super) fn next_datagram(&self) -> Option<u64> {
        self.on_the_way.iter().map(|sent| sent.at).min()
    }
}
