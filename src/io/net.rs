#![allow(unsafe_code)]
//! Sockets: made, set and asked, without waiting.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant, SystemTime};

use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use rustix::event::{EventfdFlags, eventfd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::ioctl;
use rustix::net::RecvFlags;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};

use crate::limits::{LISTEN_AGAIN_MILLIS, LISTEN_BACKLOG, LISTEN_PATIENCE_MILLIS};
use crate::narrow;

/// A listening TCP socket.
pub(crate) fn listen(address: SocketAddr) -> io::Result<OwnedFd> {
    // One socket for both families where every address is meant, and no more than what was asked for
    // otherwise.
    listen_as(address, address.ip() != IpAddr::V6(Ipv6Addr::UNSPECIFIED))
}

/// A listening TCP socket for IPv6 alone, where IPv4 has one of its own at that port.
pub(crate) fn listen_v6(address: SocketAddr) -> io::Result<OwnedFd> {
    listen_as(address, true)
}

fn listen_as(address: SocketAddr, only_v6: bool) -> io::Result<OwnedFd> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking().cloexec(),
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(only_v6)?;
    }
    socket.bind(&address.into())?;
    socket.listen(LISTEN_BACKLOG)?;
    Ok(socket.into())
}

/// Ends listening on a TCP socket, which keeps its port: the kernel refuses connections, and resets those
/// in the queue. Whoever else has this socket does not listen any more either.
pub(crate) fn stop_listening(fd: &OwnedFd, address: SocketAddr) {
    shut_down(fd);
    // A port that the kernel has chosen is lost by that, unless it is asked for again.
    let _ = keep_port(fd, address);
}

/// Listens on such a socket again.
///
/// # Errors
/// `AddrInUse`: another process listens there meanwhile.
pub(crate) fn listen_again(fd: &OwnedFd, address: SocketAddr) -> io::Result<()> {
    keep_port(fd, address)?;
    SockRef::from(fd).listen(LISTEN_BACKLOG)
}

/// Binds a socket to its address, unless it is.
fn keep_port(fd: &OwnedFd, address: SocketAddr) -> io::Result<()> {
    match SockRef::from(fd).bind(&as_seen_by(fd, address).into()) {
        // It has its port.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
        bound => bound,
    }
}

/// Listens as `listen` does, and goes on trying for a moment while the port is taken (`AddrInUse`): a
/// process that was killed is gone before the kernel has taken down its ring, which still holds its
/// ports.
pub(crate) fn patiently<T>(mut listen: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let until = Instant::now() + Duration::from_millis(LISTEN_PATIENCE_MILLIS);
    loop {
        match listen() {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(LISTEN_AGAIN_MILLIS));
            }
            other => return other,
        }
    }
}

/// A socket opened on every address of the machine: IPv6 and IPv4, or IPv4 alone where the machine
/// has no IPv6.
pub(crate) fn everywhere(
    port: u16,
    open: impl Fn(SocketAddr) -> io::Result<OwnedFd>,
) -> io::Result<OwnedFd> {
    match open(SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port)) {
        Err(error)
            if matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)) =>
        {
            open(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port))
        }
        other => other,
    }
}

/// Takes a connection from the queue of a listening socket that does not block, if there is one.
pub(crate) fn accept_now(listener: &OwnedFd) -> io::Result<OwnedFd> {
    simulated!(kernel => kernel.accept_fd(listener.as_raw_fd()));
    let (socket, _) = SockRef::from(listener).accept()?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// A TCP socket to connect to `address` with, from `own` if that is given.
pub(crate) fn stream_socket(address: SocketAddr, own: Option<SocketAddr>) -> io::Result<OwnedFd> {
    simulated!(kernel => kernel.stream_socket());
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking().cloexec(),
        Some(Protocol::TCP),
    )?;
    if let Some(own) = own {
        socket.bind(&own.into())?;
    }
    Ok(socket.into())
}

/// Whether a socket that was to be bound to any port, or connected to `address`, found none free here.
pub(crate) fn is_out_of_ports(error: &io::Error, address: SocketAddr) -> bool {
    match error.raw_os_error() {
        Some(libc::EADDRINUSE | libc::EAGAIN) => true,
        // A host without an address of that family says the same.
        Some(libc::EADDRNOTAVAIL) => address.is_ipv4() || address_towards(address.ip()).is_ok(),
        _ => false,
    }
}

/// What helps when there is none.
const OUT_OF_PORTS: &str = "no local port is free; a wider net.ipv4.ip_local_port_range helps";

/// Why `address` could not be connected to, or no port be opened there.
pub(crate) fn why_not_connected(error: &io::Error, address: SocketAddr) -> String {
    match is_out_of_ports(error, address) {
        true => format!("{error}: {OUT_OF_PORTS}"),
        false => error.to_string(),
    }
}

/// Sends at once what is written: batching is ours. A socket that is no longer connected may
/// refuse, and will say so when it is used.
fn set_nodelay(fd: &OwnedFd) {
    let _ = SockRef::from(fd).set_tcp_nodelay(true);
}

/// Sets up the connection of a client or to a server: sends at once, and the kernel asks now and then
/// whether the other host is still there, as often as the system says (`net.ipv4.tcp_keepalive_time`).
pub(crate) fn set_up_local(fd: &OwnedFd) {
    set_nodelay(fd);
    let _ = SockRef::from(fd).set_keepalive(true);
}

/// Sets up a persistent connection: sends at once, and what is sent and not acknowledged for
/// `patience` ends it even when the session's own keep-alive cannot be sent.
pub(crate) fn set_up_link(fd: &OwnedFd, patience: Option<Duration>) {
    set_nodelay(fd);
    let socket = SockRef::from(fd);
    let _ = socket.set_tcp_user_timeout(patience);
}

/// Acknowledges at once what has come on a connection, if that is still to be done. The kernel comes back
/// to delaying it, so this is for one time.
pub(crate) fn acknowledge_now(fd: &OwnedFd) {
    let _ = SockRef::from(fd).set_tcp_quickack(true);
}

/// Whether this is a socket of the network, not of this machine alone.
pub(crate) fn is_internet(fd: &OwnedFd) -> bool {
    simulated!(kernel => kernel.is_socket(fd.as_raw_fd()));
    SockRef::from(fd).domain().is_ok_and(|domain| domain != Domain::UNIX)
}

/// Bytes written to a socket that have not arrived: not acknowledged by the peer's kernel, or not
/// read by the peer where that is a Unix socket. None for one that is broken.
pub(crate) fn undelivered_bytes(fd: &OwnedFd) -> usize {
    match unsent_bytes(fd) {
        Ok(bytes) if bytes > 0 && !events_of(fd).contains(PollFlags::ERR) => bytes,
        _ => 0,
    }
}

/// Bytes written to a socket or a terminal that are not gone from it: see [`undelivered_bytes`],
/// and [`super::serial`].
#[expect(clippy::cast_possible_truncation, reason = "numbers of ioctls have 32 bits")]
pub(crate) fn unsent_bytes(fd: &OwnedFd) -> io::Result<usize> {
    simulated!(kernel => Ok(kernel.unsent_bytes(fd.as_raw_fd())));
    // SAFETY: TIOCOUTQ writes one `int` into the getter's own storage before the call returns.
    let unsent = unsafe {
        let asked = ioctl::Getter::<{ libc::TIOCOUTQ as ioctl::Opcode }, libc::c_int>::new();
        ioctl::ioctl(fd, asked)
    }?;
    Ok(usize::try_from(unsent).unwrap_or(0))
}

/// Whether whoever was at the other end of a socket, pipe or device has gone.
pub(crate) fn is_hung_up(fd: &OwnedFd) -> bool {
    events_of(fd).intersects(PollFlags::HUP | PollFlags::ERR)
}

/// Hang-ups and errors of a descriptor, as in poll(2).
fn events_of(fd: &OwnedFd) -> PollFlags {
    asked_for(fd, PollFlags::empty()) & (PollFlags::HUP | PollFlags::ERR)
}

/// Whether the peer of a socket has ended its side, or all of it.
pub(crate) fn peer_has_ended(fd: &OwnedFd) -> bool {
    let gone = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR;
    asked_for(fd, PollFlags::RDHUP).intersects(gone)
}

/// Which of these events a descriptor has now, and which of those that are never asked for.
fn asked_for(fd: &OwnedFd, events: PollFlags) -> PollFlags {
    simulated!(kernel => flags_of(kernel.events(fd.as_raw_fd())));
    let mut asked = [PollFd::new(fd, events)];
    match poll(&mut asked, Some(&Timespec::default())) {
        Ok(_) => asked[0].revents(),
        Err(_) => PollFlags::empty(),
    }
}

/// What the simulated kernel knows of a descriptor. The flags' integer is not the same everywhere.
#[cfg(test)]
fn flags_of(events: u32) -> PollFlags {
    let known = [
        (libc::POLLIN, PollFlags::IN),
        (libc::POLLOUT, PollFlags::OUT),
        (libc::POLLERR, PollFlags::ERR),
        (libc::POLLHUP, PollFlags::HUP),
        (libc::POLLRDHUP, PollFlags::RDHUP),
    ];
    let is_set = |bit: libc::c_short| events & u32::from(bit.unsigned_abs()) != 0;
    let set = known.into_iter().filter(|&(bit, _)| is_set(bit));
    set.fold(PollFlags::empty(), |all, (_, flag)| all | flag)
}

/// The socket's own address; a socket without one (it was reset already) has "unspecified".
pub(crate) fn local_address(fd: &OwnedFd) -> SocketAddr {
    simulated!(kernel => kernel.addresses(fd.as_raw_fd()).0);
    address(SockRef::from(fd).local_addr())
}

/// The path of the socket's own address, if it is a Unix socket.
pub(crate) fn own_path(fd: &OwnedFd) -> String {
    let address = SockRef::from(fd).local_addr().ok();
    let path = address.as_ref().and_then(|address| address.as_pathname());
    path.map_or_else(String::new, |path| format!("unix:{}", path.display()))
}

/// The address of the socket's peer, as above.
pub(crate) fn peer_address(fd: &OwnedFd) -> SocketAddr {
    simulated!(kernel => kernel.addresses(fd.as_raw_fd()).1);
    match SockRef::from(fd).peer_addr() {
        Err(error) if error.raw_os_error() == Some(libc::ENOTCONN) => address_of_gone(fd),
        peer => address(peer),
    }
}

/// The address of a TCP peer that has reset the connection: getpeername(2) has it no more, but
/// `SO_PEERNAME` has, as accept(2).
fn address_of_gone(fd: &OwnedFd) -> SocketAddr {
    let ask = |bytes: usize| {
        // SAFETY: storage and length are the caller's until the call returns. The kernel writes an
        // address of so many bytes, which fit, or fails.
        let asked = unsafe {
            SockAddr::try_init(|storage, len| {
                *len = narrow::to_u32(bytes);
                let (level, name) = (libc::SOL_SOCKET, libc::SO_PEERNAME);
                match libc::getsockopt(fd.as_raw_fd(), level, name, storage.cast(), len) {
                    0 => Ok(()),
                    _ => Err(io::Error::last_os_error()),
                }
            })
        };
        asked.map(|((), address)| address)
    };
    // It refuses more bytes than the family's address has.
    address(ask(size_of::<libc::sockaddr_in6>()).or_else(|_| ask(size_of::<libc::sockaddr_in>())))
}

fn address(address: io::Result<SockAddr>) -> SocketAddr {
    let address = address.ok().and_then(|address| address.as_socket());
    address.map_or(crate::wire::NO_ADDRESS, plain)
}

/// An IPv4 address that an IPv6 socket has said, as what it is.
pub(crate) fn plain(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => SocketAddr::new(IpAddr::V4(v4), address.port()),
            None => address,
        },
        IpAddr::V4(_) => address,
    }
}

/// An address as it is sent to on that socket, which may be one of IPv6 for both families.
pub(crate) fn as_seen_by(fd: &OwnedFd, address: SocketAddr) -> SocketAddr {
    match (address.ip(), SockRef::from(fd).domain()) {
        (IpAddr::V4(v4), Ok(Domain::IPV6)) => {
            SocketAddr::new(IpAddr::V6(v4.to_ipv6_mapped()), address.port())
        }
        _ => address,
    }
}

/// Ends what we send; the peer reads end of data. An error says that it is ended already.
pub(crate) fn shut_down_write(fd: &OwnedFd) {
    simulated!(kernel => kernel.shut_down(fd.as_raw_fd(), std::net::Shutdown::Write));
    let _ = SockRef::from(fd).shutdown(std::net::Shutdown::Write);
}

/// Ends both directions, so that operations in flight complete.
pub(crate) fn shut_down(fd: &OwnedFd) {
    simulated!(kernel => kernel.shut_down(fd.as_raw_fd(), std::net::Shutdown::Both));
    let _ = SockRef::from(fd).shutdown(std::net::Shutdown::Both);
}

/// Makes the close that follows a reset.
pub(crate) fn reset_on_close(fd: &OwnedFd) {
    simulated!(kernel => kernel.reset_on_close(fd.as_raw_fd()));
    let _ = SockRef::from(fd).set_linger(Some(Duration::ZERO));
}

/// The urgent byte that waits on the socket, if one does.
pub(crate) fn take_urgent(fd: &OwnedFd) -> Option<u8> {
    let mut byte = [0];
    let (got, _) = rustix::net::recv(fd, &mut byte, RecvFlags::OOB).ok()?;
    (got == 1).then_some(byte[0])
}

/// Sends a byte as urgent data. What the socket does not take is lost: it is a signal, and the
/// data around it keeps its order.
///
/// # Errors
/// The socket is broken, which the kernel reports once.
pub(crate) fn send_urgent(fd: &OwnedFd, byte: u8) -> io::Result<()> {
    match SockRef::from(&fd.as_fd()).send_out_of_band(&[byte]) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ECONNRESET | libc::EPIPE)) => {
            Err(error)
        }
        _ => Ok(()),
    }
}

/// Sends what a connection begins with. A socket that has sent nothing yet takes all of it.
pub(crate) fn send_first(fd: &OwnedFd, bytes: &[u8]) -> io::Result<()> {
    match send_now(fd, bytes) {
        Ok(sent) if sent == bytes.len() => Ok(()),
        Ok(_) => Err(io::ErrorKind::WriteZero.into()),
        Err(error) => Err(error),
    }
}

fn send_now(fd: &OwnedFd, bytes: &[u8]) -> io::Result<usize> {
    simulated!(kernel => kernel.write(fd.as_raw_fd(), std::iter::once(bytes)));
    SockRef::from(fd).send_with_flags(bytes, libc::MSG_NOSIGNAL)
}

/// Number and user of the process that a Unix socket leads to, as they were when it connected.
pub(crate) fn peer_process(fd: &OwnedFd) -> Option<(i32, u32)> {
    let peer = getsockopt(fd, PeerCredentials).ok()?;
    Some((peer.pid(), peer.uid()))
}

/// A descriptor that nothing is behind. It keeps a number of the process for later.
pub(crate) fn placeholder() -> io::Result<OwnedFd> {
    simulated!(kernel => kernel.placeholder());
    Ok(eventfd(0, EventfdFlags::CLOEXEC)?)
}

/// How many descriptors this process may have.
pub(crate) fn descriptor_limit() -> u64 {
    simulated!(kernel => kernel.descriptor_limit());
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Raises the limit of open descriptors as far as the system lets us, and says what it is now.
pub(crate) fn raise_descriptor_limit() -> u64 {
    let number = |limit: Option<u64>| limit.unwrap_or(u64::MAX);
    let limit = getrlimit(Resource::Nofile);
    if number(limit.current) < number(limit.maximum) {
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        if setrlimit(Resource::Nofile, raised).is_ok() {
            return number(limit.maximum);
        }
    }
    number(limit.current)
}

/// Whether an address is one of this machine's: only those can be bound.
pub(crate) fn is_ours(ip: IpAddr) -> bool {
    simulated!(_kernel => false);
    UdpSocket::bind((ip, 0)).is_ok()
}

/// The address of ours that packets to `ip` have. Nothing is sent.
pub(crate) fn address_towards(ip: IpAddr) -> io::Result<IpAddr> {
    let any = match ip {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let socket = UdpSocket::bind((any, 0))?;
    // Any port but 0 will do.
    socket.connect((ip, 9))?;
    Ok(socket.local_addr()?.ip())
}

/// Microseconds since 1970, for the hello.
pub(crate) fn wall_clock_micros() -> u64 {
    simulated!(kernel => kernel.now_micros());
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, narrow::micros)
}

/// The machine's name, for the hello.
pub(crate) fn hostname() -> String {
    simulated!(kernel => format!("host-{}", kernel.owner()));
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
