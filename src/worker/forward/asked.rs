//! The table of ports requested by peers. Each is for the client of one stream.
//! [`crate::worker::forward::ports`] operates on it.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hashlink::LinkedHashMap;

use crate::io::driver::Fd;
use crate::limits::{PORT_WAIT_SECS, PORTS_ON_REQUEST_MAX, PORTS_PER_STREAM};
use crate::session::Moment;
use crate::worker::table::{Key, Table};

/// A forwarded port.
#[derive(Debug)]
pub(super) struct AskedPort {
    /// The client of the control stream.
    pub(super) owner: Key,
    /// The peer's number of the port within that stream.
    pub(super) request: u32,
    /// The address that may connect.
    pub(super) client: IpAddr,
    pub(super) socket: AskedSocket,
}

/// What a forwarded port accepts.
#[derive(Debug)]
pub(super) enum AskedSocket {
    /// One TCP connection.
    Listener(Fd),
    /// Datagrams, by the port of [`crate::worker::datagram`] at this address.
    Datagrams(SocketAddr),
}

/// All forwarded ports.
#[derive(Debug)]
pub(super) struct AskedPorts {
    table: Table<AskedPort>,
    by_owner: HashMap<Key, Vec<Key>>,
    /// Deadlines of listeners. All have the same timeout, so insertion order is the order of
    /// deadlines.
    waiting: LinkedHashMap<Key, Moment>,
}

impl AskedPorts {
    pub(super) fn new() -> AskedPorts {
        let table = Table::new(PORTS_ON_REQUEST_MAX);
        AskedPorts { table, by_owner: HashMap::new(), waiting: LinkedHashMap::new() }
    }

    /// Whether a client may have another port, by this number.
    ///
    /// # Errors
    /// The reason, for the peer.
    pub(super) fn may_add(&self, owner: Key, request: u32) -> Result<(), String> {
        let of_owner = self.by_owner.get(&owner).map_or(0, Vec::len);
        if of_owner >= PORTS_PER_STREAM {
            return Err(format!("the stream has {PORTS_PER_STREAM} ports on request already"));
        }
        if self.find(owner, request).is_some() {
            return Err(format!("the stream has a port number {request} already"));
        }
        if self.table.len() >= PORTS_ON_REQUEST_MAX {
            return Err(format!("{PORTS_ON_REQUEST_MAX} ports are open on request already"));
        }
        Ok(())
    }

    /// Adds a port. `None`: the table is full.
    pub(super) fn insert(&mut self, port: AskedPort, now: Moment) -> Option<Key> {
        let owner = port.owner;
        let waits = matches!(port.socket, AskedSocket::Listener(_));
        let key = self.table.insert(port)?;
        self.by_owner.entry(owner).or_default().push(key);
        if waits {
            self.waiting.insert(key, now.after(Duration::from_secs(PORT_WAIT_SECS)));
        }
        Some(key)
    }

    pub(super) fn get(&self, key: Key) -> Option<&AskedPort> {
        self.table.get(key)
    }

    pub(super) fn remove(&mut self, key: Key) -> Option<AskedPort> {
        let port = self.table.remove(key)?;
        self.waiting.remove(&key);
        if let Some(ports) = self.by_owner.get_mut(&port.owner) {
            ports.retain(|&of_owner| of_owner != key);
            if ports.is_empty() {
                self.by_owner.remove(&port.owner);
            }
        }
        Some(port)
    }

    /// The port of a client by the peer's number.
    pub(super) fn find(&self, owner: Key, request: u32) -> Option<Key> {
        let has_number = |key: &&Key| self.table.get(**key).is_some_and(|p| p.request == request);
        self.by_owner.get(&owner)?.iter().find(has_number).copied()
    }

    /// Any port of a client.
    pub(super) fn any_of(&self, owner: Key) -> Option<Key> {
        self.by_owner.get(&owner)?.first().copied()
    }

    /// The listener with the earliest deadline.
    pub(super) fn next_due(&self) -> Option<(Key, Moment)> {
        self.waiting.front().map(|(&key, &until)| (key, until))
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::OwnedFd;

    use super::*;
    use crate::io::net;

    fn port(owner: Key, request: u32, listens: bool) -> AskedPort {
        let fd = OwnedFd::from(UdpSocket::bind("127.0.0.1:0").unwrap());
        let socket = match listens {
            true => AskedSocket::Listener(Fd::new(fd)),
            false => AskedSocket::Datagrams(net::local_address(&fd)),
        };
        AskedPort { owner, request, client: [127, 0, 0, 1].into(), socket }
    }

    #[test]
    fn listeners_wait_for_a_while_and_datagrams_for_ever() {
        let mut ports = AskedPorts::new();
        let owner = Key::unpack(7);
        let wait_micros = PORT_WAIT_SECS * 1_000_000;
        let first = ports.insert(port(owner, 1, true), Moment(5)).unwrap();
        ports.insert(port(owner, 2, false), Moment(6)).unwrap();
        let last = ports.insert(port(owner, 3, true), Moment(7)).unwrap();
        assert_eq!(ports.next_due(), Some((first, Moment(5 + wait_micros))));
        assert!(ports.remove(first).is_some() && ports.remove(first).is_none());
        assert_eq!(ports.next_due(), Some((last, Moment(7 + wait_micros))));
        ports.remove(last);
        assert_eq!(ports.next_due(), None);
    }

    #[test]
    fn ports_are_found_by_their_stream_and_bounded_for_each() {
        let mut ports = AskedPorts::new();
        let [one, other] = [7, 8].map(Key::unpack);
        for request in 0..PORTS_PER_STREAM as u32 {
            assert_eq!(ports.may_add(one, request), Ok(()));
            ports.insert(port(one, request, request % 2 == 0), Moment(0)).unwrap();
            assert!(ports.may_add(one, request).is_err(), "the number is in use");
        }
        assert!(ports.may_add(one, 99).is_err());
        assert_eq!(ports.may_add(other, 0), Ok(()));
        assert_eq!((ports.find(one, 99), ports.find(other, 0)), (None, None));
        let found = ports.find(one, 2).unwrap();
        assert_eq!(ports.remove(found).unwrap().request, 2);
        assert_eq!(ports.may_add(one, 2), Ok(()));
        let mut left = 0;
        while let Some(key) = ports.any_of(one) {
            ports.remove(key);
            left += 1;
        }
        assert_eq!(left, PORTS_PER_STREAM - 1);
        assert!(ports.by_owner.is_empty() && ports.waiting.is_empty());
    }
}
