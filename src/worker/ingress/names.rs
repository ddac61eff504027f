//! Client names: a bounded cache with expiry, and a queue of waiters per look-up. [`super::access`]
//! uses it.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use hashlink::LinkedHashMap;

use crate::cli::hostlist::ClientName;
use crate::limits::{
    CLIENT_NAME_PATIENCE_SECS, CLIENT_NAME_SECS, CLIENT_NAMES_MAX, CLIENT_NAMES_WAITING_MAX,
};
use crate::session::Moment;

#[derive(Debug)]
struct Waiting<W> {
    client: IpAddr,
    until: Moment,
    waiter: W,
}

/// A cached result and its expiry.
#[derive(Debug)]
struct Known {
    name: Name,
    until: Moment,
}

#[derive(Debug)]
enum Name {
    /// The look-up is in progress.
    Asked,
    /// There is no name, or it does not resolve back to the client.
    None,
    Is(Box<str>),
}

/// The cache of client names, and the waiters (`W`) for look-ups.
#[derive(Debug)]
pub(super) struct Names<W> {
    /// In order of look-up, oldest first.
    known: LinkedHashMap<IpAddr, Known>,
    /// In order of arrival. All wait equally long, so this is also the order of deadlines.
    waiting: VecDeque<Waiting<W>>,
    timeout: Duration,
}

impl<W> Names<W> {
    /// `connect` is `TIMEOUT=con`, which also bounds the wait for a name.
    pub(super) fn new(connect: Option<Duration>) -> Names<W> {
        let timeout = Duration::from_secs(CLIENT_NAME_PATIENCE_SECS);
        let timeout = connect.map_or(timeout, |connect| connect.min(timeout));
        Names { known: LinkedHashMap::new(), waiting: VecDeque::new(), timeout }
    }

    /// The cached name of a client.
    pub(super) fn get(&self, client: IpAddr, now: Moment) -> ClientName<'_> {
        match self.known.get(&client) {
            Some(known) if known.until > now => match &known.name {
                Name::Asked => ClientName::Unasked,
                Name::None => ClientName::None,
                Name::Is(name) => ClientName::Is(name),
            },
            _ => ClientName::Unasked,
        }
    }

    /// Begins a look-up. `false`: a result is cached or a look-up is in progress.
    pub(super) fn begin(&mut self, client: IpAddr, now: Moment) -> bool {
        let known = self.known.get(&client);
        if known.is_some_and(|known| known.until > now) {
            return false;
        }
        self.keep(client, Name::Asked, now.after(self.timeout));
        true
    }

    /// Stores a result. The caller must then [`Names::take`] all waiters of this client.
    pub(super) fn found(&mut self, client: IpAddr, name: Option<String>, now: Moment) {
        let name = name.map_or(Name::None, |name| Name::Is(name.into()));
        self.keep(client, name, now.after(Duration::from_secs(CLIENT_NAME_SECS)));
    }

    fn keep(&mut self, client: IpAddr, name: Name, until: Moment) {
        // Re-inserted at the back: the oldest entry is evicted first.
        self.known.remove(&client);
        while self.known.len() >= CLIENT_NAMES_MAX {
            self.known.pop_front();
        }
        self.known.insert(client, Known { name, until });
    }

    /// Queues a waiter. `Err`: the queue is full.
    pub(super) fn wait(&mut self, client: IpAddr, waiter: W, now: Moment) -> Result<(), W> {
        if self.waiting.len() >= CLIENT_NAMES_WAITING_MAX {
            return Err(waiter);
        }
        self.waiting.push_back(Waiting { client, until: now.after(self.timeout), waiter });
        Ok(())
    }

    /// Takes a waiter for this client's name.
    pub(super) fn take(&mut self, client: IpAddr) -> Option<W> {
        let at = self.waiting.iter().position(|waiting| waiting.client == client)?;
        Some(self.waiting.remove(at)?.waiter)
    }

    /// The client whose waiter has waited longest, and its deadline.
    pub(super) fn oldest(&self) -> Option<(IpAddr, Moment)> {
        self.waiting.front().map(|waiting| (waiting.client, waiting.until))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    fn client(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn a_name_is_asked_for_once_and_known_for_a_while() {
        let mut names = Names::<usize>::new(None);
        let now = Moment(0);
        assert_eq!(names.get(client(1), now), ClientName::Unasked);
        assert!(names.begin(client(1), now));
        assert!(!names.begin(client(1), now));
        assert_eq!(names.get(client(1), now), ClientName::Unasked);
        names.found(client(1), Some(String::from("a.example.org")), now);
        names.found(client(2), None, now);
        assert_eq!(names.get(client(1), now), ClientName::Is("a.example.org"));
        assert_eq!(names.get(client(2), now), ClientName::None);
        let later = Moment(CLIENT_NAME_SECS * SECOND);
        assert_eq!(names.get(client(1), later), ClientName::Unasked);
        assert!(names.begin(client(1), later));
    }

    #[test]
    fn an_answer_that_never_comes_is_asked_for_again() {
        let mut names = Names::<usize>::new(Some(Duration::from_secs(2)));
        assert!(names.begin(client(1), Moment(0)));
        assert!(!names.begin(client(1), Moment(2 * SECOND - 1)));
        assert!(names.begin(client(1), Moment(2 * SECOND)));
    }

    #[test]
    fn names_and_those_who_wait_are_bounded() {
        let mut names = Names::<usize>::new(None);
        for number in 0..CLIENT_NAMES_MAX as u32 + 10 {
            names.found(IpAddr::V4(number.into()), None, Moment(0));
        }
        assert_eq!(names.known.len(), CLIENT_NAMES_MAX);
        assert_eq!(names.get(IpAddr::V4(9.into()), Moment(0)), ClientName::Unasked);
        assert_eq!(names.get(IpAddr::V4(10.into()), Moment(0)), ClientName::None);
        for number in 0..CLIENT_NAMES_WAITING_MAX {
            assert_eq!(names.wait(client(1), number, Moment(0)), Ok(()));
        }
        assert_eq!(names.wait(client(2), 7, Moment(0)), Err(7));
        assert!(names.take(client(2)).is_none());
        assert_eq!(names.oldest(), Some((client(1), Moment(CLIENT_NAME_PATIENCE_SECS * SECOND))));
        for number in 0..CLIENT_NAMES_WAITING_MAX {
            assert_eq!(names.take(client(1)), Some(number));
        }
        assert_eq!((names.take(client(1)), names.oldest()), (None, None));
    }
}
