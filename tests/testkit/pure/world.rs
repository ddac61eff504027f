//! Two sides, a link with delay between them, and a clock that jumps from event to event.
//!
//! All that a plan does not determine is a [`Choice`], so that a run can be repeated. Invariants are
//! checked during the run; a violation panics.

use std::collections::VecDeque;

use sockmux_uring::limits;
use sockmux_uring::session::{Ended, Moment, SessionConfig};
use sockmux_uring::wire::Protocol;
use sockmux_uring::wire::v03::{PAYLOAD_BYTES_MAX, STREAM_BUFFER_BYTES};

use super::choice::Choice;
use super::script::{Exit, LEAVING, Pattern, Plan, REFUSAL};
use super::side::{EndedBy, Local, Side, later};

mod order;
mod random;

pub(crate) use order::Order;
pub(crate) use random::random_run;

/// A run that is not at rest after this virtual time never will be.
const REST_MICROS: u64 = 4 * 3_600 * 1_000_000;
/// Turns after which a run is given up: it is busy without progress.
const TURNS_MAX: u64 = 3_000_000;
/// Queued control frames at which a side stops reading.
const CONTROL_BACKLOG_MAX: usize = 64;

/// One direction of the connection.
struct Pipe {
    delay: u64,
    jitter: u64,
    capacity: usize,
    on_the_way: VecDeque<(Moment, Vec<u8>)>,
    on_the_way_bytes: usize,
    /// Bytes that have arrived and were not read.
    inbox: Vec<u8>,
}

impl Pipe {
    fn new(choice: &mut impl Choice) -> Pipe {
        Pipe {
            delay: choice.pick(&[50, 0, 1_000, 20_000, 150_000, 1_000_000]),
            jitter: choice.pick(&[0, 100, 30_000]),
            capacity: choice.pick(&[1 << 20, 1 << 16, 3_000, 200]),
            on_the_way: VecDeque::new(),
            on_the_way_bytes: 0,
            inbox: Vec::new(),
        }
    }

    fn room(&self) -> usize {
        self.capacity.saturating_sub(self.on_the_way_bytes + self.inbox.len())
    }

    fn send(&mut self, bytes: Vec<u8>, now: Moment, choice: &mut impl Choice) {
        let arrival = later(now, self.delay + choice.below(self.jitter + 1));
        let arrival = self.on_the_way.back().map_or(arrival, |last| last.0.max(arrival));
        self.on_the_way_bytes += bytes.len();
        self.on_the_way.push_back((arrival, bytes));
    }

    fn arrive(&mut self, now: Moment) {
        while self.on_the_way.front().is_some_and(|first| first.0 <= now) {
            if let Some((_, bytes)) = self.on_the_way.pop_front() {
                self.on_the_way_bytes -= bytes.len();
                self.inbox.extend_from_slice(&bytes);
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.on_the_way.is_empty() && self.inbox.is_empty()
    }
}

/// The result of a run.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    pub(crate) payload_bytes: u64,
    pub(crate) streams: usize,
    pub(crate) refused: usize,
    pub(crate) reset: usize,
    pub(crate) most_streams: usize,
    pub(crate) largest_id: u32,
    pub(crate) was_cut: bool,
    /// SockMux 1: frames that crossed the end of their stream, and opens given up because the peer was
    /// going away.
    pub(crate) late_frames: u64,
    pub(crate) given_up: usize,
    /// SockMux 1: the most by which a side's windows exceeded their initial size.
    pub(crate) extra_window_bytes: u64,
    /// Local sockets that were reset after one direction had ended.
    pub(crate) reset_half_closed: usize,
    /// Datagrams received, and dropped by a session.
    pub(crate) datagrams: u64,
    pub(crate) datagrams_dropped: u64,
}

/// Two sides and the link between them.
pub(crate) struct World<'a, C: Choice> {
    choice: &'a mut C,
    pattern: &'a Pattern,
    pub(crate) now: Moment,
    plans: Vec<Plan>,
    pub(crate) sides: [Side; 2],
    /// From side 0 to side 1, and back.
    pipes: [Pipe; 2],
    cut_at: Option<Moment>,
    order: Order,
    /// Both sides are native, so that ends of data and closes are distinct.
    half_close: bool,
    /// The protocol that both sides will speak.
    protocol: Protocol,
    /// SockMux 1: initial windows of the streams of each side.
    first_windows: [u64; 2],
    extra_window_bytes: u64,
    most_streams: usize,
}

impl<'a, C: Choice> World<'a, C> {
    pub(crate) fn new(
        choice: &'a mut C,
        pattern: &'a Pattern,
        configs: [SessionConfig; 2],
        plans: Vec<Plan>,
        cut_at: Option<Moment>,
    ) -> World<'a, C> {
        let now = Moment(choice.below(1_000_000_000));
        let offers = configs[0].offer.zip(configs[1].offer);
        let half_close = offers.is_some_and(|(one, other)| one.half_close && other.half_close);
        let backlog_max = |own: &SessionConfig| match offers.and(own.offer) {
            Some(offer) => {
                u64::from(offer.window_bytes.max(limits::PEER_WINDOW_BYTES_MIN))
                    + u64::from(PAYLOAD_BYTES_MAX)
            }
            // The original's buffer of a stream; it does not survive more.
            None => u64::from(STREAM_BUFFER_BYTES),
        };
        let most = [backlog_max(&configs[0]), backlog_max(&configs[1])];
        let newest = offers.map_or(0, |(one, other)| one.newest.min(other.newest));
        let protocol = if newest >= 1 { Protocol::V1 } else { Protocol::V03 };
        let first_windows = [&configs[0], &configs[1]].map(|config| {
            let offered = config.offer.map_or(0, |offer| offer.window_bytes);
            u64::from(offered.clamp(limits::PEER_WINDOW_BYTES_MIN, limits::FIRST_WINDOW_BYTES))
        });
        let packets = [configs[0].packet_bytes, configs[1].packet_bytes];
        let [one, other] = configs;
        let mut sides = [Side::new(0, one, most[0], now), Side::new(1, other, most[1], now)];
        for side in &mut sides {
            side.set_packet_max(packets[1 - side.name]);
            side.to_open = (0..plans.len()).filter(|&n| plans[n].opener == side.name).collect();
        }
        let pipes = [Pipe::new(choice), Pipe::new(choice)];
        let plans = plans
            .into_iter()
            .map(|plan| Plan { open_at: later(now, plan.open_at.0), ..plan })
            .collect();
        let cut_at = cut_at.map(|at| later(now, at.0));
        World {
            choice,
            pattern,
            now,
            plans,
            sides,
            pipes,
            cut_at,
            order: Order::NATURAL,
            half_close,
            protocol,
            first_windows,
            extra_window_bytes: 0,
            most_streams: 0,
        }
    }

    /// Makes a side go away at this time after the beginning.
    pub(crate) fn leave(&mut self, side: usize, at: Moment) {
        self.sides[side].leave_at = Some(later(self.now, at.0));
    }

    /// Sets the order of events that are due at one moment.
    pub(crate) fn shuffle(&mut self, order: Order) {
        self.order = order;
    }

    /// Runs until all is at rest, or the link is cut.
    pub(crate) fn run(mut self) -> Summary {
        let began = self.now;
        let mut turns = 0;
        loop {
            while self.turn() {
                turns += 1;
                assert!(turns < TURNS_MAX, "no end at {:?}: {}", self.now, self.describe());
            }
            self.check();
            if self.is_at_rest() {
                break;
            }
            if self.cut_at.is_some_and(|at| at <= self.now) {
                return self.cut();
            }
            let next = self.next_moment().unwrap_or(self.now);
            assert!(next > self.now, "nothing moves any more: {}", self.describe());
            self.now = next;
            let hung = self.now > later(began, REST_MICROS);
            assert!(!hung, "hangs: {}", self.describe());
        }
        self.check_rest();
        self.summary(false)
    }

    /// Handles events that are due at `now`, in some order and not all of them; all of them if nothing
    /// else was done. Returns whether anything was.
    fn turn(&mut self) -> bool {
        let mut order = self.order;
        let mut busy = self.steps(&mut order);
        if !busy && order != Order::NATURAL {
            let mut natural = Order::NATURAL;
            busy = self.steps(&mut natural);
        }
        self.order = order;
        self.compare_datagrams();
        self.check_turn();
        busy
    }

    fn steps(&mut self, order: &mut Order) -> bool {
        let mut busy = false;
        for n in order.of::<2>() {
            for step in order.of::<4>() {
                if order.puts_off() {
                    continue;
                }
                busy |= match step {
                    0 => self.read(n),
                    1 => {
                        let side = &mut self.sides[n];
                        side.run_clock(self.now, &self.plans).expect("no tunnel error")
                    }
                    2 => self.sides[n].run_locals(self.now, &self.plans, order),
                    _ => self.write(n, order),
                };
            }
        }
        busy
    }

    fn write(&mut self, n: usize, order: &mut Order) -> bool {
        let room = self.pipes[n].room();
        // Occasionally a single frame.
        let room = if order.puts_off() { room.min(1) } else { room };
        let mut out = Vec::new();
        let side = &mut self.sides[n];
        let any = side.transmit(&mut out, room, self.now, &self.plans, self.pattern);
        if any {
            self.pipes[n].send(out, self.now, self.choice);
        }
        any
    }

    fn check_turn(&mut self) {
        self.most_streams = self.most_streams.max(self.sides[0].session.stream_count());
        if self.protocol == Protocol::V1 {
            let [one, other] = &self.sides;
            let [first, second] = self.first_windows;
            one.check_windows(other, first, second);
            other.check_windows(one, second, first);
            one.check_link(other);
            other.check_link(one);
            let extra = [one, other].map(|side| side.session.extra_window_bytes());
            self.extra_window_bytes = self.extra_window_bytes.max(extra[0]).max(extra[1]);
        }
    }

    /// Compares the datagrams received by each side with those sent by the other.
    fn compare_datagrams(&mut self) {
        let [one, other] = &mut self.sides;
        for local in &mut one.locals {
            let Some(remote) = other.local_mut(local.plan) else { continue };
            let (Some(own), Some(peers)) = (&mut local.flow, &mut remote.flow) else { continue };
            own.compare(peers, remote.script.seed, self.pattern);
            peers.compare(own, local.script.seed, self.pattern);
        }
    }

    fn read(&mut self, n: usize) -> bool {
        self.pipes[1 - n].arrive(self.now);
        let inbox = std::mem::take(&mut self.pipes[1 - n].inbox);
        let side = &mut self.sides[n];
        let mut rest = &inbox[..];
        while !rest.is_empty() && side.session.control_backlog() < CONTROL_BACKLOG_MAX {
            let most = self.choice.pick(&[usize::MAX, 65_536, 5_000, 300, 12, 1]);
            let piece = 1 + self.choice.below(rest.len().min(most) as u64) as usize;
            // The simplest choice is to read everything.
            let piece = if most == usize::MAX { rest.len() } else { piece };
            side.read(&rest[..piece], self.now, &self.plans, self.pattern)
                .expect("no tunnel error");
            rest = &rest[piece..];
        }
        let busy = rest.len() < inbox.len();
        self.pipes[1 - n].inbox = rest.to_vec();
        busy
    }

    fn next_moment(&self) -> Option<Moment> {
        let pipes = self.pipes.iter().filter_map(|pipe| Some(pipe.on_the_way.front()?.0));
        let sides = self.sides.iter().filter_map(|side| side.next_moment(&self.plans));
        pipes.chain(sides).chain(self.cut_at).min()
    }

    fn is_at_rest(&self) -> bool {
        let done = |side: &Side| {
            side.to_open.is_empty() && side.session.is_up() && side.session.stream_count() == 0
        };
        self.sides.iter().all(done) && self.pipes.iter().all(Pipe::is_empty)
    }

    /// Checks the invariants of every moment.
    fn check(&self) {
        for (side, other) in [(0, 1), (1, 0)].map(|(a, b)| (&self.sides[a], &self.sides[b])) {
            assert!(side.payload_in <= other.payload_out && side.urgent_in <= other.urgent_out);
            if self.pipes[other.name].is_empty() {
                assert_eq!(side.payload_in, other.payload_out, "payload is lost or made up");
                assert_eq!(side.urgent_in, other.urgent_out, "urgent data is lost or made up");
            }
            let counters = side.session.counters();
            // Each of them was compared on arrival.
            assert_eq!(counters.unknown_ids, side.late_frames, "frames to streams that ended");
            assert_eq!(counters.stale_keys, 0, "keys of streams that have ended");
            assert_eq!((counters.ignored_frames, counters.unsuited_frames), (0, 0));
            for local in &side.locals {
                self.check_stream(local, other.local(local.plan));
            }
        }
    }

    fn check_stream(&self, local: &Local, remote: Option<&Local>) {
        let said = remote.map_or(0, |remote| remote.read);
        if let Some(flow) = &local.flow {
            let sent = remote.and_then(|remote| remote.flow.as_ref()).map_or(0, |flow| flow.sent);
            assert!(flow.got <= sent && local.peer_end.is_none());
        } else {
            assert!(local.delivered <= remote.map_or(0, |remote| remote.framed));
        }
        if let Some(bytes) = local.peer_end {
            assert!(remote.is_some_and(|remote| remote.eof), "an end of data that nobody said");
            assert_eq!(bytes, said, "end of data before all data");
            assert!(self.half_close);
        }
        let Some((how, by)) = local.ended.as_ref().filter(|_| !local.reset) else { return };
        match how {
            Ended::Refused(reason) | Ended::NotTaken { reason, .. } => {
                assert!(local.end == 0 && !local.opened && *by == EndedBy::Close);
                if reason == LEAVING {
                    return assert!(remote.is_none(), "refused after it was let in");
                }
                let Exit::Refuse { .. } = self.plans[local.plan].exit else {
                    assert!(reason.starts_with("at most"), "refused for {reason}");
                    return;
                };
                assert!(
                    reason == REFUSAL || reason == "No server" || reason.starts_with("at most")
                );
            }
            Ended::Reset(reason) => {
                assert!(remote.is_some_and(|remote| remote.reset), "reset by nobody: {reason}");
                assert_eq!(reason, "connection reset by the script");
                if remote.is_some_and(|remote| remote.broken) && local.flow.is_none() {
                    assert_eq!(local.delivered, said, "reset before all data came");
                }
            }
            Ended::Orderly if self.half_close || *by == EndedBy::Close => {
                let remote = remote.expect("a stream that ended well had two ends");
                // In SockMux 1 it may have been reset after its last byte.
                assert!(remote.eof && (self.protocol == Protocol::V1 || !remote.reset));
                assert!(self.protocol == Protocol::V03 || (local.eof && local.peer_end.is_some()));
                assert_eq!(local.delivered, said, "closed before all data came");
                // The original drops data that its local side has not accepted soon after CLOSE.
                // Only first data, which it does not acknowledge, may still be waiting.
                if !self.half_close {
                    assert!(local.delivered - local.taken <= remote.framed_first);
                }
            }
            Ended::Orderly => {}
        }
    }

    fn check_rest(&self) {
        for side in &self.sides {
            side.check_users();
            assert_eq!(side.session.control_backlog(), 0);
            let link = side.session.link_counts();
            assert!(link.sent_bytes - link.consumed_bytes < limits::LINK_ACK_BYTES);
            assert_eq!(side.session.extra_window_bytes(), 0);
            assert_eq!(side.session.datagram_cost_bytes(), 0);
            assert_eq!(side.protocol, self.protocol);
        }
        for (n, plan) in self.plans.iter().enumerate() {
            let side = &self.sides[plan.opener];
            let began = side.local(n).is_some() || side.given_up.contains(&n);
            assert!(began, "plan {n} never began");
        }
    }

    /// The link breaks: the caller ends the streams of the sessions, and each session still has them.
    fn cut(self) -> Summary {
        for side in &self.sides {
            side.check_users();
        }
        self.summary(true)
    }

    fn summary(&self, was_cut: bool) -> Summary {
        let ended = |kind: fn(&Ended) -> bool| {
            let locals = self.sides.iter().flat_map(|side| &side.locals);
            locals.filter(|local| local.ended.as_ref().is_some_and(|(how, _)| kind(how))).count()
        };
        let datagrams = self.sides.iter().map(Side::datagrams);
        let (came, dropped) = datagrams.fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1));
        Summary {
            datagrams: came,
            datagrams_dropped: dropped,
            payload_bytes: self.sides.iter().map(|side| side.payload_in).sum(),
            streams: self.sides.iter().map(|side| side.locals.len()).max().unwrap_or(0),
            refused: ended(|how| matches!(how, Ended::Refused(_) | Ended::NotTaken { .. })),
            reset: ended(|how| matches!(how, Ended::Reset(_))),
            most_streams: self.most_streams,
            largest_id: self.sides.iter().map(Side::largest_id).max().unwrap_or(0),
            was_cut,
            late_frames: self.sides.iter().map(|side| side.late_frames).sum(),
            extra_window_bytes: self.extra_window_bytes,
            given_up: self.sides.iter().map(|side| side.given_up.len()).sum(),
            reset_half_closed: self.sides.iter().map(Side::reset_half_closed).sum(),
        }
    }

    fn describe(&self) -> String {
        let mut out = String::new();
        for side in &self.sides {
            let open = side.locals.iter().filter(|local| local.ended.is_none());
            out += &format!(
                "\nside {}: {} streams, up: {}, to open {:?}, next {:?}\n",
                side.name,
                side.session.stream_count(),
                side.session.is_up(),
                side.to_open,
                side.session.next_timeout()
            );
            for local in open {
                out += &format!("  {local:?}\n");
            }
        }
        out
    }
}
