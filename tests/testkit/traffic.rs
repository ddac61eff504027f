//! Traffic of an echo server that goes on until it is ended: streams that stay open with bytes both ways
//! all the time, and clients that come one after the other. None may be refused, reset or sent a wrong
//! byte.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::net::{check_echo, connect};
use super::{DEADLINE, eventually};

/// Streams that stay open.
const STREAMS: usize = 4;
/// Clients at a time.
const CLIENTS: usize = 3;
/// Between two clients of one place.
const REST: Duration = Duration::from_millis(3);

/// Some threads that do something again and again, until they are to end.
struct Crew {
    stops: Arc<AtomicBool>,
    done: Arc<Vec<AtomicUsize>>,
    threads: Vec<JoinHandle<()>>,
}

impl Crew {
    /// Each of `count` makes its own with its number, and does it as often as it can.
    fn start<M, F>(count: usize, make: M) -> Crew
    where
        M: Fn(usize) -> F,
        F: FnMut(u64) + Send + 'static,
    {
        let stops = Arc::new(AtomicBool::new(false));
        let done: Arc<Vec<AtomicUsize>> = Arc::new((0..count).map(|_| 0.into()).collect());
        let begin = |number: usize| {
            let (mut act, stops, done) = (make(number), Arc::clone(&stops), Arc::clone(&done));
            thread::spawn(move || {
                for round in 0.. {
                    if stops.load(Ordering::SeqCst) {
                        return;
                    }
                    act(round);
                    done[number].fetch_add(1, Ordering::SeqCst);
                }
            })
        };
        let threads = (0..count).map(begin).collect();
        Crew { stops, done, threads }
    }

    /// Waits until each has done it so many times more.
    fn goes_on(&self, times: usize) {
        let counts = || self.done.iter().map(|done| done.load(Ordering::SeqCst));
        let wanted: Vec<usize> = counts().map(|done| done + times).collect();
        let has = || counts().zip(&wanted).all(|(done, wanted)| done >= *wanted);
        let all_run = || self.threads.iter().all(|thread| !thread.is_finished());
        let goes_on = eventually(DEADLINE, || has() || !all_run()) && all_run();
        assert!(goes_on, "only {:?} of {wanted:?}", counts().collect::<Vec<_>>());
    }

    fn end(self) {
        self.stops.store(true, Ordering::SeqCst);
        for thread in self.threads {
            thread.join().expect("every byte as it should be");
        }
    }
}

/// The streams and the clients.
pub struct Traffic {
    streams: Crew,
    clients: Crew,
}

impl Traffic {
    /// Begins at an entrance that leads to a [`Server::echo`](super::servers::Server::echo), and waits
    /// until all of it is under way.
    pub fn start(entrance: SocketAddr) -> Traffic {
        let streams = Crew::start(STREAMS, |number| {
            let stream = connect(entrance);
            let bytes = if number == 0 { 2 << 20 } else { 1 << (5 * number) };
            move |round| check_echo(&stream, round, bytes)
        });
        let traffic = Traffic { streams, clients: Traffic::clients(entrance) };
        traffic.goes_on();
        traffic
    }

    fn clients(entrance: SocketAddr) -> Crew {
        Crew::start(CLIENTS, |_| {
            move |round| {
                check_echo(&connect(entrance), round, 3_000);
                thread::sleep(REST);
            }
        })
    }

    /// Waits until every stream has moved more, and more clients have been served.
    pub fn goes_on(&self) {
        self.streams.goes_on(2);
        self.clients.goes_on(10);
    }

    /// Ends the streams; the clients go on.
    pub fn end_streams(&mut self) {
        let none = Crew::start(0, |_| |_| ());
        std::mem::replace(&mut self.streams, none).end();
    }

    /// Ends all of it.
    pub fn end(self) {
        self.streams.end();
        self.clients.end();
    }
}
