//! Runs a script, and checks.

use fastrand::Rng;

use super::actors::{Actor, End};
use super::build::{ENTRANCE, LINK, SERVER, address, kernel, line, pipes, start};
use super::checks::{Had, check_one};
use super::datagrams::DatagramActors;
use super::script::{ExitKind, Fault, LinkKind, Script};
use super::sums::Sums;
use super::timers::Timers;
use crate::io::driver::{BufferClass, Completion, Driver};
use crate::io::link::Link;
use crate::io::sim::{Kernel, Side, SimDriver};
use crate::narrow;
use crate::worker::{Stopped, Worker};

/// Turns in a row that change nothing, and the time that they may not be within: a worker that makes
/// more is busy with nothing.
const IDLE_TURNS: usize = 100;
const IDLE_MICROS: u64 = 20_000;

/// Longest time that all may take, and most steps of it.
const END_MICROS: u64 = 900_000_000;
const STEPS_MAX: usize = 400_000;

/// How long after an end was told to stop its replacement listens.
const REPLACED_AFTER_MICROS: u64 = 50_000;

/// Longest that a short conversation takes while an end is replaced.
const REPLACE_WAIT_MICROS: u64 = 2_000_000;

/// Everything that has ended is gone within this time: with something that went wrong, and without.
const SETTLE_MICROS: u64 = 40_000_000;
const SETTLE_SOON_MICROS: u64 = 5_000_000;

/// Buffers of its own pool that a worker keeps: what frame heads and small pieces are written to.
const KEPT_BUFFERS: usize = 3;

/// One of the two workers.
struct WorkerEnd {
    worker: Option<Worker<SimDriver>>,
    stopped: Option<Stopped>,
    paused_until: u64,
    /// Turns in a row that changed nothing, and when they began.
    idle: (usize, u64),
    /// Frames that its tunnels had received after the last turn.
    frames_in: u64,
    /// Connections that it keeps: its links.
    keeps: usize,
    timers: Timers,
}

impl WorkerEnd {
    /// `owner` is its number for the kernel; an end that is replaced has several, one after another.
    fn new(script: &Script, end: usize, owner: usize, link: Option<Link>) -> WorkerEnd {
        let worker = start(script, end, owner, link);
        let mut timers = Timers::default();
        timers.ask(&worker, kernel(|kernel| kernel.now_micros()));
        WorkerEnd {
            worker: Some(worker),
            stopped: None,
            paused_until: 0,
            idle: (0, 0),
            frames_in: 0,
            keeps: usize::from(matches!(script.link, LinkKind::Tcp | LinkKind::Line(_))),
            timers,
        }
    }
}

struct World<'s> {
    script: &'s Script,
    rng: Rng,
    ends: Vec<WorkerEnd>,
    listener: usize,
    actors: Vec<Actor>,
    datagrams: Option<DatagramActors>,
    /// By conversation: of client and server.
    had: Vec<[Option<Had>; 2]>,
    begun: usize,
    /// When the client of each conversation was done.
    ended_at: Vec<u64>,
    faults_done: usize,
    /// When the replacement of an end begins, and of which.
    replaces_at: Option<(u64, usize)>,
    thaws_at: Option<u64>,
    completions: Vec<Completion>,
    sums: Sums,
}

/// Runs a script, and prints what happens if it is to. An error is a finding.
pub(super) fn run(script: &Script, traces: bool) -> Result<Sums, String> {
    Kernel::begin(script.seed, script.conditions);
    // Whoever else uses chance on this thread, such as the back-off.
    fastrand::seed(script.seed);
    kernel(|kernel| kernel.traces = traces);
    let mut world = World::new(script);
    world
        .talk()
        .and_then(|()| world.settle())
        .and_then(|()| world.stop())
        .map_err(|found| format!("{found} (after {} us)", kernel(|kernel| kernel.now_micros())))?;
    world.sums.damages = kernel(|kernel| kernel.damages());
    Ok(world.sums)
}

impl<'s> World<'s> {
    fn new(script: &'s Script) -> World<'s> {
        let listener = kernel(|kernel| {
            if script.exit == ExitKind::Silent {
                kernel.silence(address(SERVER));
            }
            kernel.listen_as_actor(address(if script.reaches_server() {
                SERVER
            } else {
                "10.0.0.8:1"
            }))
        });
        let mut links = match script.link {
            LinkKind::Tcp => [None, None],
            LinkKind::Pipes => pipes(Link::pipes),
            LinkKind::Fifos => pipes(Link::fifos),
            LinkKind::Line(bytes_per_second) => line(bytes_per_second),
        };
        let ends = [0, 1].map(|end| WorkerEnd::new(script, end, end, links[end].take())).into();
        World {
            script,
            rng: Rng::with_seed(script.seed ^ 0x77),
            ends,
            listener,
            actors: Vec::new(),
            datagrams: script.datagrams.map(DatagramActors::new),
            had: vec![[None, None]; script.conversations.len()],
            begun: 0,
            ended_at: vec![0; script.conversations.len()],
            faults_done: 0,
            replaces_at: None,
            thaws_at: None,
            completions: Vec::new(),
            sums: Sums::default(),
        }
    }

    /// Runs until all conversations are over.
    fn talk(&mut self) -> Result<(), String> {
        self.run_until(END_MICROS, |world| {
            let is_begun = world.begun == world.script.conversations.len();
            let is_over = |all: &DatagramActors| all.next_at().is_none();
            is_begun
                && world.actors.iter().all(|actor| actor.is_over)
                && world.datagrams.as_ref().is_none_or(is_over)
        })?;
        self.check_conversations()
    }

    /// Nothing of what has ended is left.
    fn settle(&mut self) -> Result<(), String> {
        let is_undisturbed = self.script.faults.is_empty() && !self.script.may_break();
        let settle_micros = if is_undisturbed { SETTLE_SOON_MICROS } else { SETTLE_MICROS };
        let until = kernel(|kernel| kernel.now_micros()) + settle_micros;
        let is_settled = |world: &World<'_>| {
            let now = kernel(|kernel| kernel.now_micros());
            let goes_on = world.thaws_at.is_some() || world.replaces_at.is_some();
            let is_paused = world.ends.iter().any(|end| end.paused_until > now);
            let is_over = world.faults_done == world.script.faults.len();
            is_over && !goes_on && !is_paused && world.left().is_none()
        };
        let result = self.run_until(until, is_settled);
        match self.left() {
            Some(left) => Err(format!("{left} is left")),
            None => result,
        }
    }

    /// What is left of streams in the ends that run.
    fn left(&self) -> Option<String> {
        self.ends.iter().enumerate().find_map(|(number, end)| {
            let worker = end.worker.as_ref()?;
            let driver = &worker.cx.driver;
            let conns = kernel(|kernel| kernel.open_conns(number));
            let pool = &worker.cx.buffers;
            let what = match () {
                () if worker.stream_count() > 0 => "a stream",
                // The link may be down.
                () if conns > end.keeps => "a socket",
                () if driver.free_buffers(BufferClass::Small)
                    < usize::from(self.script.conditions.buffers[0]) =>
                {
                    "a small buffer"
                }
                () if driver.free_buffers(BufferClass::Bulk)
                    < usize::from(self.script.conditions.buffers[1]) =>
                {
                    "a bulk buffer"
                }
                () if pool.free_buffers() + KEPT_BUFFERS < pool.pool().capacity() => {
                    "a pool buffer"
                }
                () if pool.pipes.used() > 0 => "a pipe",
                () => return None,
            };
            Some(format!("{what} of end {number}"))
        })
    }

    /// Both ends leave when they are told to.
    fn stop(&mut self) -> Result<(), String> {
        let until = kernel(|kernel| kernel.now_micros()) + SETTLE_MICROS;
        for end in 0..self.ends.len() {
            self.tell_to_stop(end);
        }
        self.run_until(until, |world| world.ends.iter().all(|end| end.stopped.is_some()))?;
        for end in &self.ends {
            match end.stopped {
                Some(Stopped::Drained | Stopped::LinkEnded { .. }) => self.sums.drained += 1,
                Some(Stopped::DeadlinePassed(_)) if self.script.may_break() => {}
                other => return Err(format!("it stopped by {other:?}")),
            }
        }
        let open = kernel(|kernel| {
            kernel.reap_closed();
            (0..self.ends.len()).map(|owner| kernel.open_descriptors(owner)).sum::<usize>()
        });
        if open > 0 { Err(format!("{open} descriptors stay open")) } else { Ok(()) }
    }

    fn tell_to_stop(&mut self, end: usize) {
        let end = &mut self.ends[end];
        if let Some(worker) = &mut end.worker
            && worker.cx.drain == crate::worker::Drain::No
        {
            worker.cx.tick();
            worker.stop();
            end.timers.ask(worker, worker.cx.now.0);
            // As the wake channel would: the loop turns once.
            end.paused_until = end.paused_until.min(worker.cx.now.0);
        }
    }

    /// Runs one step after another until `is_done`.
    fn run_until(&mut self, until: u64, is_done: impl Fn(&Self) -> bool) -> Result<(), String> {
        for _ in 0..STEPS_MAX {
            if is_done(self) {
                return Ok(());
            }
            let now = kernel(|kernel| kernel.now_micros());
            let Some(next) = self.next_at() else {
                return Err(format!("nothing goes on: {}", self.open()));
            };
            let next = next.max(now);
            if next > until {
                return Err(format!("it takes too long: {}", self.open()));
            }
            kernel(|kernel| kernel.set_time(next));
            self.step(next)?;
            self.sums.steps += 1;
        }
        let due: Vec<_> = (0..self.ends.len()).map(|end| self.due_of(end)).collect();
        let arrival = kernel(|kernel| kernel.next_arrival());
        Err(format!("too many steps; due {due:?}, arrival {arrival:?}: {}", self.open()))
    }

    /// What is not over.
    fn open(&self) -> String {
        let of =
            |actor: &Actor| format!("{actor:?} {:?}", kernel(|kernel| kernel.describe(actor.conn)));
        let actors: Vec<_> = self.actors.iter().map(of).collect();
        let of = |end: &WorkerEnd| end.worker.as_ref().map(Worker::stream_count);
        let streams: Vec<_> = self.ends.iter().map(of).collect();
        format!("streams {streams:?}, {}", actors.join(", "))
    }

    /// When something is due next.
    fn next_at(&mut self) -> Option<u64> {
        let ends = (0..self.ends.len()).filter_map(|end| self.due_of(end)).min();
        let replacement = self.replaces_at.map(|(at, _)| at);
        let datagrams = self.datagrams.as_ref().and_then(DatagramActors::next_at);
        let script = self.script;
        let actors = self.actors.iter().filter(|actor| !actor.is_over).map(|actor| actor.next_at);
        let fault = script.faults.get(self.faults_done).map(|&(at, _)| at);
        let begin = script.conversations.get(self.begun).map(|conversation| conversation.at);
        let arrival = kernel(|kernel| kernel.next_arrival());
        actors
            .chain(ends)
            .chain(fault)
            .chain(begin)
            .chain(arrival)
            .chain(self.thaws_at)
            .chain(replacement)
            .chain(datagrams)
            .min()
    }

    /// When an end has something to do.
    fn due_of(&mut self, end: usize) -> Option<u64> {
        let end = &mut self.ends[end];
        let worker = end.worker.as_mut()?;
        let time_left = worker.time_left();
        let timer = time_left.map(|left| worker.cx.now.0 + narrow::micros(left));
        let completion = kernel(|kernel| worker.cx.driver.next_completion(kernel));
        let due = [timer, completion].into_iter().flatten().min()?;
        Some(due.max(end.paused_until))
    }

    fn step(&mut self, now: u64) -> Result<(), String> {
        for end in &self.ends {
            end.timers.check_woken(now, end.paused_until)?;
        }
        if self.thaws_at.is_some_and(|at| at <= now) {
            self.thaws_at = None;
            self.freeze(false);
        }
        if let Some(&(at, fault)) = self.script.faults.get(self.faults_done)
            && at <= now
        {
            self.faults_done += 1;
            self.fault(fault, now);
        }
        if let Some(conversation) = self.script.conversations.get(self.begun)
            && conversation.at <= now
        {
            self.begin_conversation(now);
        }
        if let Some((at, end)) = self.replaces_at
            && at <= now
        {
            self.replaces_at = None;
            self.ends.push(WorkerEnd::new(self.script, end, self.ends.len(), None));
        }
        let count = self.ends.len();
        let first = self.rng.usize(..count);
        for at in 0..count {
            let end = (first + at) % count;
            if self.due_of(end).is_some_and(|due| due <= now) {
                self.turn(end)?;
            }
        }
        self.accept(now);
        if let Some(datagrams) = &mut self.datagrams {
            datagrams.step(now)?;
        }
        for actor in self.actors.iter_mut().filter(|actor| !actor.is_over && actor.next_at <= now) {
            kernel(|kernel| actor.step(kernel, &self.script.conversations))?;
        }
        for actor in self.actors.iter().filter(|actor| actor.is_over) {
            if let Some(number) = actor.number {
                let had = Had { received: actor.received, ended: actor.ended };
                self.had[number][actor.side() as usize] = Some(had);
                if actor.side() == Side::Near {
                    self.ended_at[number] = now;
                }
            }
        }
        self.actors.retain(|actor| !actor.is_over);
        Ok(())
    }

    fn begin_conversation(&mut self, now: u64) {
        let number = self.begun;
        self.begun += 1;
        match kernel(|kernel| kernel.connect(address(ENTRANCE))) {
            Ok(conn) => self.actors.push(Actor::new(conn, Side::Near, Some(number), now)),
            Err(_) => self.had[number][0] = Some(Had { ended: Some(End::Reset), ..Had::default() }),
        }
    }

    fn accept(&mut self, now: u64) {
        while let Some(conn) = kernel(|kernel| kernel.accept(self.listener)) {
            self.actors.push(Actor::new(conn, Side::Far, None, now));
        }
    }

    fn freeze(&mut self, frozen: bool) {
        kernel(|kernel| {
            for conn in kernel.conns_to(address(LINK)) {
                kernel.freeze(conn, frozen);
            }
        });
    }

    fn fault(&mut self, fault: Fault, now: u64) {
        match fault {
            // One that has ended stands still anyway.
            Fault::Pause(end, _) if self.ends[end].worker.is_none() => {}
            Fault::Pause(end, micros) => {
                self.ends[end].paused_until = now + u64::from(micros);
                self.sums.pauses += 1;
            }
            Fault::Freeze(micros) => {
                self.freeze(true);
                self.thaws_at = Some(now + u64::from(micros));
            }
            Fault::Cut => {
                self.sums.cuts += 1;
                kernel(|kernel| {
                    for conn in kernel.conns_to(address(LINK)) {
                        kernel.cut(conn);
                    }
                });
            }
            Fault::Stop(end) => self.tell_to_stop(end),
            Fault::Replace(end) => {
                self.sums.replaced += 1;
                self.tell_to_stop(end);
                self.replaces_at = Some((now + REPLACED_AFTER_MICROS, end));
            }
        }
    }

    /// A turn of one end.
    fn turn(&mut self, number: usize) -> Result<(), String> {
        let end = &mut self.ends[number];
        let Some(worker) = &mut end.worker else { return Ok(()) };
        let (before, began) = kernel(|kernel| {
            kernel.set_owner(number);
            (kernel.changes(), kernel.now_micros())
        });
        self.sums.add_timers(end.timers.due(began));
        let stopped = worker.turn(&mut self.completions).map_err(|error| error.to_string())?;
        self.sums.turns += 1;
        let (now, after) = kernel(|kernel| {
            kernel.reap_closed();
            (kernel.now_micros(), kernel.changes())
        });
        if let Some(stopped) = stopped {
            let counters = worker.cx.counters;
            self.sums.spliced_bytes += counters.spliced_from_local + counters.spliced_to_local;
            self.sums.copied_fallbacks += counters.pipe_full + counters.splice_refused;
            self.sums.resumed += counters.resumed;
            self.sums.encrypted += u64::from(worker.cx.encryption.is_some());
            self.sums.no_buffers += worker.cx.driver.counters().no_buffers;
            end.stopped = Some(stopped);
            end.worker = None;
            end.timers.clear();
            kernel(Kernel::reap_closed);
            return Ok(());
        }
        end.timers.ask(worker, now);
        end.timers.check_served(began).map_err(|found| format!("end {number}: {found}"))?;
        // What came before may be dealt with in turns of a few frames each.
        let frames_in = worker.streams.tunnels().frames_in();
        let dealt_with_any = frames_in != std::mem::replace(&mut end.frames_in, frames_in);
        if after != before || dealt_with_any {
            end.idle = (0, now);
        } else {
            end.idle.0 += 1;
            if end.idle.0 >= IDLE_TURNS && now < end.idle.1 + IDLE_MICROS {
                let left = worker.time_left();
                return Err(format!("end {number} is busy with nothing; time left {left:?}"));
            }
            if end.idle.0 >= IDLE_TURNS {
                end.idle = (0, now);
            }
        }
        // A turn takes time.
        let spent = self.rng.u64(1..=10);
        kernel(|kernel| kernel.set_time(now + spent));
        Ok(())
    }

    /// While an end is replaced, nobody waits for long.
    fn check_time(&self, number: usize) -> Result<(), String> {
        let took_micros =
            self.ended_at[number].saturating_sub(self.script.conversations[number].at);
        let is_quick = self.script.conversations[number].is_quick();
        if self.script.is_replaced() && is_quick && took_micros > REPLACE_WAIT_MICROS {
            return Err(format!("it waited for the replacement: it took {took_micros} us"));
        }
        Ok(())
    }

    fn check_conversations(&mut self) -> Result<(), String> {
        let (sent, answered) = self.datagrams.as_ref().map_or((0, 0), DatagramActors::counts);
        self.sums.datagrams += sent;
        self.sums.answered += answered;
        let may_break = self.script.may_break();
        for (number, conversation) in self.script.conversations.iter().enumerate() {
            self.sums.conversations += 1;
            let [client, server] = self.had[number];
            let client = client.ok_or_else(|| format!("conversation {number} has no client"))?;
            let found = check_one(conversation, client, server, may_break)
                .and_then(|()| self.check_time(number));
            found.map_err(|found| format!("conversation {number}: {found}"))?;
            match client.ended {
                Some(End::Eof) => self.sums.whole += 1,
                _ => self.sums.reset += 1,
            }
        }
        Ok(())
    }
}
