//! Large sends from our own pages, on the paths where the kernel really does not copy them.
//!
//! Such a send completes twice: with its result, when the worker gets its gather back as from any
//! other, and with a notice, when the kernel needs the bytes no longer; until then their chunks are
//! held here. The notice also says whether the kernel had to copy them after all. On loopback and
//! on many virtual devices it always has to, which costs more than the plain send; hence each
//! descriptor is tried once, and what comes of that decides about its later sends.

use std::os::fd::OwnedFd;
use std::rc::{Rc, Weak};

use io_uring::{Probe, Submitter, opcode};

use crate::io::chunk::Chunk;
use crate::io::driver::{DriverCounters, Fd, Gather, OpId};
use crate::limits::{ZERO_COPY_BYTES_MIN, ZERO_COPY_PARTS_MAX, ZERO_COPY_PATHS_MAX};
use crate::narrow::to_u32;

/// `IORING_NOTIF_USAGE_ZC_COPIED`, in the result of a notice.
const COPIED: u32 = 1 << 31;

/// Where a descriptor leads to, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Not tried, or without a result.
    Open,
    /// The first send is on its way; others go plainly until its notice comes.
    Asked,
    /// The kernel did not copy.
    Spared,
    /// It copied, or cannot send from our pages at all.
    Copied,
}

/// A descriptor that was tried.
#[derive(Debug)]
struct Path {
    /// Does not keep it open, but keeps its address from being given to another.
    fd: Weak<OwnedFd>,
    verdict: Verdict,
}

/// A send that the kernel has not given its notice of.
#[derive(Debug)]
struct Notice {
    /// Until the first completion.
    op: Option<OpId>,
    fd: Weak<OwnedFd>,
    /// What the kernel may still read. Empty: the entry is free.
    chunks: Vec<Chunk>,
    /// Whether any byte was sent, without which the notice means nothing.
    sent: bool,
}

/// What has come of a send, by its first completion.
pub(super) enum Sent {
    /// The operation is over, as far as the worker is concerned.
    Over(OpId),
    /// The kernel does not send from our pages: the operation is to be done plainly.
    Refused(OpId),
}

/// The paths tried and the sends not yet given notice of. Nothing in it is allocated once it has
/// its usual size.
#[derive(Debug)]
pub(super) struct ZeroCopy {
    /// Whether the kernel knows the operations.
    supported: bool,
    paths: Vec<Path>,
    notices: Vec<Notice>,
    /// Chunks in all notices together.
    held_parts: usize,
    outstanding: usize,
}

impl ZeroCopy {
    pub(super) fn new(submitter: &Submitter<'_>) -> Self {
        let mut probe = Probe::new();
        let supported = submitter.register_probe(&mut probe).is_ok()
            && probe.is_supported(opcode::SendZc::CODE)
            && probe.is_supported(opcode::SendMsgZc::CODE);
        Self {
            supported,
            paths: Vec::with_capacity(ZERO_COPY_PATHS_MAX),
            notices: Vec::with_capacity(ZERO_COPY_PARTS_MAX),
            held_parts: 0,
            outstanding: 0,
        }
    }

    /// Sends that the kernel has not given its notice of.
    #[inline]
    pub(super) fn outstanding(&self) -> usize {
        self.outstanding
    }

    /// Chunks of bulk receive buffers that the kernel may still read.
    #[cfg(test)]
    pub(super) fn bulk_chunks(&self) -> usize {
        let chunks = self.notices.iter().flat_map(|notice| &notice.chunks);
        chunks.filter(|chunk| chunk.buffer_bytes() == crate::limits::BULK_BUFFER_BYTES).count()
    }

    /// Whether `gather` is to be sent to `fd` without a copy.
    #[inline]
    pub(super) fn admits(&mut self, fd: &Fd, gather: &Gather) -> bool {
        gather.len_bytes() >= ZERO_COPY_BYTES_MIN
            && self.supported
            && self.held_parts + gather.parts() <= ZERO_COPY_PARTS_MAX
            && self
                .path(fd)
                .is_some_and(|path| matches!(path.verdict, Verdict::Open | Verdict::Spared))
    }

    /// Holds the bytes of a send that was admitted. Both its completions carry the number that is
    /// returned, and [`name`](Self::name) says to which operation they belong.
    pub(super) fn begin(&mut self, fd: &Fd, gather: &Gather) -> u32 {
        if let Some(path) = self.path(fd)
            && path.verdict == Verdict::Open
        {
            path.verdict = Verdict::Asked;
        }
        self.outstanding += 1;
        self.held_parts += gather.parts();
        let free = self.notices.iter().position(|notice| notice.chunks.is_empty());
        let index = free.unwrap_or_else(|| {
            let chunks = Vec::with_capacity(ZERO_COPY_PARTS_MAX);
            self.notices.push(Notice { op: None, fd: Weak::new(), chunks, sent: false });
            self.notices.len() - 1
        });
        let notice = &mut self.notices[index];
        (notice.fd, notice.sent) = (Rc::downgrade(fd), false);
        notice.chunks.extend(gather.iter().cloned());
        to_u32(index)
    }

    /// Says to which operation a notice belongs.
    pub(super) fn name(&mut self, index: u32, op: OpId) {
        self.notices[index as usize].op = Some(op);
    }

    /// The first completion, for the operation that it ends. Without `more` no notice follows.
    pub(super) fn sent(&mut self, index: u32, result: i32, more: bool) -> Option<Sent> {
        let notice = &mut self.notices[index as usize];
        notice.sent = result > 0;
        let op = notice.op.take()?;
        // No zero-copy on this kind of socket; no report before Linux 6.2; no more memory that may
        // be pinned. A plain send meets its own errors.
        let refused = matches!(
            -result,
            libc::EOPNOTSUPP | libc::EINVAL | libc::ENOMEM | libc::ENOBUFS | libc::EFAULT
        );
        if refused {
            self.judge(index, Verdict::Copied);
        }
        if !more {
            self.free(index);
        }
        Some(if refused { Sent::Refused(op) } else { Sent::Over(op) })
    }

    /// The notice: the kernel needs the bytes no longer.
    pub(super) fn noticed(&mut self, index: u32, result: i32, counters: &mut DriverCounters) {
        if self.notices[index as usize].sent {
            let copied = result.cast_unsigned() & COPIED != 0;
            counters.zero_copy_copied += u64::from(copied);
            self.judge(index, if copied { Verdict::Copied } else { Verdict::Spared });
        }
        self.free(index);
    }

    /// Decides about the later sends to the descriptor of a notice. Once it has copied, it copies.
    fn judge(&mut self, index: u32, verdict: Verdict) {
        let fd = &self.notices[index as usize].fd;
        if let Some(path) = self.paths.iter_mut().find(|path| path.fd.ptr_eq(fd))
            && path.verdict != Verdict::Copied
        {
            path.verdict = verdict;
        }
    }

    fn free(&mut self, index: u32) {
        let fd = std::mem::take(&mut self.notices[index as usize].fd);
        if let Some(path) = self.paths.iter_mut().find(|path| path.fd.ptr_eq(&fd))
            && path.verdict == Verdict::Asked
        {
            // It came to nothing: the send was cancelled, for one.
            path.verdict = Verdict::Open;
        }
        let chunks = &mut self.notices[index as usize].chunks;
        self.held_parts -= chunks.len();
        self.outstanding -= 1;
        chunks.clear();
    }

    /// What is known of `fd`, from now on if nothing was; `None` with too many others open.
    fn path(&mut self, fd: &Fd) -> Option<&mut Path> {
        let address = Rc::as_ptr(fd);
        let known = self.paths.iter().position(|path| path.fd.as_ptr() == address);
        let index = known.or_else(|| {
            let new = Path { fd: Rc::downgrade(fd), verdict: Verdict::Open };
            if let Some(closed) = self.paths.iter().position(|path| path.fd.strong_count() == 0) {
                self.paths[closed] = new;
                return Some(closed);
            }
            if self.paths.len() == ZERO_COPY_PATHS_MAX {
                return None;
            }
            self.paths.push(new);
            Some(self.paths.len() - 1)
        })?;
        Some(&mut self.paths[index])
    }
}

#[cfg(test)]
mod tests {
    //! What the kernel answers on paths that a test cannot have.

    use std::fs::File;

    use super::*;
    use crate::io::chunk::Pool;

    const OP: OpId = OpId { index: 3, generation: 1 };
    #[expect(clippy::cast_possible_truncation, reason = "it is far below 4 GiB")]
    const BYTES: u32 = ZERO_COPY_BYTES_MIN as u32;

    fn fd() -> Fd {
        Rc::new(File::open("/dev/null").unwrap().into())
    }

    fn zero_copy() -> ZeroCopy {
        ZeroCopy {
            supported: true,
            paths: Vec::new(),
            notices: Vec::new(),
            held_parts: 0,
            outstanding: 0,
        }
    }

    fn gather(pool: &Pool) -> Gather {
        let mut gather = Gather::new();
        let mut writer = pool.take().unwrap();
        writer.put(&vec![1; BYTES as usize]);
        gather.push(writer.take_written());
        gather
    }

    fn begin(zero_copy: &mut ZeroCopy, fd: &Fd, gather: &Gather) -> u32 {
        assert!(zero_copy.admits(fd, gather));
        let notice = zero_copy.begin(fd, gather);
        zero_copy.name(notice, OP);
        notice
    }

    #[test]
    fn a_path_is_asked_once_then_used_until_it_copies() {
        let pool = Pool::new(BYTES, 1).unwrap();
        let (gather, fd, mut counters) = (gather(&pool), fd(), DriverCounters::default());
        let mut zero_copy = zero_copy();
        let first = begin(&mut zero_copy, &fd, &gather);
        assert!(!zero_copy.admits(&fd, &gather), "the answer is waited for");
        assert!(matches!(zero_copy.sent(first, 100, true), Some(Sent::Over(OP))));
        assert!(!zero_copy.admits(&fd, &gather));
        zero_copy.noticed(first, 0, &mut counters);
        let (second, third) =
            (begin(&mut zero_copy, &fd, &gather), begin(&mut zero_copy, &fd, &gather));
        assert_ne!(second, third);
        assert!(zero_copy.sent(second, 100, true).is_some());
        assert!(zero_copy.sent(third, 100, true).is_some());
        zero_copy.noticed(third, COPIED.cast_signed(), &mut counters);
        assert!(!zero_copy.admits(&fd, &gather));
        zero_copy.noticed(second, 0, &mut counters);
        assert!(!zero_copy.admits(&fd, &gather), "once copied, always copied");
        assert_eq!(counters.zero_copy_copied, 1);
        assert_eq!((zero_copy.outstanding(), zero_copy.held_parts), (0, 0));
    }

    #[test]
    fn a_send_that_failed_says_nothing_of_the_path() {
        let pool = Pool::new(BYTES, 1).unwrap();
        let (gather, fd, mut counters) = (gather(&pool), fd(), DriverCounters::default());
        let mut zero_copy = zero_copy();
        for gives_notice in [true, false] {
            let notice = begin(&mut zero_copy, &fd, &gather);
            let over = zero_copy.sent(notice, -libc::ECANCELED, gives_notice);
            assert!(matches!(over, Some(Sent::Over(OP))));
            if gives_notice {
                // The kernel says so of bytes that nothing has used.
                zero_copy.noticed(notice, COPIED.cast_signed(), &mut counters);
            }
        }
        assert_eq!((counters.zero_copy_copied, zero_copy.outstanding()), (0, 0));
        for gives_notice in [true, false] {
            let fd = self::fd();
            let notice = begin(&mut zero_copy, &fd, &gather);
            let over = zero_copy.sent(notice, -libc::EOPNOTSUPP, gives_notice);
            assert!(matches!(over, Some(Sent::Refused(OP))));
            if gives_notice {
                zero_copy.noticed(notice, COPIED.cast_signed(), &mut counters);
            }
            assert!(!zero_copy.admits(&fd, &gather));
        }
        assert_eq!((counters.zero_copy_copied, zero_copy.outstanding()), (0, 0));
    }

    #[test]
    fn what_waits_for_notices_is_bounded() {
        let pool = Pool::new(BYTES, 1).unwrap();
        let (gather, fd, mut counters) = (gather(&pool), fd(), DriverCounters::default());
        let mut zero_copy = zero_copy();
        let first = begin(&mut zero_copy, &fd, &gather);
        assert!(zero_copy.sent(first, 100, true).is_some());
        zero_copy.noticed(first, 0, &mut counters);
        let notices: Vec<u32> =
            (0..ZERO_COPY_PARTS_MAX).map(|_| begin(&mut zero_copy, &fd, &gather)).collect();
        assert!(!zero_copy.admits(&fd, &gather));
        drop(gather);
        assert_eq!(pool.free(), 0);
        for notice in notices {
            assert!(zero_copy.sent(notice, 100, true).is_some());
            zero_copy.noticed(notice, 0, &mut counters);
        }
        assert_eq!((pool.free(), zero_copy.outstanding()), (1, 0));
        assert_eq!(zero_copy.notices.len(), ZERO_COPY_PARTS_MAX, "entries are used again");
    }
}
