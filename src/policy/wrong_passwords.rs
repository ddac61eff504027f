//! The brake on guessing passwords of proxies (`AUTHORIZER=`): each client's address may be wrong some
//! times at once, and once more each few seconds. Beyond that its requests are refused unread, right
//! ones too, or the right one would show itself.
//!
//! Time is a number of microseconds, from the caller.

use std::net::IpAddr;

use hashlink::LinkedHashMap;

use super::source_of;
use crate::limits::{WRONG_PASSWORDS_AT_ONCE, WRONG_PASSWORDS_CLIENTS_MAX, WRONG_PASSWORDS_SECS};

/// Microseconds after which a client may be wrong once more.
const REFILL_MICROS: u64 = WRONG_PASSWORDS_SECS * 1_000_000;

/// Clients that were wrong lately, the latest last.
#[derive(Debug, Default)]
pub struct WrongPasswords {
    clients: LinkedHashMap<IpAddr, Tries>,
}

#[derive(Debug, Clone, Copy)]
struct Tries {
    left: u32,
    /// When the last one was added.
    since_micros: u64,
}

impl Tries {
    fn at(self, now_micros: u64) -> Tries {
        let back = now_micros.saturating_sub(self.since_micros) / REFILL_MICROS;
        let left = u64::from(self.left).saturating_add(back);
        match u32::try_from(left) {
            Ok(left) if left < WRONG_PASSWORDS_AT_ONCE => {
                Tries { left, since_micros: self.since_micros + back * REFILL_MICROS }
            }
            _ => Tries { left: WRONG_PASSWORDS_AT_ONCE, since_micros: now_micros },
        }
    }
}

impl WrongPasswords {
    /// A client was wrong.
    pub fn add(&mut self, client: Option<IpAddr>, now_micros: u64) {
        let client = source_of(client);
        let full = Tries { left: WRONG_PASSWORDS_AT_ONCE, since_micros: now_micros };
        let mut tries = self.clients.remove(&client).map_or(full, |tries| tries.at(now_micros));
        tries.left = tries.left.saturating_sub(1);
        if self.clients.len() == WRONG_PASSWORDS_CLIENTS_MAX {
            self.clients.pop_front();
        }
        self.clients.insert(client, tries);
    }

    /// Whether a client may try a password now.
    pub fn may_try(&self, client: Option<IpAddr>, now_micros: u64) -> bool {
        let tries = self.clients.get(&source_of(client));
        tries.is_none_or(|tries| tries.at(now_micros).left > 0)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn a_client_is_wrong_some_times_and_then_now_and_then() {
        let mut wrong = WrongPasswords::default();
        let mut tries = |client, now| {
            let mut count = 0;
            while wrong.may_try(client, now) && count < 1_000 {
                wrong.add(client, now);
                count += 1;
            }
            count
        };
        let guesser = ip("10.0.0.1");
        assert_eq!(tries(guesser, 5), WRONG_PASSWORDS_AT_ONCE);
        assert_eq!(tries(guesser, REFILL_MICROS), 0);
        assert_eq!(tries(guesser, 5 + REFILL_MICROS), 1);
        assert_eq!(tries(guesser, 5 + 3 * REFILL_MICROS + 1), 2);
        assert_eq!(tries(ip("::ffff:10.0.0.1"), 5 + 3 * REFILL_MICROS + 1), 0);
        // Others are not held back, and a host of IPv6 is one.
        assert_eq!(tries(ip("10.0.0.2"), 5), WRONG_PASSWORDS_AT_ONCE);
        assert_eq!(tries(ip("2001:db8::1"), 5), WRONG_PASSWORDS_AT_ONCE);
        assert_eq!(tries(ip("2001:db8::2:1"), 5), 0);
        assert_eq!(tries(ip("2001:db8:0:1::1"), 5), WRONG_PASSWORDS_AT_ONCE);
        assert_eq!(tries(None, 5), WRONG_PASSWORDS_AT_ONCE);
        assert_eq!(tries(guesser, u64::MAX), WRONG_PASSWORDS_AT_ONCE);
    }

    #[test]
    fn the_table_is_bounded_and_forgets_who_was_wrong_longest_ago() {
        let mut wrong = WrongPasswords::default();
        for _ in 0..WRONG_PASSWORDS_AT_ONCE {
            wrong.add(None, 1);
            wrong.add(ip("10.0.0.1"), 1);
        }
        for client in 1..u32::try_from(WRONG_PASSWORDS_CLIENTS_MAX).unwrap() {
            wrong.add(Some(Ipv4Addr::from_bits(client).into()), 1);
        }
        assert_eq!(wrong.clients.len(), WRONG_PASSWORDS_CLIENTS_MAX);
        assert_eq!([None, ip("10.0.0.1")].map(|client| wrong.may_try(client, 1)), [true, false]);
    }
}
