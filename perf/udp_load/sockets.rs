//! Sockets to send from and to take datagrams at.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};

use crate::Ends;

/// What the kernel may hold for a reader that is not scheduled for a while. Without root it is cut
/// to `net.core.rmem_max`.
const RECEIVE_BUFFER_BYTES: usize = 64 << 20;

/// Sockets that are open at a time, far below what a process is allowed.
const OPEN_MAX: usize = 256;

/// Ports that are sent from at each address; what else runs here chooses higher ones.
const FIRST_PORT: usize = 4_000;
const PORTS: usize = 1_000;

/// A socket at a port of 127.0.0.1, with a large buffer.
pub(crate) fn listen(port: u16) -> Result<UdpSocket, String> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, port))
        .map_err(|error| format!("cannot take UDP port {port}: {error}"))?;
    setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER_BYTES)
        .or_else(|_| setsockopt(&socket, sockopt::RcvBuf, &RECEIVE_BUFFER_BYTES))
        .map_err(|error| format!("SO_RCVBUF of {RECEIVE_BUFFER_BYTES}: {error}"))?;
    Ok(socket)
}

/// Whether sending or receiving may work the next time: nobody there now, or no memory.
pub(crate) fn is_passing(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::ECONNREFUSED | Errno::ENOBUFS | Errno::ENOMEM))
}

/// The addresses that are sent from, in turn. Those that were used longest ago are closed when
/// there are too many; each has the same address and port when its turn comes again.
pub(crate) struct Sources {
    ends: Ends,
    /// Longest wait for what comes back.
    wait: Option<Duration>,
    turn: usize,
    open: Vec<Option<(usize, UdpSocket)>>,
}

impl Sources {
    pub(crate) fn new(ends: Ends, wait: Option<Duration>) -> Result<Self, String> {
        let most = PORTS * 250 * 250;
        if ends.sources == 0 || ends.sources > most {
            return Err(format!("--sources {}: from 1 to {most}", ends.sources));
        }
        let mut open = Vec::new();
        open.resize_with(ends.sources.min(OPEN_MAX), || None);
        Ok(Sources { ends, wait, turn: 0, open })
    }

    /// The socket whose turn it is, connected.
    pub(crate) fn next(&mut self) -> Result<&UdpSocket, String> {
        let source = self.turn;
        self.turn = (self.turn + 1) % self.ends.sources;
        let places = self.open.len();
        let place = &mut self.open[source % places];
        if place.as_ref().is_none_or(|(other, _)| *other != source) {
            // The one before goes first: it may have the address.
            *place = None;
            let socket = connect(self.ends, source, self.wait)?;
            *place = Some((source, socket));
        }
        let (_, socket) = place.as_ref().expect("was opened above");
        Ok(socket)
    }
}

fn connect(ends: Ends, source: usize, wait: Option<Duration>) -> Result<UdpSocket, String> {
    let from = match ends.from {
        None if ends.sources > 1 => address(source),
        from => SocketAddrV4::new(Ipv4Addr::LOCALHOST, from.unwrap_or(0)),
    };
    let socket = UdpSocket::bind(from).and_then(|socket| {
        socket.connect(ends.to)?;
        socket.set_read_timeout(wait)?;
        Ok(socket)
    });
    socket.map_err(|error| format!("from {from} to {}: {error}", ends.to))
}

/// Many addresses with many ports each.
fn address(source: usize) -> SocketAddrV4 {
    let (host, port) = (source / PORTS, FIRST_PORT + source % PORTS);
    let address = Ipv4Addr::new(127, 1, (host / 250) as u8, (host % 250 + 1) as u8);
    SocketAddrV4::new(address, port as u16)
}
