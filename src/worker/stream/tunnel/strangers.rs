//! Strangers: peers that have connected here and whose hello is not complete, a handshake of the
//! transform included. They are few, and make room for each other: the oldest that has not even begun
//! its hello goes first. So whoever comes and says hello comes in, whatever others do.

use std::collections::VecDeque;
use std::net::IpAddr;

use crate::io::net;
use crate::limits::{STRANGERS_DESCRIPTORS_PART, STRANGERS_MIN};
use crate::policy::source_of;
use crate::worker::table::Key;

/// All strangers, by arrival.
#[derive(Debug)]
pub(super) struct Strangers {
    all: VecDeque<(Key, IpAddr)>,
    max: usize,
}

impl Strangers {
    /// As many as the limit of this process's descriptors has room for, and no more than `most`.
    pub(super) fn of_process(most: usize) -> Strangers {
        Strangers::new(net::descriptor_limit(), most)
    }

    /// `descriptors`: how many the process may have.
    fn new(descriptors: u64, most: usize) -> Strangers {
        let share = usize::try_from(descriptors / STRANGERS_DESCRIPTORS_PART).unwrap_or(usize::MAX);
        let max = share.clamp(STRANGERS_MIN, most);
        Strangers { all: VecDeque::new(), max }
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// Who has to go before another one from this address is let in. No address has more than half.
    pub(super) fn in_the_way(
        &self,
        address: Option<IpAddr>,
        has_begun: impl Fn(Key) -> bool,
    ) -> Option<Key> {
        let source = source_of(address);
        let of_source = self.all.iter().filter(|(_, of)| *of == source).count();
        let is_crowd = of_source >= self.max / 2;
        if !is_crowd && self.all.len() < self.max {
            return None;
        }
        let rivals = || {
            let all = self.all.iter().filter(move |(_, of)| !is_crowd || *of == source);
            all.map(|&(key, _)| key)
        };
        rivals().find(|&key| !has_begun(key)).or_else(|| rivals().next())
    }

    pub(super) fn insert(&mut self, key: Key, address: Option<IpAddr>) {
        self.all.push_back((key, source_of(address)));
    }

    /// Its hello is complete, or it is gone. Returns what counts as its address. `None`: it was no
    /// stranger.
    pub(super) fn remove(&mut self, key: Key) -> Option<IpAddr> {
        let at = self.all.iter().position(|&(stranger, _)| stranger == key)?;
        Some(self.all.remove(at)?.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::STRANGERS_MAX;

    fn key(number: u64) -> Key {
        Key::unpack(number)
    }

    fn address(text: &str) -> Option<IpAddr> {
        Some(text.parse().expect("an address"))
    }

    /// As many from this address as `count`, with keys from `first` on.
    fn come(strangers: &mut Strangers, count: usize, first: u64, from: Option<IpAddr>) {
        for number in first..first + count as u64 {
            assert_eq!(strangers.in_the_way(from, |_| false), None, "stranger {number}");
            strangers.insert(key(number), from);
        }
    }

    #[test]
    fn the_oldest_makes_room_and_one_that_has_begun_its_hello_last() {
        let mut strangers = Strangers::new(u64::MAX, STRANGERS_MAX);
        let half = STRANGERS_MAX / 2;
        come(&mut strangers, half, 0, address("192.0.2.1"));
        come(&mut strangers, half, 1_000, address("192.0.2.2"));
        let newcomer = address("192.0.2.3");
        assert_eq!(strangers.in_the_way(newcomer, |_| false), Some(key(0)));
        assert_eq!(strangers.in_the_way(newcomer, |of| of == key(0)), Some(key(1)));
        assert_eq!(strangers.in_the_way(newcomer, |_| true), Some(key(0)));
        assert_eq!(strangers.remove(key(0)), address("192.0.2.1"));
        assert_eq!(strangers.remove(key(0)), None);
        assert_eq!(strangers.in_the_way(newcomer, |_| false), None);
    }

    #[test]
    fn an_address_has_half_and_drives_out_none_but_its_own() {
        let mut strangers = Strangers::new(u64::MAX, STRANGERS_MAX);
        come(&mut strangers, 1, 0, address("192.0.2.1"));
        come(&mut strangers, STRANGERS_MAX / 2, 1, address("192.0.2.2"));
        assert_eq!(strangers.in_the_way(address("192.0.2.2"), |_| false), Some(key(1)));
        assert_eq!(strangers.in_the_way(address("192.0.2.1"), |_| false), None);
    }

    #[test]
    fn few_descriptors_make_few_strangers() {
        let max = |descriptors| Strangers::new(descriptors, STRANGERS_MAX).max;
        assert_eq!(max(0), STRANGERS_MIN);
        assert_eq!(max(1_024), 128);
        assert_eq!(max(u64::MAX), STRANGERS_MAX);
        assert_eq!(Strangers::new(u64::MAX, 20).max, 20);
    }
}
