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

use hashlink::LinkedHashMap;

use crate::cli::plan::{Proxy, Target};
use crate::io::net;
use crate::limits::{
    ATTEMPT_DELAY_MILLIS, ATTEMPT_DELAY_MIN_MILLIS, ATTEMPT_TURN_MILLIS, ATTEMPTS_AT_ONCE,
    SILENT_ADDRESS_SECS, SILENT_ADDRESSES_MAX,
};
use crate::policy::destinations::Asker;
use crate::proxy_proto::Unreached;
use crate::session::Moment;
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
}

impl Request {
    /// Any address of a target; nothing is sent first.
    pub(in crate::worker) fn new(owner: Owner, target: Target, overall: Option<Moment>) -> Request {
        let (address, own, permission, greeting) = (None, None, Permission::Any, None);
        Request { owner, target, address, own, overall, permission, greeting }
    }
}

/// A dial in progress.
#[derive(Debug)]
pub(in crate::worker) struct Dial {
    pub(super) request: Request,
    untried: VecDeque<SocketAddr>,
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
        self.untried.extend(addresses);
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
        let may_begin = self.racing.is_empty() || now >= self.next_at;
        match self.untried.front() {
            Some(_) if may_begin && self.racing.len() >= ATTEMPTS_AT_ONCE => {
                let (oldest, _) = self.racing[0];
                Step::GiveUp(oldest)
            }
            Some(&address) if may_begin => {
                self.untried.pop_front();
                if let Some(&(_, late)) = self.racing.back() {
                    silent.add(late, now);
                }
                self.next_at = now.after(self.delay(now));
                Step::Connect(address)
            }
            None if self.racing.is_empty() && !self.resolving => Step::Fail,
            None => Step::Wait(self.request.overall),
            Some(_) => {
                let until =
                    self.request.overall.map_or(self.next_at, |until| until.min(self.next_at));
                Step::Wait(Some(until))
            }
        }
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

/// Addresses that recently did not answer before the next one was tried. They are tried last for a
/// while, so that only the first connection is delayed. Others keep the order of the name server,
/// which balances load.
#[derive(Debug, Default)]
pub(in crate::worker) struct SilentAddresses {
    /// Expiry. All have the same lifetime, so insertion order is the order of expiry.
    until: LinkedHashMap<SocketAddr, Moment>,
}

impl SilentAddresses {
    fn add(&mut self, address: SocketAddr, now: Moment) {
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
            let mut dial = Dial::new(Request::new(Owner::Connector, target, overall));
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
        assert!(game.silent.until.is_empty());
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
