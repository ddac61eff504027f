//! Addresses that do not answer, which are tried last.

use std::net::SocketAddr;
use std::time::Duration;

use hashlink::LinkedHashMap;

use crate::limits::{SILENT_ADDRESS_SECS, SILENT_ADDRESSES_MAX};
use crate::session::Moment;

/// Addresses that recently did not answer before the next one was tried. They are tried last for a
/// while, so that only the first connection is delayed. Others keep the order of the name server,
/// which balances load.
#[derive(Debug, Default)]
pub(in crate::worker) struct SilentAddresses {
    /// Expiry. All have the same lifetime, so insertion order is the order of expiry.
    until: LinkedHashMap<SocketAddr, Moment>,
}

impl SilentAddresses {
    /// This one has not answered before the next one was tried.
    pub(super) fn add(&mut self, address: SocketAddr, now: Moment) {
        self.until.remove(&address);
        if self.until.len() >= SILENT_ADDRESSES_MAX {
            self.until.pop_front();
        }
        self.until.insert(address, now.after(Duration::from_secs(SILENT_ADDRESS_SECS)));
    }

    /// The address has answered.
    pub(in crate::worker) fn remove(&mut self, address: SocketAddr) {
        if !self.until.is_empty() {
            self.until.remove(&address);
        }
    }

    /// Moves silent addresses to the end; the order is otherwise kept.
    pub(in crate::worker) fn put_last(&mut self, addresses: &mut [SocketAddr], now: Moment) {
        while self.until.front().is_some_and(|(_, &until)| until <= now) {
            self.until.pop_front();
        }
        if !self.until.is_empty() {
            addresses.sort_by_key(|address| self.until.contains_key(address));
        }
    }
}

#[cfg(test)]
impl SilentAddresses {
    pub(super) fn is_empty(&self) -> bool {
        self.until.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    fn address(last: usize) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, last as u8], 80))
    }

    #[test]
    fn a_silent_address_is_last_for_a_while_only() {
        let mut silent = SilentAddresses::default();
        let order = |silent: &mut SilentAddresses, micros| {
            let mut addresses = [1, 2, 3].map(address);
            silent.put_last(&mut addresses, Moment(micros));
            addresses.map(|address| address.to_string().as_bytes()[8] - b'0')
        };
        assert_eq!(order(&mut silent, 0), [1, 2, 3]);
        silent.add(address(1), Moment(0));
        assert_eq!(order(&mut silent, 1), [2, 3, 1]);
        silent.add(address(2), Moment(SECOND));
        assert_eq!(order(&mut silent, SECOND), [3, 1, 2]);
        silent.remove(address(2));
        assert_eq!(order(&mut silent, SECOND), [2, 3, 1]);
        let hold = SILENT_ADDRESS_SECS * SECOND;
        assert_eq!(order(&mut silent, hold - 1), [2, 3, 1]);
        assert_eq!(order(&mut silent, hold), [1, 2, 3]);
    }

    #[test]
    fn silent_addresses_are_bounded() {
        let mut silent = SilentAddresses::default();
        for n in 0..=SILENT_ADDRESSES_MAX {
            let [high, low] = (n as u16).to_be_bytes();
            silent.add(SocketAddr::from(([10, 0, high, low], 80)), Moment(n as u64));
        }
        assert_eq!(silent.until.len(), SILENT_ADDRESSES_MAX);
        let (first, _) = silent.until.front().unwrap();
        assert_eq!(*first, SocketAddr::from(([10, 0, 0, 1], 80)));
    }
}
