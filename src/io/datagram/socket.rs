//! Sockets for datagrams: made and set.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::{
    Ipv4PacketInfo, Ipv6RecvPacketInfo, RcvBufForce, SndBufForce, UdpGroSegment,
};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::io::net;
use crate::limits::{DATAGRAM_ENTRANCE_BYTES, DATAGRAM_EXIT_BYTES};

#[cfg(test)]
const ANY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// A socket for whoever sends to `address`. One on every address of the machine also says which of
/// them each datagram was sent to, since that is where an answer has to come from.
pub(crate) fn bind(address: SocketAddr) -> io::Result<OwnedFd> {
    // As for listening sockets: both families where every address is meant.
    bind_as(address, address.ip() != IpAddr::V6(Ipv6Addr::UNSPECIFIED))
}

/// The same for IPv6 alone, where IPv4 has a socket of its own at that port.
pub(crate) fn bind_v6(address: SocketAddr) -> io::Result<OwnedFd> {
    bind_as(address, true)
}

fn bind_as(address: SocketAddr, only_v6: bool) -> io::Result<OwnedFd> {
    simulated!(kernel => kernel.datagram_socket(address, None));
    let socket = new(address, DATAGRAM_ENTRANCE_BYTES)?;
    if address.is_ipv6() {
        socket.set_only_v6(only_v6)?;
    }
    tell_own_address(&socket, address)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Sets a socket up that another process has bound to `address`, as one of [`bind`].
pub(crate) fn adopt(socket: &OwnedFd, address: SocketAddr) -> io::Result<()> {
    set_up(socket, DATAGRAM_ENTRANCE_BYTES)?;
    tell_own_address(socket, address)
}

/// Has a socket on every address say which of them each datagram was sent to.
fn tell_own_address(socket: &impl AsFd, address: SocketAddr) -> io::Result<()> {
    if address.ip().is_unspecified() {
        match address {
            SocketAddr::V4(_) => setsockopt(socket, Ipv4PacketInfo, &true)?,
            SocketAddr::V6(_) => setsockopt(socket, Ipv6RecvPacketInfo, &true)?,
        }
    }
    Ok(())
}

/// A socket that sends to `address` and hears of nobody else.
pub(crate) fn connected(address: SocketAddr) -> io::Result<OwnedFd> {
    simulated!(kernel => kernel.datagram_socket(ANY, Some(address)));
    let socket = new(address, DATAGRAM_EXIT_BYTES)?;
    socket.connect(&address.into())?;
    Ok(socket.into())
}

/// A socket that sends to any address, and hears of anybody: of both families where the machine has
/// them. Nothing that a packet meets on its way shows at it.
pub(crate) fn unconnected() -> io::Result<OwnedFd> {
    simulated!(kernel => kernel.datagram_socket(ANY, None));
    net::everywhere(0, |address| {
        let socket = new(address, DATAGRAM_EXIT_BYTES)?;
        if address.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        socket.bind(&address.into())?;
        Ok(socket.into())
    })
}

/// Makes the port of a socket that is to be closed free at once: operations in flight may keep the
/// socket open for a moment.
pub(crate) fn free_port(socket: &OwnedFd) {
    // One that keeps its port frees it when it is closed.
    let _ = rustix::net::connect_unspec(socket);
}

/// A socket that receives nothing, and is to be kept as long as others come and go. With the first socket that
/// has datagrams joined the kernel rewrites its own code, and again when the last one is closed; each time all
/// processors stop for it, a fraction of a millisecond.
pub(crate) fn kept_open() -> Option<OwnedFd> {
    simulated!(_kernel => None);
    [Ipv6Addr::UNSPECIFIED.into(), Ipv4Addr::UNSPECIFIED.into()]
        .into_iter()
        .find_map(|ip: IpAddr| new(SocketAddr::new(ip, 0), 0).ok())
        .map(OwnedFd::from)
}

/// Whether the kernel joins what this socket receives.
#[cfg(test)]
pub(crate) fn joins(socket: &OwnedFd) -> bool {
    nix::sys::socket::getsockopt(socket, UdpGroSegment).is_ok_and(|joins| joins)
}

fn new(address: SocketAddr, buffer_bytes: usize) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::DGRAM.nonblocking().cloexec(),
        Some(Protocol::UDP),
    )?;
    set_up(&socket, buffer_bytes)?;
    Ok(socket)
}

fn set_up(socket: &impl AsFd, buffer_bytes: usize) -> io::Result<()> {
    // Beyond what the system gives everybody where we may; as far as that otherwise.
    if setsockopt(socket, RcvBufForce, &buffer_bytes).is_err() {
        SockRef::from(socket).set_recv_buffer_size(buffer_bytes)?;
    }
    if setsockopt(socket, SndBufForce, &buffer_bytes).is_err() {
        SockRef::from(socket).set_send_buffer_size(buffer_bytes)?;
    }
    // A kernel that does not know it gives datagrams one by one.
    let _ = setsockopt(socket, UdpGroSegment, &true);
    Ok(())
}
