//! A UDP association of SOCKS (RFC 1928, section 7): a flow whose datagrams each name their
//! destination. This module is its state; [`super::association_io`] sends and receives.
//!
//! Datagrams are accepted only from addresses that the flow has recently sent to, as by a NAT with
//! address- and port-dependent filtering. Otherwise anyone who found the port could send to the
//! client, which could not tell the difference.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use hashlink::LinkedHashMap;

use crate::io::driver::Fd;
use crate::limits::{
    DESTINATIONS_PER_FLOW, NAME_HOLD_SECS, NAMELESS_BYTES, NAMELESS_DATAGRAMS, NAMES_PER_FLOW,
};
use crate::policy::destinations::Asker;
use crate::session::Moment;
use crate::worker::table::Key;

/// The server side of such a flow.
#[derive(Debug)]
pub(in crate::worker) struct UdpAssociation {
    /// Sends to any address of either family.
    pub(super) socket: Fd,
    /// The proxy session that requested the port. The association ends with it.
    pub(super) session: Key,
    pub(super) asker: Asker,
    /// Addresses sent to, most recently used last. `true`: permitted by address, not only through a
    /// name.
    sent_to: LinkedHashMap<SocketAddr, bool>,
    /// The last address that was refused.
    refused: Option<SocketAddr>,
    /// Look-ups refer to these by index.
    names: Vec<Name>,
    waiting: VecDeque<(usize, Vec<u8>)>,
    waiting_bytes: usize,
}

#[derive(Debug)]
struct Name {
    host: String,
    port: u16,
    found: Found,
    since: Moment,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// The look-up is in progress.
    NotYet,
    Address(SocketAddr),
    /// It has no permitted address.
    Nothing,
}

/// What is known of a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// Send to this address.
    Address(SocketAddr),
    /// Drop the datagram.
    Refused,
    /// The look-up of the name at this index is in progress: keep the datagram.
    NotYet(usize),
    /// A new name at this index: look it up and keep the datagram.
    Unknown(usize),
}

impl UdpAssociation {
    pub(super) fn new(socket: Fd, session: Key, asker: Asker) -> UdpAssociation {
        UdpAssociation {
            socket,
            session,
            asker,
            sent_to: LinkedHashMap::new(),
            refused: None,
            names: Vec::new(),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
        }
    }

    /// Whether an address is permitted. `None`: not decided yet.
    pub(super) fn may_reach(&self, address: SocketAddr) -> Option<bool> {
        match self.sent_to.get(&address) {
            Some(true) => Some(true),
            _ => (self.refused == Some(address)).then_some(false),
        }
    }

    /// Notes that an address is not permitted.
    pub(super) fn refuse(&mut self, address: SocketAddr) {
        self.refused = Some(address);
    }

    /// Notes that a datagram is sent to an address, so that its answers are accepted. Evicts the
    /// least recently used address.
    pub(super) fn send_to(&mut self, address: SocketAddr, by_address: bool) {
        if self.sent_to.back().is_some_and(|(&last, &by)| last == address && by >= by_address) {
            return;
        }
        let before = self.sent_to.remove(&address).unwrap_or(false);
        self.sent_to.insert(address, before || by_address);
        if self.sent_to.len() > DESTINATIONS_PER_FLOW {
            self.sent_to.pop_front();
        }
    }

    /// Whether answers from this address are accepted.
    pub(super) fn has_sent_to(&self, address: SocketAddr) -> bool {
        self.sent_to.contains_key(&address)
    }

    /// What is known of a name. `None`: too many look-ups in progress.
    pub(super) fn look_up(&mut self, host: &str, port: u16, now: Moment) -> Option<Known> {
        let hold = Duration::from_secs(NAME_HOLD_SECS);
        let is_it = |name: &Name| name.port == port && name.host.eq_ignore_ascii_case(host);
        if let Some(place) = self.names.iter().position(is_it) {
            let name = &mut self.names[place];
            return Some(match name.found {
                Found::NotYet => Known::NotYet(place),
                _ if name.since.after(hold) <= now => {
                    name.found = Found::NotYet;
                    Known::Unknown(place)
                }
                Found::Address(address) => Known::Address(address),
                Found::Nothing => Known::Refused,
            });
        }
        let name = Name { host: host.to_owned(), port, found: Found::NotYet, since: now };
        if self.names.len() < NAMES_PER_FLOW {
            self.names.push(name);
            return Some(Known::Unknown(self.names.len() - 1));
        }
        // An index with a look-up in progress is not reused: its result would be taken for another
        // name's.
        let known = self.names.iter().enumerate().filter(|(_, name)| name.found != Found::NotYet);
        let (place, _) = known.min_by_key(|(_, name)| name.since)?;
        self.names[place] = name;
        Some(Known::Unknown(place))
    }

    /// The name with a look-up in progress at an index.
    pub(super) fn name(&self, place: usize) -> Option<(&str, u16)> {
        let name = self.names.get(place).filter(|name| name.found == Found::NotYet)?;
        Some((&name.host, name.port))
    }

    /// Stores the result of a look-up: a permitted address, if any.
    pub(super) fn found(&mut self, place: usize, address: Option<SocketAddr>, now: Moment) {
        if let Some(name) = self.names.get_mut(place) {
            name.found = address.map_or(Found::Nothing, Found::Address);
            name.since = now;
        }
    }

    /// Keeps a datagram until the name at an index is resolved. Returns how many older ones were
    /// dropped.
    pub(super) fn keep(&mut self, place: usize, payload: &[u8]) -> u64 {
        self.waiting_bytes += payload.len();
        self.waiting.push_back((place, payload.to_vec()));
        let mut gone = 0;
        while self.waiting.len() > NAMELESS_DATAGRAMS || self.waiting_bytes > NAMELESS_BYTES {
            let Some((_, payload)) = self.waiting.pop_front() else { break };
            self.waiting_bytes -= payload.len();
            gone += 1;
        }
        gone
    }

    /// Takes the datagrams that wait for the name at an index.
    pub(super) fn take(&mut self, place: usize) -> Vec<Vec<u8>> {
        let (taken, left) =
            std::mem::take(&mut self.waiting).into_iter().partition(|&(of, _)| of == place);
        self.waiting = left;
        let taken: VecDeque<(usize, Vec<u8>)> = taken;
        let taken: Vec<_> = taken.into_iter().map(|(_, payload)| payload).collect();
        self.waiting_bytes -= taken.iter().map(Vec::len).sum::<usize>();
        taken
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::rc::Rc;

    use super::*;
    use crate::cli::plan::Caller;

    fn association() -> UdpAssociation {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let caller = Caller { client: None, entrance_port: None };
        let asker = Asker { caller, name: None, permits: None };
        UdpAssociation::new(Rc::new(OwnedFd::from(socket)), Key::unpack(0), asker)
    }

    fn address(port: usize) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port as u16))
    }

    #[test]
    fn answers_come_from_those_last_sent_to() {
        let mut association = association();
        assert!(!association.has_sent_to(address(1)));
        for port in 1..=DESTINATIONS_PER_FLOW {
            association.send_to(address(port), true);
        }
        association.send_to(address(1), true);
        association.send_to(address(1000), true);
        let known = [1, 2, 3, 1000].map(|port| association.has_sent_to(address(port)));
        assert_eq!(known, [true, false, true, true]);
        assert_eq!(association.sent_to.len(), DESTINATIONS_PER_FLOW);
    }

    #[test]
    fn where_a_name_may_lead_an_address_may_not() {
        let mut association = association();
        association.send_to(address(1), false);
        assert_eq!(association.may_reach(address(1)), None);
        association.refuse(address(1));
        assert_eq!(association.may_reach(address(1)), Some(false));
        assert!(association.has_sent_to(address(1)));
        association.send_to(address(2), true);
        association.send_to(address(2), false);
        assert_eq!(association.may_reach(address(2)), Some(true));
    }

    #[test]
    fn a_name_is_looked_up_once_in_a_while() {
        let mut association = association();
        let later = |secs: u64| Moment(0).after(Duration::from_secs(secs));
        assert_eq!(association.look_up("a.example", 53, later(0)), Some(Known::Unknown(0)));
        assert_eq!(association.look_up("A.example", 53, later(99)), Some(Known::NotYet(0)));
        assert_eq!(association.look_up("a.example", 54, later(0)), Some(Known::Unknown(1)));
        assert_eq!(association.name(0), Some(("a.example", 53)));
        association.found(0, Some(address(53)), later(100));
        association.found(1, None, later(100));
        let soon = later(99 + NAME_HOLD_SECS);
        let known = Known::Address(address(53));
        assert_eq!(association.look_up("a.example", 53, soon), Some(known));
        assert_eq!(association.look_up("a.example", 54, soon), Some(Known::Refused));
        assert_eq!(association.name(0), None);
        let late = later(100 + NAME_HOLD_SECS);
        assert_eq!(association.look_up("a.example", 53, late), Some(Known::Unknown(0)));
    }

    #[test]
    fn a_name_that_is_being_looked_up_keeps_its_place() {
        let mut association = association();
        for port in 0..NAMES_PER_FLOW {
            let known = association.look_up("a.example", port as u16, Moment(port as u64));
            assert_eq!(known, Some(Known::Unknown(port)));
        }
        assert_eq!(association.look_up("b.example", 1, Moment(100)), None);
        association.found(7, None, Moment(200));
        association.found(8, None, Moment(100));
        assert_eq!(association.look_up("b.example", 1, Moment(300)), Some(Known::Unknown(8)));
        assert_eq!(association.name(8), Some(("b.example", 1)));
    }

    #[test]
    fn what_waits_for_a_name_is_bounded() {
        let mut association = association();
        for byte in 0..NAMELESS_DATAGRAMS as u8 {
            assert_eq!(association.keep(usize::from(byte % 2), &[byte]), 0);
        }
        assert_eq!(association.keep(1, &[99]), 1);
        assert_eq!(association.take(0), [vec![2], vec![4], vec![6]]);
        assert_eq!(association.take(0), Vec::<Vec<u8>>::new());
        assert_eq!(association.keep(0, &vec![0; NAMELESS_BYTES]), 5);
        assert_eq!((association.waiting.len(), association.waiting_bytes), (1, NAMELESS_BYTES));
    }
}
