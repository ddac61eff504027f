//! The calls that return at once, what actors of a script do, and what closing means.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use super::conn::{Conn, Side, Socket};
use super::pipes::SLOT_BYTES;
use super::{Kernel, Listener, Object, again, error};
use crate::narrow::to_u16;

impl Kernel {
    /// A descriptor for an object, owned by the worker whose turn it is.
    pub(super) fn open(&mut self, object: Object) -> io::Result<OwnedFd> {
        let limit = usize::from(self.conditions.descriptors);
        if limit > 0 {
            // Of what is given up for a socket another process has one sooner.
            let most = limit - usize::from(object == Object::Socket);
            // Some may have been closed a moment ago.
            self.reap_closed();
            if self.open_descriptors(self.owner) >= most {
                return error(libc::EMFILE);
            }
        }
        let fd = self.descriptors.make()?;
        self.objects.insert(fd.as_raw_fd(), (self.owner, object));
        self.changed();
        Ok(fd)
    }

    /// Gives a descriptor to another worker.
    pub(crate) fn give_to(&mut self, fd: RawFd, owner: usize) {
        if let Some((of, _)) = self.objects.get_mut(&fd) {
            *of = owner;
        }
    }

    /// Sockets of a worker that are or may be connected.
    pub(crate) fn open_conns(&self, owner: usize) -> usize {
        let is_such = |&&(of, object): &&(usize, Object)| {
            of == owner && matches!(object, Object::Conn(..) | Object::Socket)
        };
        self.objects.values().filter(is_such).count()
    }

    pub(crate) fn placeholder(&mut self) -> io::Result<OwnedFd> {
        self.open(Object::Placeholder)
    }

    /// How many descriptors a worker may have.
    pub(crate) fn descriptor_limit(&self) -> u64 {
        match self.conditions.descriptors {
            0 => u64::MAX,
            most => u64::from(most),
        }
    }

    /// A socket that is to connect.
    pub(crate) fn stream_socket(&mut self) -> io::Result<OwnedFd> {
        self.open(Object::Socket)
    }

    /// A listening socket of the worker whose turn it is.
    pub(crate) fn listen(&mut self, address: SocketAddr) -> io::Result<OwnedFd> {
        let index = self.listen_as_actor(address);
        self.open(Object::Listener(index))
    }

    /// A listening socket of an actor.
    pub(crate) fn listen_as_actor(&mut self, address: SocketAddr) -> usize {
        let backlog = std::collections::VecDeque::new();
        self.listeners.push(Listener { address, backlog, is_open: true, is_shut: false });
        self.listeners.len() - 1
    }

    /// From now on connections to this address are neither accepted nor refused.
    pub(crate) fn silence(&mut self, address: SocketAddr) {
        self.silent.push(address);
    }

    /// Whether nobody answers there.
    pub(super) fn is_silent(&self, address: SocketAddr) -> bool {
        self.silent.contains(&address)
    }

    /// Connects to whoever listens there: the connection, whose near side is the caller's.
    pub(crate) fn connect(&mut self, address: SocketAddr) -> io::Result<usize> {
        let listens = |l: &Listener| l.address == address && l.is_open && !l.is_shut;
        let Some(at) = self.listeners.iter().position(listens) else {
            return error(libc::ECONNREFUSED);
        };
        self.changed();
        let index = self.conns.len();
        let port = 20_000 + to_u16(index % 40_000);
        let own = SocketAddr::from((Ipv4Addr::new(10, 0, 0, 1), port));
        let mut socket = |address| {
            let refuses = self.happens(self.conditions.no_splice);
            Socket::new(address, refuses)
        };
        let sockets = [socket(own), socket(address)];
        self.conns.push(Conn::new(sockets));
        self.listeners[at].backlog.push_back(index);
        self.trace(|| format!("connection {index} to {address}"));
        Ok(index)
    }

    /// The next connection that waits at a listener.
    pub(crate) fn accept(&mut self, listener: usize) -> Option<usize> {
        let conn = self.listeners[listener].backlog.pop_front()?;
        self.changed();
        Some(conn)
    }

    /// As [`Kernel::accept`], with a descriptor.
    pub(crate) fn accept_fd(&mut self, fd: RawFd) -> io::Result<OwnedFd> {
        let Some(Object::Listener(index)) = self.object(fd) else { return error(libc::EINVAL) };
        if self.listeners[index].is_shut {
            return error(libc::EINVAL);
        }
        if self.listeners[index].backlog.is_empty() {
            return again();
        }
        // Without a descriptor to be had the connection stays in the queue.
        let socket = self.open(Object::Conn(usize::MAX, Side::Far))?;
        if let Some(conn) = self.accept(index) {
            let owner = self.owner;
            self.objects.insert(socket.as_raw_fd(), (owner, Object::Conn(conn, Side::Far)));
        }
        Ok(socket)
    }

    /// The descriptor is one side of a connection from now on.
    pub(super) fn become_conn(&mut self, fd: RawFd, conn: usize) {
        if let Some((_, object)) = self.objects.get_mut(&fd) {
            *object = Object::Conn(conn, Side::Near);
        }
    }

    /// The state of a connection, in short.
    pub(crate) fn describe(&self, conn: usize) -> String {
        let conn = &self.conns[conn];
        let of = |side: Side| {
            let (socket, way) = (&conn.sockets[side as usize], &conn.ways[side as usize]);
            format!(
                "{side:?}: closed {} reset {} shut {} {}, sent {} on the way, {} queued, ended {}",
                socket.closed,
                socket.reset,
                socket.read_shut,
                socket.write_shut,
                way.transit_bytes,
                way.queue.len(),
                way.ended,
            )
        };
        format!("{}; {}", of(Side::Near), of(Side::Far))
    }

    /// Connections to this address, which are not over.
    pub(crate) fn conns_to(&self, address: SocketAddr) -> Vec<usize> {
        let is_such = |conn: &Conn| conn.sockets[1].address == address && !conn.over;
        (0..self.conns.len()).filter(|&at| is_such(&self.conns[at])).collect()
    }

    /// Both sides of a connection find it broken.
    pub(crate) fn cut(&mut self, conn: usize) {
        self.changed();
        for side in [Side::Near, Side::Far] {
            self.conns[conn].broken(side, libc::ETIMEDOUT);
        }
    }

    /// Nothing arrives on a connection, or everything does again.
    pub(crate) fn freeze(&mut self, conn: usize, frozen: bool) {
        self.conns[conn].frozen = frozen;
        self.deliver();
    }

    pub(super) fn socket_bytes(&self) -> usize {
        self.conditions.socket_bytes.max(1) as usize
    }

    /// Sends as a side of a connection: how many bytes were taken.
    pub(crate) fn send_as(&mut self, conn: usize, side: Side, bytes: &[u8]) -> io::Result<usize> {
        let room_bytes = self.check_conn_writable(conn, side)?;
        let part = self.part_of(bytes.len().min(room_bytes));
        if part == 0 {
            return again();
        }
        self.put_into_conn(conn, side, bytes[..part].to_vec());
        Ok(part)
    }

    /// Receives as a side of a connection: nothing is the end of data.
    pub(crate) fn receive_as(
        &mut self,
        conn: usize,
        side: Side,
        most_bytes: usize,
    ) -> io::Result<Vec<u8>> {
        let most = self.part_of(most_bytes);
        self.take_from_conn(conn, side, most)
    }

    /// Whether a side can send.
    fn check_conn_writable(&mut self, conn: usize, side: Side) -> io::Result<usize> {
        let most_bytes = self.socket_bytes();
        let room_bytes = self.conns[conn].room(side, most_bytes);
        let socket = self.conns[conn].socket(side);
        if let Some(number) = socket.error.take() {
            return error(number);
        }
        if socket.reset || socket.write_shut {
            return error(libc::EPIPE);
        }
        if room_bytes == 0 { again() } else { Ok(room_bytes) }
    }

    /// Bytes that may be written to a descriptor.
    pub(super) fn check_writable(&mut self, fd: RawFd) -> io::Result<usize> {
        match self.object(fd) {
            Some(Object::Conn(conn, side)) => self.check_conn_writable(conn, side),
            Some(Object::PipeWriter(pipe)) if self.pipes[pipe].reader_closed => error(libc::EPIPE),
            Some(Object::PipeWriter(pipe)) => {
                let slots = self.pipe_slots();
                let free = slots.saturating_sub(self.pipes[pipe].slots.len());
                if free == 0 { again() } else { Ok(free * SLOT_BYTES) }
            }
            Some(Object::Socket) => error(libc::ENOTCONN),
            _ => error(libc::EBADF),
        }
    }

    pub(super) fn put(&mut self, to: RawFd, bytes: Vec<u8>) {
        self.changed();
        match self.object(to) {
            Some(Object::Conn(conn, side)) => self.put_into_conn(conn, side, bytes),
            Some(Object::PipeWriter(pipe)) => self.put_into_pipe(pipe, bytes),
            _ => unreachable!("checked to be writable"),
        }
    }

    fn put_into_conn(&mut self, conn: usize, side: Side, bytes: Vec<u8>) {
        self.changed();
        self.trace(|| format!("{} bytes into connection {conn}, {side:?}", bytes.len()));
        let at = self.now_micros + self.latency();
        let bytes = if self.conns[conn].is_line { self.damaged(bytes) } else { bytes };
        let way = self.conns[conn].outgoing(side);
        way.last_at = way.last_at.max(at);
        if bytes.is_empty() {
            return;
        }
        way.transit_bytes += bytes.len();
        way.transit.push_back((way.last_at, bytes));
    }

    pub(super) fn take(&mut self, from: RawFd, most_bytes: usize) -> io::Result<Vec<u8>> {
        match self.object(from) {
            Some(Object::Conn(conn, side)) => self.take_from_conn(conn, side, most_bytes),
            Some(Object::PipeReader(pipe)) => {
                let taken = self.take_from_pipe(pipe, most_bytes)?;
                self.changed();
                Ok(taken)
            }
            Some(Object::Socket) => error(libc::ENOTCONN),
            _ => error(libc::EBADF),
        }
    }

    fn take_from_conn(
        &mut self,
        conn: usize,
        side: Side,
        most_bytes: usize,
    ) -> io::Result<Vec<u8>> {
        let (now, number) = (self.now_micros, conn);
        let capacity = self.socket_bytes();
        let conn = &mut self.conns[conn];
        let (socket, way) =
            (&mut conn.sockets[side as usize], &mut conn.ways[side.other() as usize]);
        let part = way.queue.len().min(most_bytes);
        if part > 0 && !socket.read_shut {
            let taken = way.queue[..part].to_vec();
            way.queue.drain(..part);
            way.edges[1] += 1;
            conn.deliver(now, capacity);
            self.changed();
            self.trace(|| format!("{part} bytes from connection {number}, {side:?}"));
            return Ok(taken);
        }
        if let Some(errno) = socket.error.take() {
            self.changed();
            self.trace(|| format!("error {errno} of connection {number}, {side:?}"));
            return error(errno);
        }
        if way.ended || socket.read_shut || socket.reset { Ok(Vec::new()) } else { again() }
    }

    /// Reads, or receives, from a descriptor.
    pub(crate) fn read(&mut self, from: RawFd, most_bytes: usize) -> io::Result<Vec<u8>> {
        // A pipe gives what it holds.
        let is_pipe = matches!(self.object(from), Some(Object::PipeReader(_)));
        if !is_pipe && self.happens(self.conditions.again) {
            return again();
        }
        let most = self.part_of(most_bytes);
        self.take(from, most)
    }

    /// As [`Kernel::read`], into memory of the caller's.
    pub(crate) fn read_into(&mut self, from: RawFd, room: &mut [u8]) -> io::Result<usize> {
        let bytes = self.read(from, room.len())?;
        room[..bytes.len()].copy_from_slice(&bytes);
        Ok(bytes.len())
    }

    /// Whether a descriptor is a socket.
    pub(crate) fn is_socket(&self, fd: RawFd) -> bool {
        match self.object(fd) {
            Some(Object::Conn(conn, _)) => !self.conns[conn].is_line,
            object => matches!(object, Some(Object::Socket | Object::Listener(_))),
        }
    }

    /// Writes, or sends, to a descriptor.
    pub(crate) fn write<'a>(
        &mut self,
        to: RawFd,
        parts: impl Iterator<Item = &'a [u8]>,
    ) -> io::Result<usize> {
        if self.happens(self.conditions.again) {
            return again();
        }
        let room_bytes = self.check_writable(to)?;
        let mut bytes: Vec<u8> = Vec::new();
        for part in parts {
            let left = room_bytes - bytes.len();
            bytes.extend_from_slice(&part[..part.len().min(left)]);
        }
        let taken = self.part_of(bytes.len());
        bytes.truncate(taken);
        if taken > 0 {
            self.put(to, bytes);
        }
        Ok(taken)
    }

    /// Ends what is sent, what is received, or both.
    pub(crate) fn shut_down(&mut self, fd: RawFd, how: std::net::Shutdown) {
        use std::net::Shutdown::{Both, Read, Write};
        match self.object(fd) {
            Some(Object::Listener(at)) => self.listeners[at].is_shut = true,
            Some(Object::Conn(conn, side)) => {
                if matches!(how, Write | Both) {
                    self.end_as(conn, side);
                }
                if matches!(how, Read | Both) {
                    self.conns[conn].socket(side).read_shut = true;
                    self.conns[conn].incoming(side).edges[0] += 1;
                }
            }
            _ => return,
        }
        self.changed();
    }

    /// Makes the close that follows a reset.
    pub(crate) fn reset_on_close(&mut self, fd: RawFd) {
        if let Some(Object::Conn(conn, side)) = self.object(fd) {
            self.conns[conn].socket(side).lingers = true;
        }
    }

    /// Moves what has arrived.
    pub(super) fn deliver(&mut self) {
        let (now, most_bytes) = (self.now_micros, self.socket_bytes());
        let mut moved = false;
        for conn in self.conns.iter_mut().filter(|conn| !conn.over) {
            moved |= conn.deliver(now, most_bytes);
        }
        if moved {
            self.changed();
        }
        self.deliver_datagrams();
    }

    /// When something arrives next.
    pub(crate) fn next_arrival(&self) -> Option<u64> {
        let most_bytes = self.socket_bytes();
        let conns = self.conns.iter().filter(|conn| !conn.over);
        let lookups = self.lookups.iter().map(|&(_, at)| at).filter(|&at| at > self.now_micros);
        conns
            .filter_map(|conn| conn.next_arrival(most_bytes))
            .chain(lookups)
            .chain(self.next_datagram())
            .min()
    }
}
