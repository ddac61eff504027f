#![allow(unsafe_code)]
//! Addresses as the kernel has them, and control messages that carry them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// The address that the kernel wrote beside a datagram; `None` for a family that no socket of ours
/// has.
pub(super) fn read(storage: &libc::sockaddr_storage) -> Option<SocketAddr> {
    let at = std::ptr::from_ref(storage);
    match i32::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the storage is larger than and aligned for every address, all bytes of it are
            // initialised, and the family says which one it holds.
            let v4 = unsafe { *at.cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(v4.sin_addr.s_addr.to_ne_bytes());
            Some(SocketAddr::V4(SocketAddrV4::new(ip, u16::from_be(v4.sin_port))))
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let v6 = unsafe { *at.cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            let port = u16::from_be(v6.sin6_port);
            // The flow label belongs to the one datagram; an answer has none.
            Some(SocketAddr::V6(SocketAddrV6::new(ip, port, 0, v6.sin6_scope_id)))
        }
        _ => None,
    }
}

/// What a control message says, of those that are asked for.
pub(super) enum Note {
    /// The size of the datagrams of a run, in bytes.
    Segment(u32),
    /// The address that the datagram was sent to.
    Own(IpAddr),
}

/// Reads the control messages of a received message.
pub(super) fn notes(header: &libc::msghdr, mut each: impl FnMut(Note)) {
    // SAFETY: the header is one that the kernel has just filled: its control area lies in memory
    // of ours that lives as long as the header does, and the macros stay within its length. Data
    // is read unaligned, and only as much as its kind has.
    unsafe {
        let mut at = libc::CMSG_FIRSTHDR(header);
        while let Some(message) = at.as_ref() {
            let data = libc::CMSG_DATA(at);
            match (message.cmsg_level, message.cmsg_type) {
                (libc::SOL_UDP, super::UDP_GRO) => {
                    let bytes = data.cast::<libc::c_int>().read_unaligned();
                    each(Note::Segment(bytes as u32));
                }
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    let info = data.cast::<libc::in_pktinfo>().read_unaligned();
                    each(Note::Own(IpAddr::from(info.ipi_addr.s_addr.to_ne_bytes())));
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    let info = data.cast::<libc::in6_pktinfo>().read_unaligned();
                    each(Note::Own(IpAddr::from(info.ipi6_addr.s6_addr)));
                }
                _ => {}
            }
            at = libc::CMSG_NXTHDR(header, at);
        }
    }
}

/// Writes control messages, one behind the other, into the area that a header points to.
pub(super) struct Notes<'h> {
    header: &'h mut libc::msghdr,
    at: *mut libc::cmsghdr,
    used_bytes: usize,
}

impl<'h> Notes<'h> {
    /// # Safety
    /// The header's control area is valid for writes of its length, zeroed, aligned for a control
    /// message's header, and unused by anybody else while this lives.
    pub(super) unsafe fn new(header: &'h mut libc::msghdr) -> Notes<'h> {
        // SAFETY: by the contract of this function.
        let at = unsafe { libc::CMSG_FIRSTHDR(header) };
        Notes { header, at, used_bytes: 0 }
    }

    fn push<T>(&mut self, level: i32, kind: i32, value: T) {
        let value_bytes = size_of::<T>() as u32;
        assert!(!self.at.is_null(), "more control messages than there is room for");
        // SAFETY: `at` is a header within the area (checked, and by the macros, which know its
        // length); the value behind it ends within it, too, since the macros leave room for the
        // space that is reckoned for it here, and the area is as large as all that are ever put
        // there (see `Control`). It is written unaligned.
        unsafe {
            (*self.at).cmsg_level = level;
            (*self.at).cmsg_type = kind;
            (*self.at).cmsg_len = libc::CMSG_LEN(value_bytes) as usize;
            libc::CMSG_DATA(self.at).cast::<T>().write_unaligned(value);
            self.used_bytes += libc::CMSG_SPACE(value_bytes) as usize;
            self.at = libc::CMSG_NXTHDR(self.header, self.at);
        }
    }

    /// The run is to be cut into datagrams of this size.
    pub(super) fn segment(&mut self, bytes: u16) {
        self.push(libc::SOL_UDP, super::UDP_SEGMENT, bytes);
    }

    /// The address to send from.
    pub(super) fn own(&mut self, own: IpAddr) {
        match own {
            IpAddr::V4(v4) => {
                let spec_dst = libc::in_addr { s_addr: u32::from_ne_bytes(v4.octets()) };
                let info = libc::in_pktinfo {
                    ipi_ifindex: 0,
                    ipi_spec_dst: spec_dst,
                    ipi_addr: libc::in_addr { s_addr: 0 },
                };
                self.push(libc::IPPROTO_IP, libc::IP_PKTINFO, info);
            }
            IpAddr::V6(v6) => {
                let address = libc::in6_addr { s6_addr: v6.octets() };
                let info = libc::in6_pktinfo { ipi6_addr: address, ipi6_ifindex: 0 };
                self.push(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info);
            }
        }
    }

    /// Says in the header how much was written.
    pub(super) fn finish(self) {
        self.header.msg_controllen = self.used_bytes as _;
        if self.used_bytes == 0 {
            self.header.msg_control = std::ptr::null_mut();
        }
    }
}
