//! Addresses as the kernel has them, and control messages that carry them.

use std::mem::offset_of;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// Room for the address of one message, of any kind, aligned as these have to be.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub(super) struct Name(pub(super) [u8; NAME_BYTES]);

/// See [`Name`].
pub(super) const NAME_BYTES: usize = size_of::<libc::sockaddr_storage>();

/// Room for the control messages of one call: a segment size (24 bytes) and an IPv6 packet info
/// (40), aligned as their headers have to be.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub(super) struct Control(pub(super) [u8; CONTROL_BYTES]);

/// See [`Control`].
pub(super) const CONTROL_BYTES: usize = 64;

/// The head of a control message as the kernel has it: its length with the head (as long as a
/// pointer), level and kind.
const HEAD_BYTES: usize = size_of::<usize>() + 8;

/// Where the data of a control message begins behind its head, and the next message behind data.
const fn aligned(bytes: usize) -> usize {
    bytes.next_multiple_of(size_of::<usize>())
}

/// The bytes of a field, if it is there.
#[inline]
fn field<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

/// The address that the kernel wrote beside a datagram; `None` for a family that no socket of ours
/// has.
pub(super) fn read(name: &Name) -> Option<SocketAddr> {
    use libc::{sockaddr_in as V4, sockaddr_in6 as V6};
    let name = &name.0;
    match i32::from(u16::from_ne_bytes(field(name, offset_of!(V4, sin_family))?)) {
        libc::AF_INET => {
            let ip = Ipv4Addr::from(field::<4>(name, offset_of!(V4, sin_addr))?);
            let port = u16::from_be_bytes(field(name, offset_of!(V4, sin_port))?);
            Some(SocketAddr::V4(SocketAddrV4::new(ip, port)))
        }
        libc::AF_INET6 => {
            let ip = Ipv6Addr::from(field::<16>(name, offset_of!(V6, sin6_addr))?);
            let port = u16::from_be_bytes(field(name, offset_of!(V6, sin6_port))?);
            let scope = u32::from_ne_bytes(field(name, offset_of!(V6, sin6_scope_id))?);
            // The flow label belongs to the one datagram; an answer has none.
            Some(SocketAddr::V6(SocketAddrV6::new(ip, port, 0, scope)))
        }
        _ => None,
    }
}

/// What a control message says, of those that are asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Note {
    /// The size of the datagrams of a run, in bytes.
    Segment(u32),
    /// The address that the datagram was sent to.
    Own(IpAddr),
}

/// Reads the control messages of a received message. What is cut short is left out.
pub(super) fn notes(control: &[u8], each: impl FnMut(Note)) {
    // The walk ends where the area does; nothing more is to be known.
    let _ = walk(control, each);
}

fn walk(mut control: &[u8], mut each: impl FnMut(Note)) -> Option<()> {
    loop {
        let bytes = usize::from_ne_bytes(field(control, 0)?);
        let level = i32::from_ne_bytes(field(control, size_of::<usize>())?);
        let kind = i32::from_ne_bytes(field(control, size_of::<usize>() + 4)?);
        let data = control.get(aligned(HEAD_BYTES)..bytes)?;
        match (level, kind) {
            (libc::SOL_UDP, super::UDP_GRO) => {
                each(Note::Segment(u32::from_ne_bytes(field(data, 0)?)));
            }
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                let own = field::<4>(data, offset_of!(libc::in_pktinfo, ipi_addr))?;
                each(Note::Own(IpAddr::from(own)));
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                let own = field::<16>(data, offset_of!(libc::in6_pktinfo, ipi6_addr))?;
                each(Note::Own(IpAddr::from(own)));
            }
            _ => {}
        }
        control = control.get(aligned(bytes)..)?;
    }
}

/// Writes control messages, one behind the other.
pub(super) struct Notes<'c> {
    control: &'c mut Control,
    used_bytes: usize,
}

impl<'c> Notes<'c> {
    pub(super) fn new(control: &'c mut Control) -> Notes<'c> {
        Notes { control, used_bytes: 0 }
    }

    /// # Panics
    /// If there is no room for it.
    fn push(&mut self, level: i32, kind: i32, data: &[u8]) {
        let (head_bytes, bytes) = (aligned(HEAD_BYTES), aligned(HEAD_BYTES) + data.len());
        let room = &mut self.control.0[self.used_bytes..];
        let (head, room) = room.split_at_mut(head_bytes);
        let (length, rest) = head.split_at_mut(size_of::<usize>());
        length.copy_from_slice(&bytes.to_ne_bytes());
        rest[..4].copy_from_slice(&level.to_ne_bytes());
        rest[4..8].copy_from_slice(&kind.to_ne_bytes());
        room[..data.len()].copy_from_slice(data);
        self.used_bytes += aligned(bytes);
    }

    /// The run is to be cut into datagrams of this size.
    pub(super) fn segment(&mut self, bytes: u16) {
        self.push(libc::SOL_UDP, super::UDP_SEGMENT, &bytes.to_ne_bytes());
    }

    /// The address to send from.
    pub(super) fn own(&mut self, own: IpAddr) {
        match own {
            IpAddr::V4(v4) => {
                let mut info = [0; size_of::<libc::in_pktinfo>()];
                let at = offset_of!(libc::in_pktinfo, ipi_spec_dst);
                info[at..at + 4].copy_from_slice(&v4.octets());
                self.push(libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
            }
            IpAddr::V6(v6) => {
                let mut info = [0; size_of::<libc::in6_pktinfo>()];
                let at = offset_of!(libc::in6_pktinfo, ipi6_addr);
                info[at..at + 16].copy_from_slice(&v6.octets());
                self.push(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
            }
        }
    }

    /// Bytes that they take.
    pub(super) fn finish(self) -> usize {
        self.used_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(control: &[u8]) -> Vec<Note> {
        let mut all = Vec::new();
        notes(control, |note| all.push(note));
        all
    }

    /// As the kernel writes them: both of a run that was sent to an address of ours.
    fn control() -> (Control, usize) {
        let mut control = Control([0; CONTROL_BYTES]);
        let mut notes = Notes::new(&mut control);
        notes.push(libc::SOL_UDP, crate::io::datagram::UDP_GRO, &1_400i32.to_ne_bytes());
        notes.own(IpAddr::V6(Ipv6Addr::LOCALHOST));
        let bytes = notes.finish();
        (control, bytes)
    }

    #[test]
    fn control_messages_are_read_as_they_were_written() {
        let (control, bytes) = control();
        assert_eq!(bytes, CONTROL_BYTES);
        let own = Note::Own(IpAddr::V6(Ipv6Addr::LOCALHOST));
        assert_eq!(read_all(&control.0), [Note::Segment(1_400), own]);
        let mut control = Control([0; CONTROL_BYTES]);
        let mut notes = Notes::new(&mut control);
        notes.own(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let bytes = notes.finish();
        // What is sent from and what was sent to stand in two fields.
        assert_eq!(read_all(&control.0[..bytes]), [Note::Own(IpAddr::V4(Ipv4Addr::UNSPECIFIED))]);
    }

    #[test]
    fn a_control_area_is_read_no_further_than_it_goes_whatever_stands_in_it() {
        let (control, bytes) = control();
        // Behind the last of them are four bytes to align the next.
        for end in 0..bytes - 4 {
            assert!(read_all(&control.0[..end]).len() < 2);
        }
        for length in [0, 1, HEAD_BYTES - 1, CONTROL_BYTES + 1, usize::MAX - 7, usize::MAX] {
            let mut control = control;
            control.0[..size_of::<usize>()].copy_from_slice(&length.to_ne_bytes());
            assert!(read_all(&control.0).is_empty());
        }
    }
}
