#![allow(unsafe_code)]
//! The driver over one io_uring.
//!
//! One ring, made and used by one thread (`SINGLE_ISSUER`), whose completions are worked out only
//! when that thread enters to wait (`DEFER_TASKRUN`): no interruptions between. Operations are
//! queued and given to the kernel together, in the next wait.
//!
//! Who owns what: whatever the kernel may touch for an operation (descriptor, gather, address)
//! moves into a slot and stays until the operation's last completion; bytes that it sends without
//! a copy are held until it gives notice; the buffers it receives into belong to groups that outlive
//! all operations. If a driver is dropped and the kernel does not end its operations in time, all
//! that is leaked rather than freed under the kernel's hands.

mod buffers;
mod complete;
mod error;
mod probe;
mod request;
mod setup;
mod slots;
mod teardown;
mod zero_copy;

use std::collections::VecDeque;
use std::io;
use std::mem::ManuallyDrop;
use std::time::{Duration, Instant};

use io_uring::types::{SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring};
use socket2::SockAddr;

use self::buffers::BufferGroup;
pub use self::error::{SetupError, SetupStep};
pub use self::probe::probe;
use self::request::Request;
pub use self::setup::UringConfig;
use self::slots::{Held, OWN, Ops, What, notice_data, user_data};
use self::zero_copy::ZeroCopy;
use super::driver::{
    BufferClass, Completion, Driver, DriverCounters, Fd, Gather, OpId, RecvMode, SendWait, Token,
};
use super::lent::Lent;
use crate::limits::{URING_COMPLETIONS_MAX, URING_SUBMIT_TRIES_MAX};
use crate::narrow::to_u32;

/// [`Driver`] over io_uring. Belongs to the thread that made it.
pub struct UringDriver {
    ring: IoUring,
    /// Not dropped as a matter of course: see `teardown`.
    ops: ManuallyDrop<Ops>,
    /// By [`BufferClass`]. Not dropped as a matter of course either.
    groups: ManuallyDrop<[BufferGroup; 2]>,
    /// Nor this.
    zero_copy: ManuallyDrop<ZeroCopy>,
    /// Operations that did not fit in the queue, in order. Rarely any.
    spill: VecDeque<Request>,
    began: Instant,
    counters: DriverCounters,
}

impl UringDriver {
    /// Sets up the ring and its buffers, and sees that the kernel runs an operation.
    ///
    /// # Errors
    ///
    /// What the kernel refused, why that may be, and what to do about it.
    pub fn new(config: &UringConfig) -> Result<Self, SetupError> {
        setup::new_driver(config)
    }

    fn from_parts(
        ring: IoUring,
        groups: [BufferGroup; 2],
        zero_copy: ZeroCopy,
        operations: usize,
    ) -> Self {
        Self {
            ring,
            ops: ManuallyDrop::new(Ops::with_capacity(operations)),
            groups: ManuallyDrop::new(groups),
            zero_copy: ManuallyDrop::new(zero_copy),
            spill: VecDeque::new(),
            began: Instant::now(),
            counters: DriverCounters::default(),
        }
    }

    /// Books an operation and queues it.
    #[inline]
    fn start(&mut self, fd: &Fd, token: Token, what: What, held: Held, request: Request) -> OpId {
        let id = self.ops.insert(fd, token, what, held);
        self.push(request.named(user_data(id)));
        id
    }

    /// Chunks of bulk receive buffers in zero-copy sends that the far end has not acknowledged.
    /// Nothing can take them back.
    #[cfg(test)]
    pub(crate) fn pinned_chunks(&self) -> usize {
        self.zero_copy.bulk_chunks()
    }

    /// Sends from our own pages, as was admitted.
    fn send_zero_copy(&mut self, fd: &Fd, gather: Box<Gather>, flags: i32, token: Token) -> OpId {
        let notice = self.zero_copy.begin(fd, &gather);
        let gather = Lent::new(gather);
        // SAFETY: the gather is lent in the operation's slot until the first completion, which gives
        // it back; `zero_copy` holds its chunks, which are not written to, until the notice.
        let request = unsafe { Request::send(fd, &gather, flags, true) };
        let (what, held) = (What::SendZeroCopy(notice), Held::Gather(gather));
        let id = self.ops.insert(fd, token, what, held);
        self.zero_copy.name(notice, id);
        self.counters.zero_copy_sends += 1;
        self.push(request.named(notice_data(notice)));
        id
    }

    #[inline]
    fn push(&mut self, request: Request) {
        if self.spill.is_empty() && request.queue(&mut self.ring) {
            return;
        }
        self.push_to_full(request);
    }

    /// Submits early to make room. If the kernel refuses, the request waits for the next wait, which
    /// can reap completions and report errors.
    #[cold]
    fn push_to_full(&mut self, request: Request) {
        self.counters.queue_full += 1;
        if self.spill.is_empty() {
            self.replenish();
            // An error lasts until the next wait, where it is seen again and dealt with.
            if self.enter(0, EnterFlags::empty(), &SubmitArgs::new()).is_ok()
                && request.queue(&mut self.ring)
            {
                return;
            }
        }
        self.spill.push_back(request);
    }

    fn unspill(&mut self) {
        while let Some(request) = self.spill.pop_front() {
            if !request.queue(&mut self.ring) {
                self.spill.push_front(request);
                return;
            }
        }
    }

    #[inline]
    fn replenish(&mut self) {
        for group in self.groups.iter_mut() {
            group.replenish();
        }
    }

    #[inline]
    fn enter(&mut self, want: u32, flags: EnterFlags, args: &SubmitArgs<'_, '_>) -> io::Result<()> {
        let queued = to_u32(self.ring.submission().len());
        let flags = (flags | EnterFlags::EXT_ARG).bits();
        self.counters.enters += 1;
        // SAFETY: `args` is laid out as EXT_ARG has it and outlives the call, as does the time it
        // points to; the queued entries are sound by `Request`.
        let submitted = unsafe { self.ring.submitter().enter(queued, want, flags, Some(args)) }?;
        self.counters.submissions += submitted as u64;
        Ok(())
    }

    /// Submits, and waits for a completion (`time_left` of zero: only runs what the kernel has
    /// deferred).
    #[inline]
    fn enter_for_events(&mut self, time_left: Option<Duration>) -> io::Result<()> {
        let args = SubmitArgs::new();
        match time_left {
            None => self.enter(1, EnterFlags::GETEVENTS, &args),
            Some(Duration::ZERO) => {
                let queue = self.ring.submission();
                // The kernel says when it has something deferred, so a spinning caller does not
                // have to enter to find out.
                if queue.is_empty() && !queue.taskrun() && !queue.cq_overflow() {
                    return Ok(());
                }
                drop(queue);
                // With nothing to wait for, GETEVENTS is what makes deferred work run.
                self.enter(0, EnterFlags::GETEVENTS, &args)
            }
            Some(time_left) => {
                let time_left = Timespec::from(time_left);
                self.enter(1, EnterFlags::GETEVENTS, &args.timespec(&time_left))
            }
        }
    }
}

impl Driver for UringDriver {
    fn name(&self) -> &'static str {
        "io_uring"
    }

    #[inline]
    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn accept(&mut self, fd: &Fd, token: Token) -> OpId {
        self.start(fd, token, What::Accept, Held::Nothing, Request::accept(fd))
    }

    fn accept_one(&mut self, fd: &Fd, token: Token) -> OpId {
        self.start(fd, token, What::Accept, Held::Nothing, Request::accept_one(fd))
    }

    #[inline]
    fn recv(&mut self, fd: &Fd, mode: RecvMode, class: BufferClass, token: Token) -> OpId {
        self.counters.receives += 1;
        let request = Request::recv(fd, mode, self.groups[class as usize].id());
        self.start(fd, token, What::Recv(class), Held::Nothing, request)
    }

    #[inline]
    fn send(&mut self, fd: &Fd, gather: Box<Gather>, wait: SendWait, token: Token) -> OpId {
        self.counters.sends += 1;
        let flags = match wait {
            SendWait::Yes => libc::MSG_NOSIGNAL,
            SendWait::No => libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT,
        };
        if wait == SendWait::Yes && self.zero_copy.admits(fd, &gather) {
            return self.send_zero_copy(fd, gather, flags, token);
        }
        let gather = Lent::new(gather);
        // SAFETY: the gather is lent in the operation's slot, untouched, until its completion gives
        // it back.
        let request = unsafe { Request::send(fd, &gather, flags, false) };
        self.start(fd, token, What::Send, Held::Gather(gather), request)
    }

    fn connect(&mut self, fd: &Fd, addr: SockAddr, token: Token) -> OpId {
        let address = Lent::new(Box::new(addr));
        // SAFETY: the address is lent in the operation's slot until its completion.
        let request = unsafe { Request::connect(fd, &address) };
        self.start(fd, token, What::Connect, Held::Address(address), request)
    }

    fn poll(&mut self, fd: &Fd, events: u32, multishot: bool, token: Token) -> OpId {
        self.counters.polls += 1;
        let request = Request::poll(fd, events, multishot);
        self.start(fd, token, What::Poll, Held::Nothing, request)
    }

    fn cancel(&mut self, op: OpId) {
        let Some(started) = self.ops.get(op) else {
            self.counters.stale += 1;
            return;
        };
        let travels_as = match started.what {
            What::SendZeroCopy(notice) => notice_data(notice),
            _ => user_data(op),
        };
        self.push(Request::cancel(travels_as).named(OWN));
    }

    fn cancel_all(&mut self, fd: &Fd) {
        let mut next = self.ops.newest_on(fd);
        while let Some(op) = next {
            self.cancel(op);
            next = self.ops.older_than(op);
        }
    }

    fn wait(&mut self, timeout: Option<Duration>, out: &mut Vec<Completion>) -> io::Result<()> {
        let before = out.len();
        // A time too far off to be reckoned with is none.
        let deadline = timeout
            .filter(|timeout| !timeout.is_zero())
            .and_then(|timeout| Instant::now().checked_add(timeout));
        let mut time_left = timeout;
        let mut refused = 0;
        loop {
            self.replenish();
            self.unspill();
            let must_not_block = out.len() > before || !self.spill.is_empty() || refused > 0;
            let wait = if must_not_block { Some(Duration::ZERO) } else { time_left };
            let entered = self.enter_for_events(wait);
            let reaped = self.reap(out);
            match entered.as_ref().map_err(io::Error::raw_os_error) {
                Ok(()) => refused = 0,
                Err(Some(libc::ETIME | libc::EINTR)) => return Ok(()),
                Err(Some(libc::EAGAIN | libc::EBUSY)) => {
                    self.counters.retries += 1;
                    refused += 1;
                    if refused < URING_SUBMIT_TRIES_MAX {
                        continue;
                    }
                    // What was reaped must be seen; the refusal can be met again next time.
                    return if out.len() > before { Ok(()) } else { entered };
                }
                Err(_) => return entered,
            }
            let queue = self.ring.submission();
            let overflowed = queue.cq_overflow();
            let submitted = queue.is_empty();
            let came = out.len() - before;
            let deferred =
                queue.taskrun() && reaped > 0 && (1..URING_COMPLETIONS_MAX).contains(&came);
            drop(queue);
            self.counters.overflows += u64::from(overflowed);
            // Newer kernels run twenty of what is deferred, and leave the rest. More than that may have come
            // of what was started in a turn, so the rest would grow from turn to turn.
            if overflowed || deferred || !submitted || !self.spill.is_empty() {
                continue;
            }
            if out.len() > before || (reaped == 0 && !must_not_block) {
                return Ok(());
            }
            // Only cancellations have ended, or this was about submitting: wait on.
            if let Some(deadline) = deadline {
                time_left = Some(deadline.saturating_duration_since(Instant::now()));
            }
            if time_left == Some(Duration::ZERO) {
                return Ok(());
            }
        }
    }

    fn watch_for(&mut self, time: Duration) {
        self.replenish();
        self.unspill();
        // An error lasts until the next wait, where it is dealt with.
        if self.enter(0, EnterFlags::empty(), &SubmitArgs::new()).is_err() {
            return;
        }
        let until = Instant::now() + time;
        loop {
            let queue = self.ring.submission();
            // The kernel says when it has work deferred to our next enter.
            let any = queue.taskrun() || queue.cq_overflow();
            drop(queue);
            if any || !self.ring.completion().is_empty() || Instant::now() >= until {
                return;
            }
            std::thread::yield_now();
        }
    }

    #[inline]
    fn free_buffers(&self, class: BufferClass) -> usize {
        self.groups[class as usize].free()
    }

    #[inline]
    fn in_flight(&self) -> usize {
        self.ops.len()
    }

    fn counters(&self) -> &DriverCounters {
        &self.counters
    }
}
