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
mod setup;
mod slots;
mod teardown;
mod zero_copy;

use std::collections::VecDeque;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use io_uring::types::{self, CancelBuilder, SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, opcode, squeue};
use socket2::SockAddr;

use self::buffers::BufferGroup;
pub use self::error::{SetupError, SetupStep};
pub use self::probe::probe;
pub use self::setup::UringConfig;
use self::slots::{Held, OWN, Op, What, notice_data, user_data};
use self::zero_copy::{ZeroCopy, plain_entry, zero_copy_entry};
use super::driver::{
    BufferClass, Completion, Driver, DriverCounters, Fd, Gather, OpId, RecvMode, SendWait, Token,
};
use super::slots::Slots;
use crate::limits::URING_SUBMIT_TRIES_MAX;

/// [`Driver`] over io_uring. Belongs to the thread that made it.
pub struct UringDriver {
    ring: IoUring,
    /// Not dropped as a matter of course: see `teardown`.
    slots: ManuallyDrop<Slots<Op>>,
    /// By [`BufferClass`]. Not dropped as a matter of course either.
    groups: ManuallyDrop<[BufferGroup; 2]>,
    /// Nor this.
    zero_copy: ManuallyDrop<ZeroCopy>,
    /// Operations that did not fit in the queue, in order. Rarely any.
    spill: VecDeque<squeue::Entry>,
    /// Slots in use by operations of the driver's own.
    own_slots: usize,
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

    fn from_parts(ring: IoUring, groups: [BufferGroup; 2], operations: usize) -> Self {
        let zero_copy = ZeroCopy::new(&ring.submitter());
        Self {
            ring,
            slots: ManuallyDrop::new(Slots::with_capacity(operations)),
            groups: ManuallyDrop::new(groups),
            zero_copy: ManuallyDrop::new(zero_copy),
            spill: VecDeque::new(),
            own_slots: 0,
            counters: DriverCounters::default(),
        }
    }

    /// Books an operation and queues it. What `entry` points to is in `held` or in a buffer group.
    #[inline]
    fn start(
        &mut self,
        fd: &Fd,
        token: Token,
        what: What,
        held: Held,
        entry: squeue::Entry,
    ) -> OpId {
        let id = self.slots.insert(Op { token, what, held, fd: Fd::clone(fd) });
        self.push(entry.user_data(user_data(id)));
        id
    }

    /// Sends from our own pages, as was admitted.
    fn send_zero_copy(
        &mut self,
        fd: &Fd,
        mut gather: Box<Gather>,
        flags: i32,
        token: Token,
    ) -> OpId {
        let target = types::Fd(fd.as_raw_fd());
        let entry = zero_copy_entry(target, &mut gather, flags);
        let notice = self.zero_copy.begin(fd, &gather);
        let (what, held) = (What::SendZeroCopy(notice), Held::Gather(gather));
        let id = self.slots.insert(Op { token, what, held, fd: Fd::clone(fd) });
        self.zero_copy.name(notice, id);
        self.counters.zero_copy_sends += 1;
        self.push(entry.user_data(notice_data(notice)));
        id
    }

    #[inline]
    fn push(&mut self, entry: squeue::Entry) {
        if self.spill.is_empty() && self.try_push(&entry) {
            return;
        }
        self.push_to_full(entry);
    }

    #[inline]
    fn try_push(&mut self, entry: &squeue::Entry) -> bool {
        // SAFETY: what the entry points to lives until its last completion: descriptors, gathers
        // (whose box does not move its contents) and addresses in its slot; buffers in a group;
        // bytes sent without a copy in `zero_copy`, until the kernel's notice.
        unsafe { self.ring.submission().push(entry) }.is_ok()
    }

    /// Submits early to make room. If the kernel refuses, the entry waits for the next wait, which
    /// can reap completions and report errors.
    #[cold]
    fn push_to_full(&mut self, entry: squeue::Entry) {
        self.counters.queue_full += 1;
        if self.spill.is_empty() {
            self.replenish();
            // An error lasts until the next wait, where it is seen again and dealt with.
            if self.enter(0, EnterFlags::empty(), &SubmitArgs::new()).is_ok()
                && self.try_push(&entry)
            {
                return;
            }
        }
        self.spill.push_back(entry);
    }

    fn unspill(&mut self) {
        while let Some(entry) = self.spill.pop_front() {
            if !self.try_push(&entry) {
                self.spill.push_front(entry);
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
        let queued = self.ring.submission().len() as u32;
        let flags = (flags | EnterFlags::EXT_ARG).bits();
        self.counters.enters += 1;
        // SAFETY: `args` is laid out as EXT_ARG has it and outlives the call, as does the time it
        // points to; the queued entries are sound by `try_push`.
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

    fn accept(&mut self, fd: &Fd, token: Token) -> OpId {
        let entry = opcode::AcceptMulti::new(types::Fd(fd.as_raw_fd()))
            .flags(libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC)
            .build();
        self.start(fd, token, What::Accept, Held::Nothing, entry)
    }

    fn accept_one(&mut self, fd: &Fd, token: Token) -> OpId {
        // Nobody asks whose address it is.
        let (address, len) = (std::ptr::null_mut(), std::ptr::null_mut());
        let entry = opcode::Accept::new(types::Fd(fd.as_raw_fd()), address, len)
            .flags(libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC)
            .build();
        self.start(fd, token, What::Accept, Held::Nothing, entry)
    }

    #[inline]
    fn recv(&mut self, fd: &Fd, mode: RecvMode, class: BufferClass, token: Token) -> OpId {
        self.counters.receives += 1;
        let group = self.groups[class as usize].id();
        let target = types::Fd(fd.as_raw_fd());
        let entry = match mode {
            RecvMode::Multishot => opcode::RecvMulti::new(target, group).build(),
            // Length 0: as much as the chosen buffer holds.
            RecvMode::Now => opcode::Recv::new(target, std::ptr::null_mut(), 0)
                .flags(libc::MSG_DONTWAIT)
                .buf_group(group)
                .build()
                .flags(squeue::Flags::BUFFER_SELECT),
        };
        self.start(fd, token, What::Recv(class), Held::Nothing, entry)
    }

    #[inline]
    fn send(&mut self, fd: &Fd, mut gather: Box<Gather>, wait: SendWait, token: Token) -> OpId {
        self.counters.sends += 1;
        let target = types::Fd(fd.as_raw_fd());
        let flags = match wait {
            SendWait::Yes => libc::MSG_NOSIGNAL,
            SendWait::No => libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT,
        };
        if wait == SendWait::Yes && self.zero_copy.admits(fd, &gather) {
            return self.send_zero_copy(fd, gather, flags, token);
        }
        let entry = plain_entry(target, &mut gather, flags);
        self.start(fd, token, What::Send, Held::Gather(gather), entry)
    }

    fn connect(&mut self, fd: &Fd, addr: SockAddr, token: Token) -> OpId {
        let addr = Box::new(addr);
        let target = types::Fd(fd.as_raw_fd());
        let entry = opcode::Connect::new(target, addr.as_ptr().cast(), addr.len()).build();
        self.start(fd, token, What::Connect, Held::Address { _boxed: addr }, entry)
    }

    fn poll(&mut self, fd: &Fd, events: u32, multishot: bool, token: Token) -> OpId {
        self.counters.polls += 1;
        let target = types::Fd(fd.as_raw_fd());
        let entry = opcode::PollAdd::new(target, events).multi(multishot).build();
        self.start(fd, token, What::Poll, Held::Nothing, entry)
    }

    fn cancel(&mut self, op: OpId) {
        let Some(started) = self.slots.get(op) else {
            self.counters.stale += 1;
            return;
        };
        let travels_as = match started.what {
            What::SendZeroCopy(notice) => notice_data(notice),
            _ => user_data(op),
        };
        self.push(opcode::AsyncCancel::new(travels_as).build().user_data(OWN));
    }

    fn cancel_all(&mut self, fd: &Fd) {
        // In a slot, for the descriptor: by the time the kernel reads its number, the operations
        // that keep it open may be over, and the number another file's.
        let by_fd = CancelBuilder::fd(types::Fd(fd.as_raw_fd())).all();
        let entry = opcode::AsyncCancel2::new(by_fd).build();
        self.own_slots += 1;
        self.start(fd, Token(OWN), What::CancelAll, Held::Nothing, entry);
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
            drop(queue);
            self.counters.overflows += u64::from(overflowed);
            if overflowed || !submitted || !self.spill.is_empty() {
                continue;
            }
            if out.len() > before || (reaped == 0 && !must_not_block) {
                return Ok(());
            }
            // Only the driver's own operations have ended, or this was about submitting: wait on.
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
        self.slots.len() - self.own_slots
    }

    fn counters(&self) -> &DriverCounters {
        &self.counters
    }
}
