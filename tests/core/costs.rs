//! The costs of SockMux 1 on the link for a fixed amount of work, counted: frames by kind, bytes of heads,
//! batches. Two sessions work in virtual time, so the figures are the same in every run, on every machine.
//! A figure that grows by a tenth fails. If that is the price of a feature, its line in the table is
//! raised by hand; a figure that has fallen is to be lowered.

use std::collections::BTreeMap;
use std::time::Duration;

use sockmux_uring::limits::PIPE_BYTES;
use sockmux_uring::session::Moment;

use crate::testkit::pure::costs::{Cost, check, exact};
use crate::testkit::pure::joined::{End, Link};
use crate::testkit::pure::lone::START;

/// Both directions together. A batch is all frames of one end in one turn.
const COSTS: &[Cost] = &[
    exact("1 GiB in 1 stream: CREDIT", 513.0),
    exact("1 GiB in 1 stream: DATA", 1_026.0),
    exact("1 GiB in 1 stream: LANE_TAKEN", 1_027.0),
    exact("1 GiB in 1 stream: OPEN", 1.0),
    exact("1 GiB in 1 stream: OPENED", 1.0),
    exact("1 GiB in 1 stream: PING", 6.0),
    exact("1 GiB in 1 stream: PONG", 6.0),
    exact("1 GiB in 1 stream: batches", 2_055.0),
    exact("1 GiB in 1 stream: bytes of heads", 41_396.0),
    exact("1 GiB in 8 streams: CREDIT", 552.0),
    exact("1 GiB in 8 streams: DATA", 7_181.0),
    exact("1 GiB in 8 streams: LANE_TAKEN", 7_018.0),
    exact("1 GiB in 8 streams: OPEN", 8.0),
    exact("1 GiB in 8 streams: OPENED", 8.0),
    exact("1 GiB in 8 streams: PING", 6.0),
    exact("1 GiB in 8 streams: PONG", 6.0),
    exact("1 GiB in 8 streams: batches", 13_744.0),
    exact("1 GiB in 8 streams: bytes of heads", 236_456.0),
    exact("10,000 messages and answers: CREDIT", 8.0),
    exact("10,000 messages and answers: DATA", 19_999.0),
    exact("10,000 messages and answers: LANE_TAKEN", 26.0),
    exact("10,000 messages and answers: OPEN", 1.0),
    exact("10,000 messages and answers: OPENED", 1.0),
    exact("10,000 messages and answers: PING", 8.0),
    exact("10,000 messages and answers: PONG", 8.0),
    exact("10,000 messages and answers: batches", 20_000.0),
    exact("10,000 messages and answers: bytes of heads", 241_048.0),
    exact("1,000 connections: DATA", 1_000.0),
    exact("1,000 connections: END", 2_000.0),
    exact("1,000 connections: LANE_TAKEN", 2.0),
    exact("1,000 connections: OPEN", 1_000.0),
    exact("1,000 connections: OPENED", 1_000.0),
    exact("1,000 connections: batches", 3_000.0),
    exact("1,000 connections: bytes of heads", 144_040.0),
];

/// The path between hosts of one site.
const BYTES_PER_SEC: u64 = 3_000_000_000;
const ONE_WAY: Duration = Duration::from_micros(25);

const BULK_BYTES: u64 = 1 << 30;
const MESSAGES: u64 = 10_000;
const MESSAGE_BYTES: u64 = 64;
const CONNECTIONS: u64 = 1_000;

/// Two ends that are up: the client's and the server's.
struct Pair {
    ends: [End; 2],
    links: [Link; 2],
    now: Moment,
    batches: u64,
}

impl Pair {
    fn start() -> Pair {
        let mut pair = Pair {
            ends: [(); 2].map(|()| End::new(|_| true)),
            links: [(); 2].map(|()| Link::new(BYTES_PER_SEC, ONE_WAY)),
            now: START,
            batches: 0,
        };
        // Until the round trip is known, too.
        while pair.turn(|_, _| {}) {}
        assert!(pair.ends.iter().all(|end| end.session.is_up()));
        for end in &mut pair.ends {
            end.frames.clear();
            end.head_bytes = 0;
        }
        pair.batches = 0;
        pair
    }

    /// Each end handles its input, `works`, and sends its output. Then time advances to the next arrival:
    /// `false` when nothing is in flight.
    fn turn(&mut self, mut works: impl FnMut([&mut End; 2], Moment)) -> bool {
        let now = self.now;
        let [client, server] = &mut self.ends;
        let [up, down] = &mut self.links;
        client.receive(down, now);
        server.receive(up, now);
        for end in [&mut *client, &mut *server] {
            if end.session.next_timeout().is_some_and(|at| at <= now) {
                end.session.on_time(now).expect("nobody is silent");
            }
        }
        works([&mut *client, &mut *server], now);
        self.batches += u64::from(client.transmit(up, now));
        self.batches += u64::from(server.transmit(down, now));
        let arrivals = self.links.iter().filter_map(Link::next);
        let Some(next) = arrivals.min() else { return false };
        self.now = next;
        true
    }

    /// The counts of all of the work.
    fn figures(&self, work: &str) -> Vec<(String, f64)> {
        let head_bytes = self.ends.iter().map(|end| end.head_bytes).sum();
        let mut counts =
            BTreeMap::from([("batches", self.batches), ("bytes of heads", head_bytes)]);
        for (kind, frames) in self.ends.iter().flat_map(|end| &end.frames) {
            *counts.entry(kind).or_default() += frames;
        }
        counts.iter().map(|(what, &n)| (format!("{work}: {what}"), n as f64)).collect()
    }
}

/// So many streams move a gibibyte together, a pipe full at a time as if it were spliced; all of it is
/// taken at once.
fn bulk(work: &str, streams: u64) -> Vec<(String, f64)> {
    let mut pair = Pair::start();
    (0..streams).for_each(|_| pair.ends[0].open());
    let mut left = vec![BULK_BYTES / streams; streams as usize];
    let mut goes_on = true;
    while goes_on {
        goes_on = pair.turn(|[client, server], now| {
            for (user, left) in left.iter_mut().enumerate() {
                while *left > 0 && client.session.may_read(client.keys[user]) {
                    let bytes = (PIPE_BYTES as u64).min(*left);
                    client.session.data_ready(client.keys[user], bytes);
                    *left -= bytes;
                }
            }
            server.take(now);
        });
    }
    assert_eq!(pair.ends[1].delivered_bytes, BULK_BYTES);
    pair.figures(work)
}

/// Small messages in one stream, each of which is answered before the next.
fn messages(work: &str) -> Vec<(String, f64)> {
    let mut pair = Pair::start();
    pair.ends[0].open();
    let (mut asked, mut goes_on) = (0, true);
    while goes_on {
        goes_on = pair.turn(|[client, server], now| {
            if asked == 0 || (client.take_of(0, now) == MESSAGE_BYTES && asked < MESSAGES) {
                client.session.data_ready(client.keys[0], MESSAGE_BYTES);
                asked += 1;
            }
            if !server.keys.is_empty() && server.take_of(0, now) == MESSAGE_BYTES {
                server.session.data_ready(server.keys[0], MESSAGE_BYTES);
            }
        });
    }
    let delivered = pair.ends.each_ref().map(|end| end.delivered_bytes);
    assert_eq!(delivered, [MESSAGES * MESSAGE_BYTES; 2]);
    pair.figures(work)
}

/// Streams one after another: a question, its answer, the end, which the server begins.
fn connections(work: &str) -> Vec<(String, f64)> {
    let mut pair = Pair::start();
    for connection in 0..CONNECTIONS as usize {
        pair.ends[0].open();
        let (mut asked, mut goes_on) = (false, true);
        while goes_on {
            goes_on = pair.turn(|[client, server], now| {
                if !std::mem::replace(&mut asked, true) {
                    client.session.data_ready(client.keys[connection], MESSAGE_BYTES);
                }
                if server.keys.len() > connection
                    && server.take_of(connection, now) == MESSAGE_BYTES
                {
                    server.session.data_ready(server.keys[connection], MESSAGE_BYTES);
                    server.session.data_end(server.keys[connection], now);
                }
                client.take_of(connection, now);
                if client.ended.pop().is_some() {
                    client.session.data_end(client.keys[connection], now);
                }
            });
        }
    }
    for end in &pair.ends {
        assert_eq!(end.delivered_bytes, CONNECTIONS * MESSAGE_BYTES);
        assert_eq!(end.session.stream_count(), 0, "all have ended");
    }
    pair.figures(work)
}

#[test]
fn no_work_costs_more_on_the_link_than_it_may() {
    let figures = [
        bulk("1 GiB in 1 stream", 1),
        bulk("1 GiB in 8 streams", 8),
        messages("10,000 messages and answers"),
        connections("1,000 connections"),
    ]
    .concat();
    check(COSTS, &figures);
}
