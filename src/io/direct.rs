#![allow(unsafe_code)]
//! Sends and receives made at once, without the driver, on descriptors that were found ready: what
//! stands directly before or behind spliced payload must not wait for another turn, and what is no
//! socket is only polled by the driver.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use super::chunk::ChunkMut;
use super::gather::{Gather, SendArgs};

/// Sends as much of a gather (not empty) as the socket takes. `more`: it is followed at once, so
/// that it may travel with what follows.
///
/// # Errors
/// `EAGAIN`: the socket takes nothing now.
pub(crate) fn send(to: &OwnedFd, gather: &mut Gather, more: bool) -> io::Result<usize> {
    let more = if more { libc::MSG_MORE } else { 0 };
    let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT | more;
    retried(|| match gather.send_args() {
        // SAFETY: the bytes belong to the gather's chunks, which live until the call is over.
        SendArgs::One { start, len_bytes } => unsafe {
            libc::send(to.as_raw_fd(), start.cast(), len_bytes as usize, flags)
        },
        // SAFETY: as above; header and vector belong to the gather, which is not moved meanwhile.
        SendArgs::Many(header) => unsafe { libc::sendmsg(to.as_raw_fd(), header, flags) },
    })
}

/// Receives up to `most_bytes`, and no more than there is room for, behind what `buffer` holds:
/// 0 is the end of data.
///
/// # Errors
/// `EAGAIN`: nothing is there.
pub(crate) fn receive(
    from: &OwnedFd,
    buffer: &mut ChunkMut,
    most_bytes: usize,
) -> io::Result<usize> {
    buffer.fill(|start, room_bytes| {
        let bytes = room_bytes.min(most_bytes);
        // SAFETY: `start` is followed by `room_bytes` that nobody else reads or writes, see
        // `ChunkMut::fill`; the kernel writes there only until the call is over.
        retried(|| unsafe { libc::recv(from.as_raw_fd(), start.cast(), bytes, libc::MSG_DONTWAIT) })
    })
}

/// Writes as much of a gather (not empty) as a descriptor that does not block takes.
///
/// # Errors
/// `EAGAIN`: it takes nothing now.
pub(crate) fn write(to: &OwnedFd, gather: &mut Gather) -> io::Result<usize> {
    retried(|| match gather.send_args() {
        // SAFETY: the bytes belong to the gather's chunks, which live until the call is over.
        SendArgs::One { start, len_bytes } => unsafe {
            libc::write(to.as_raw_fd(), start.cast(), len_bytes as usize)
        },
        // SAFETY: as above; header and vector belong to the gather, which is not moved meanwhile.
        SendArgs::Many(header) => unsafe {
            libc::writev(to.as_raw_fd(), (*header).msg_iov, (*header).msg_iovlen as libc::c_int)
        },
    })
}

/// Reads as [`receive`] does, from a descriptor that does not block.
///
/// # Errors
/// `EAGAIN`: nothing is there.
pub(crate) fn read(from: &OwnedFd, buffer: &mut ChunkMut, most_bytes: usize) -> io::Result<usize> {
    buffer.fill(|start, room_bytes| {
        let bytes = room_bytes.min(most_bytes);
        // SAFETY: as in `receive`.
        retried(|| unsafe { libc::read(from.as_raw_fd(), start.cast(), bytes) })
    })
}

/// Bytes that wait on a socket to be received, or stand in a FIFO, whichever end this is.
pub(crate) fn waiting_bytes(from: &OwnedFd) -> usize {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the kernel writes one number into `bytes`, before the call returns.
    let told = unsafe { libc::ioctl(from.as_raw_fd(), libc::FIONREAD, &mut bytes) };
    if told == 0 { usize::try_from(bytes).unwrap_or(0) } else { 0 }
}

/// Calls again when a signal came between.
fn retried(mut call: impl FnMut() -> isize) -> io::Result<usize> {
    loop {
        let result = call();
        if result >= 0 {
            return Ok(result as usize);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}
