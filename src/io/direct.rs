//! Sends and receives made at once, without the driver, on descriptors that were found ready: what
//! stands directly before or behind spliced payload must not wait for another turn, and what is no
//! socket is only polled by the driver.

use std::io;
#[cfg(test)]
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;

use rustix::io::{ioctl_fionread, retry_on_intr};
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags};

use super::chunk::ChunkMut;
use super::gather::{Gather, SendSlices};

/// Sends as much of a gather (not empty) as the socket takes. `more`: it is followed at once, so
/// that it may travel with what follows.
///
/// # Errors
/// `EAGAIN`: the socket takes nothing now.
pub(crate) fn send(to: &OwnedFd, gather: &mut Gather, more: bool) -> io::Result<usize> {
    simulated!(kernel => kernel.write(to.as_raw_fd(), gather.iter().map(|chunk| &chunk[..])));
    let more = if more { SendFlags::MORE } else { SendFlags::empty() };
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT | more;
    let sent = retry_on_intr(|| match gather.send_slices() {
        SendSlices::One(bytes) => rustix::net::send(to, bytes, flags),
        SendSlices::Many(parts) => {
            rustix::net::sendmsg(to, parts, &mut SendAncillaryBuffer::default(), flags)
        }
    })?;
    Ok(sent)
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
    buffer.fill(|room| {
        let bytes = room.len().min(most_bytes);
        simulated!(kernel => kernel.read_into(from.as_raw_fd(), &mut room[..bytes]));
        let flags = RecvFlags::DONTWAIT;
        let got = retry_on_intr(|| rustix::net::recv(from, &mut room[..bytes], flags))?;
        Ok(got.0)
    })
}

/// Writes as much of a gather (not empty) as a descriptor that does not block takes.
///
/// # Errors
/// `EAGAIN`: it takes nothing now.
pub(crate) fn write(to: &OwnedFd, gather: &mut Gather) -> io::Result<usize> {
    simulated!(kernel => kernel.write(to.as_raw_fd(), gather.iter().map(|chunk| &chunk[..])));
    let written = retry_on_intr(|| match gather.send_slices() {
        SendSlices::One(bytes) => rustix::io::write(to, bytes),
        SendSlices::Many(parts) => rustix::io::writev(to, parts),
    })?;
    Ok(written)
}

/// Writes as [`write`] does, what stands in one piece.
pub(crate) fn write_bytes(to: &OwnedFd, bytes: &[u8]) -> io::Result<usize> {
    simulated!(kernel => kernel.write(to.as_raw_fd(), std::iter::once(bytes)));
    Ok(retry_on_intr(|| rustix::io::write(to, bytes))?)
}

/// Reads as [`receive`] does, from a descriptor that does not block.
///
/// # Errors
/// `EAGAIN`: nothing is there.
pub(crate) fn read(from: &OwnedFd, buffer: &mut ChunkMut, most_bytes: usize) -> io::Result<usize> {
    buffer.fill(|room| {
        let bytes = room.len().min(most_bytes);
        simulated!(kernel => kernel.read_into(from.as_raw_fd(), &mut room[..bytes]));
        Ok(retry_on_intr(|| rustix::io::read(from, &mut room[..bytes]))?)
    })
}

/// Bytes that wait on a socket to be received, or stand in a FIFO, whichever end this is.
pub(crate) fn waiting_bytes(from: &OwnedFd) -> usize {
    simulated!(kernel => kernel.waiting_bytes(from.as_raw_fd()));
    ioctl_fionread(from).ok().and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(0)
}
