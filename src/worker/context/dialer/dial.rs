//! One dial: decides which address of a target is connected to, and when (RFC 8305, "Happy
//! Eyeballs"). Does no I/O; [`crate::worker::context::dialer`] does.
//!
//! Addresses alternate between families. An attempt begins when the one before has failed or has
//! not connected for 250 ms; they continue in parallel and the first to connect wins. The number of
//! parallel attempts is bounded; with more addresses, the time left is divided among them.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use crate::cli::plan::{Proxy, Target};
use crate::io::net;
use crate::limits::{
    ATTEMPT_AGAIN_MILLIS, ATTEMPT_DELAY_MILLIS, ATTEMPT_DELAY_MIN_MILLIS, ATTEMPT_TURN_MILLIS,
    ATTEMPTS_AT_ONCE,
};
use crate::policy::destinations::Asker;
use crate::proxy_proto::Unreached;
use crate::session::Moment;
use crate::worker::context::dialer::silent::SilentAddresses;
use crate::worker::log_ids::LogIds;
use crate::worker::table::Key;

/// The owner of a dial, which gets its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::worker) enum Owner {
    /// The connector.
    Connector,
    /// The exit of a stream.
    Exit(Key),
    /// A proxy session, for its next server.
    Conversation(Key),
    /// The client of a plain relay.
    Pair(Key),
}

impl Owner {
    /// What the dial is for, in the log.
    pub(super) fn ids(self) -> LogIds {
        match self {
            Owner::Connector => LogIds::default(),
            Owner::Exit(key) | Owner::Conversation(key) => LogIds::stream(key),
            Owner::Pair(key) => LogIds::pair(key),
        }
    }
}

/// The addresses that may be connected to.
#[derive(Debug)]
pub(in crate::worker) enum Permission {
    /// Any.
    Any,
    /// All except those that this process listens at.
    NotOwn,
    /// Those that this client of a proxy may reach.
    Proxy(Proxy, Asker),
}

/// Parameters of a dial.
#[derive(Debug)]
pub(in crate::worker) struct Request {
    pub(in crate::worker) owner: Owner,
    pub(in crate::worker) target: Target,
    /// The address, if known; the name is not looked up then.
    pub(in crate::worker) address: Option<SocketAddr>,
    /// The local address to connect from, if it matters.
    pub(in crate::worker) own: Option<SocketAddr>,
    /// Deadline of the dial (`TIMEOUT=con`).
    pub(in crate::worker) overall: Option<Moment>,
    pub(in crate::worker) permission: Permission,
    /// Sent first on the connection: a PROXY header.
    pub(in crate::worker) greeting: Option<Box<[u8]>>,
    /// Streams wait for it: addresses that are silent are tried anew beside the attempts there are. TCP
    /// repeats its own request after 1, 3 and 7 seconds, and a path that is good again is not noticed
    /// meanwhile.
    pub(in crate::worker) is_urgent: bool,
}

impl Request {
    /// Any address of a target; nothing is sent first.
    pub(in crate::worker) fn new(owner: Owner, target: Target, overall: Option<Moment>) -> Request {
        let (address, own, permission, greeting) = (None, None, Permission::Any, None);
        Request { owner, target, address, own, overall, permission, greeting, is_urgent: false }
    }
}

/// A dial in progress.
#[derive(Debug)]
pub(in crate::worker) struct Dial {
    pub(super) request: Request,
    untried: VecDeque<SocketAddr>,
    /// All of them, where they are to be tried anew.
    addresses: Vec<SocketAddr>,
    /// When that is.
    again_at: Moment,
    /// Attempts in flight, the oldest first.
    racing: VecDeque<(Key, SocketAddr)>,
    /// When the next address is tried, whatever the state of the earlier ones.
    next_at: Moment,
    /// The look-up is in progress.
    resolving: bool,
    /// Its deadline in the dialer's list.
    pub(super) due: Option<Moment>,
    /// Since when it waits for a descriptor, if so.
    pub(super) short_since: Option<Moment>,
    /// The reason of the last failure.
    failure: Unreached,
}

/// The next action for a dial.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::worker) enum Step {
    /// Connect to this address.
    Connect(SocketAddr),
    /// Cancel this attempt: another address is to be tried.
    GiveUp(Key),
    /// Wait for an attempt to end, or until this time.
    Wait(Option<Moment>),
    /// Fail: no address has connected.
    Fail,
}

impl Dial {
    pub(in crate::worker) fn new(request: Request) -> Dial {
        Dial {
            request,
            untried: VecDeque::new(),
            addresses: Vec::new(),
            again_at: Moment(0),
            racing: VecDeque::new(),
            next_at: Moment(0),
            resolving: true,
            due: None,
            short_since: None,
            failure: Unreached::Other(String::from("no address")),
        }
    }

    /// Sets the addresses of the target, in the order of attempts.
    pub(in crate::worker) fn resolved(&mut self, addresses: Vec<SocketAddr>) {
        self.resolving = false;
        self.untried.extend(&addresses);
        if self.request.is_urgent {
            self.addresses = addresses;
        }
    }

    /// The next action. Adds addresses that have not answered in time to `silent`.
    pub(in crate::worker) fn step(&mut self, now: Moment, silent: &mut SilentAddresses) -> Step {
        if self.request.overall.is_some_and(|overall| now >= overall) {
            if self.short_since.is_some() {
                let why =
                    "no descriptor was free in time: raise the limit of open files (ulimit -n)";
                self.fail(None, Unreached::Other, why);
                return Step::Fail;
            }
            let late = self.racing.front().map(|&(_, address)| address);
            let why = match self.resolving {
                true => "name not found in time (TIMEOUT=con)",
                false => "no answer in time (TIMEOUT=con)",
            };
            self.fail(late, Unreached::TimedOut, why);
            return Step::Fail;
        }
        if self.short_since.is_some() {
            return Step::Wait(self.request.overall);
        }
        self.try_anew(now);
        let may_begin = self.racing.is_empty() || now >= self.next_at;
        match self.untried.front() {
            Some(_) if may_begin && self.racing.len() >= ATTEMPTS_AT_ONCE => {
                // The first one of an urgent dial stays: a long path needs more time than the others have.
                let (oldest, _) = self.racing[usize::from(self.request.is_urgent)];
                Step::GiveUp(oldest)
            }
            Some(&address) if may_begin => {
                self.untried.pop_front();
                if let Some(&(_, late)) = self.racing.back() {
                    silent.add(late, now);
                }
                self.next_at = now.after(self.delay(now));
                self.again_at = now.after(Duration::from_millis(ATTEMPT_AGAIN_MILLIS));
                Step::Connect(address)
            }
            None if self.racing.is_empty() && !self.resolving => Step::Fail,
            None if self.addresses.is_empty() => Step::Wait(self.request.overall),
            None => Step::Wait(Some(self.not_after(self.again_at))),
            Some(_) => Step::Wait(Some(self.not_after(self.next_at))),
        }
    }

    /// All addresses again, if it is time and none of them has answered.
    fn try_anew(&mut self, now: Moment) {
        if self.untried.is_empty() && !self.racing.is_empty() && now >= self.again_at {
            self.untried.extend(&self.addresses);
        }
    }

    /// This time, or the deadline of the dial before it.
    fn not_after(&self, time: Moment) -> Moment {
        self.request.overall.map_or(time, |overall| overall.min(time))
    }

    /// Time until the next attempt after one that begins now.
    fn delay(&self, now: Moment) -> Duration {
        let share =
            self.request.overall.map_or(Duration::from_millis(ATTEMPT_TURN_MILLIS), |overall| {
                let left = Duration::from_micros(overall.0.saturating_sub(now.0));
                left / (self.untried.len() as u32 + 1)
            });
        // The last parallel attempt: the next address replaces an attempt, so the time left is
        // divided.
        let delay = match self.racing.len() + 1 < ATTEMPTS_AT_ONCE {
            true => share.min(Duration::from_millis(ATTEMPT_DELAY_MILLIS)),
            false if self.request.is_urgent => {
                share.min(Duration::from_millis(ATTEMPT_AGAIN_MILLIS))
            }
            false => share,
        };
        delay.max(Duration::from_millis(ATTEMPT_DELAY_MIN_MILLIS))
    }

    /// An attempt has begun.
    pub(in crate::worker) fn begun(&mut self, attempt: Key, address: SocketAddr) {
        self.racing.push_back((attempt, address));
    }

    /// An attempt has ended; returns its address if it was still racing.
    pub(in crate::worker) fn ended(&mut self, attempt: Key) -> Option<SocketAddr> {
        let at = self.racing.iter().position(|&(key, _)| key == attempt)?;
        self.racing.remove(at).map(|(_, address)| address)
    }

    /// No descriptor was free for an address: it is tried first later.
    pub(in crate::worker) fn put_back(&mut self, address: SocketAddr) {
        self.untried.push_front(address);
        self.next_at = Moment(0);
    }

    /// An address has failed: the next one is tried now.
    pub(in crate::worker) fn attempt_failed(&mut self, address: SocketAddr, error: &io::Error) {
        let kind = match error.kind() {
            io::ErrorKind::ConnectionRefused => Unreached::Refused,
            io::ErrorKind::TimedOut => Unreached::TimedOut,
            _ => Unreached::Other,
        };
        self.fail(Some(address), kind, &net::why_not_connected(error, address));
        self.next_at = Moment(0);
    }

    /// The name was not found.
    pub(in crate::worker) fn not_resolved(&mut self, error: &io::Error) {
        self.resolving = false;
        self.fail(None, Unreached::NameNotFound, &format!("name not found: {error}"));
    }

    /// None of the addresses is permitted.
    pub(in crate::worker) fn not_permitted(&mut self, why: String) {
        self.resolving = false;
        self.failure = Unreached::NotPermitted(why);
    }

    fn fail(&mut self, address: Option<SocketAddr>, kind: fn(String) -> Unreached, why: &str) {
        self.failure = kind(match address {
            Some(address) if address.ip().to_string() != self.request.target.host => {
                format!("{why} ({address})")
            }
            _ => why.to_owned(),
        });
    }

    /// Attempts in flight.
    pub(in crate::worker) fn racing(&self) -> impl Iterator<Item = Key> {
        self.racing.iter().map(|&(key, _)| key)
    }

    /// Why the target was not reached.
    pub(in crate::worker) fn into_failure(self) -> DialError {
        DialError { target: self.request.target, unreached: self.failure }
    }
}

/// Why a target was not reached.
#[derive(Debug)]
pub(in crate::worker) struct DialError {
    pub(in crate::worker) target: Target,
    pub(in crate::worker) unreached: Unreached,
}

impl std::fmt::Display for DialError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.target, self.unreached.why())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    fn address(last: usize) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, last as u8], 80))
    }

    /// A dial to addresses 1 to `count` of a name, which has this long.
    struct Game {
        dial: Dial,
        silent: SilentAddresses,
        attempts: u64,
    }

    impl Game {
        fn of(count: usize, secs: Option<u64>) -> Game {
            let target = Target { host: String::from("a.example"), port: 80 };
            let overall = secs.map(|secs| Moment(secs * SECOND));
            Game::with(count, Request::new(Owner::Connector, target, overall))
        }

        /// The same, of ten seconds, for which streams wait.
        fn urgent(count: usize) -> Game {
            let mut request = Game::of(0, Some(10)).dial.request;
            request.is_urgent = true;
            Game::with(count, request)
        }

        fn with(count: usize, request: Request) -> Game {
            let mut dial = Dial::new(request);
            dial.resolved((1..=count).map(address).collect());
            Game { dial, silent: SilentAddresses::default(), attempts: 0 }
        }

        /// The next step; an attempt is begun where it says so.
        fn step(&mut self, micros: u64) -> Step {
            let step = self.dial.step(Moment(micros), &mut self.silent);
            match step {
                Step::Connect(address) => {
                    self.attempts += 1;
                    self.dial.begun(Key::unpack(self.attempts), address);
                }
                Step::GiveUp(attempt) => assert!(self.dial.ended(attempt).is_some()),
                _ => {}
            }
            step
        }

        /// All steps until one has to wait: the addresses connected to, and until when.
        fn run(&mut self, micros: u64) -> (Vec<SocketAddr>, Option<u64>) {
            let mut begun = Vec::new();
            loop {
                match self.step(micros) {
                    Step::Connect(address) => begun.push(address),
                    Step::GiveUp(_) => {}
                    Step::Wait(until) => return (begun, until.map(|until| until.0)),
                    Step::Fail => return (begun, Some(0)),
                }
            }
        }
    }

    fn refused() -> io::Error {
        io::ErrorKind::ConnectionRefused.into()
    }

    #[test]
    fn an_address_that_is_silent_for_250_ms_gets_company() {
        let mut game = Game::of(2, Some(10));
        assert_eq!(game.run(0), (vec![address(1)], Some(250_000)));
        assert_eq!(game.run(249_999), (vec![], Some(250_000)));
        assert_eq!(game.run(250_000), (vec![address(2)], Some(10 * SECOND)));
        assert_eq!(game.dial.racing().count(), 2);
        let mut again = vec![address(1), address(2)];
        game.silent.put_last(&mut again, Moment(SECOND));
        assert_eq!(again, [address(2), address(1)]);
    }

    #[test]
    fn one_that_fails_makes_room_at_once() {
        let mut game = Game::of(3, Some(10));
        game.run(0);
        let first = game.dial.ended(Key::unpack(1)).unwrap();
        game.dial.attempt_failed(first, &refused());
        assert_eq!(game.run(1000), (vec![address(2)], Some(251_000)));
        // It has answered, if not as was hoped for.
        assert!(game.silent.is_empty());
        // The other way round: the second fails while the first still hangs.
        game.run(251_000);
        let second = game.dial.ended(Key::unpack(2)).unwrap();
        game.dial.attempt_failed(second, &refused());
        assert_eq!(game.run(300_000), (vec![], Some(10 * SECOND)));
        let third = game.dial.ended(Key::unpack(3)).unwrap();
        game.dial.attempt_failed(third, &refused());
        assert_eq!(game.step(300_000), Step::Fail);
        let failure = game.dial.into_failure();
        assert!(matches!(failure.unreached, Unreached::Refused(_)));
        assert_eq!(failure.to_string(), "a.example:80: connection refused (192.0.2.3:80)");
    }

    #[test]
    fn the_time_for_all_is_the_end_of_each() {
        let mut game = Game::of(2, Some(1));
        game.run(0);
        game.run(250_000);
        assert_eq!(game.step(SECOND), Step::Fail);
        let failure = game.dial.into_failure();
        assert!(matches!(failure.unreached, Unreached::TimedOut(_)));
        let why = "a.example:80: no answer in time (TIMEOUT=con) (192.0.2.1:80)";
        assert_eq!(failure.to_string(), why);
    }

    #[test]
    fn an_urgent_dial_tries_silent_addresses_anew_and_keeps_its_first_attempt() {
        for count in [1, 2] {
            let again = ATTEMPT_AGAIN_MILLIS * 1_000 * count as u64;
            let mut game = Game::urgent(count);
            let (mut now, mut begun) = (0, Vec::new());
            while now < 10 * SECOND {
                let (addresses, until) = game.run(now);
                begun.extend(addresses.into_iter().map(|address| (now, address)));
                assert!(game.dial.racing().count() <= ATTEMPTS_AT_ONCE);
                assert_eq!(game.dial.racing().next(), Some(Key::unpack(1)), "at {now}");
                now = until.expect("it has a deadline");
            }
            for number in 1..=count {
                let times: Vec<u64> = begun
                    .iter()
                    .filter(|(_, to)| *to == address(number))
                    .map(|(at, _)| *at)
                    .collect();
                let apart = |pair: &[u64]| pair[1] - pair[0] <= again + 250_000;
                assert!(times.windows(2).all(apart), "{times:?}");
                assert!(times.last().is_some_and(|last| last + 2 * again > 10 * SECOND));
            }
            assert_eq!(game.step(10 * SECOND), Step::Fail);
        }
    }

    #[test]
    fn an_urgent_dial_that_is_refused_ends_as_any_other() {
        let mut game = Game::urgent(1);
        game.run(0);
        assert_eq!(game.run(600_000).0, [address(1)]);
        for attempt in [2, 1] {
            let late = game.dial.ended(Key::unpack(attempt)).unwrap();
            game.dial.attempt_failed(late, &refused());
        }
        assert_eq!(game.step(700_000), Step::Fail);
    }

    #[test]
    fn an_address_without_a_descriptor_keeps_its_turn_until_the_time_for_all_is_over() {
        let mut game = Game::of(2, Some(1));
        assert_eq!(game.step(0), Step::Connect(address(1)));
        game.dial.put_back(address(1));
        game.dial.short_since = Some(Moment(0));
        assert_eq!(game.step(1), Step::Wait(Some(Moment(SECOND))));
        game.dial.short_since = None;
        assert_eq!(game.step(2), Step::Connect(address(1)));
        game.dial.put_back(address(1));
        game.dial.short_since = Some(Moment(2));
        assert_eq!(game.step(SECOND), Step::Fail);
        let failure = game.dial.into_failure();
        assert!(matches!(failure.unreached, Unreached::Other(_)));
        assert!(failure.to_string().contains("no descriptor was free in time"), "{failure}");
    }

    #[test]
    fn of_many_a_few_race_and_all_have_their_turn() {
        for secs in [Some(10), Some(1), None] {
            let mut game = Game::of(16, secs);
            let (mut now, mut begun) = (0, Vec::new());
            while begun.len() < 16 {
                let (addresses, until) = game.run(now);
                begun.extend(addresses);
                assert!(game.dial.racing().count() <= ATTEMPTS_AT_ONCE);
                assert!(now < secs.unwrap_or(30) * SECOND, "{secs:?}: {now}");
                now = until.unwrap_or(now);
            }
            assert_eq!(begun, (1..=16).map(address).collect::<Vec<_>>());
        }
    }
}
