//! The entrance's end of a tunnel, played by hand: an exit requests ports of it, and it opens related
//! streams for their clients.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use super::peer_v1::{Frame, OPEN_HEAD, PeerV1, kind};
use super::program::Program;
use super::tunnel::start_receptor;

/// The stream of the client that talks with the proxy, and those beside it, as the connector's side
/// numbers them.
pub const CONTROL: u32 = 2;
/// See [`CONTROL`].
pub const BESIDES: [u32; 3] = [4, 6, 8];

/// The address of the peer's port, as it reports it.
pub const PORT: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 9, 8, 7), 6543);

/// Transports, as frames name them.
pub const TCP: u8 = 0;
/// See [`TCP`].
pub const UDP: u8 = 1;

/// The other end of a tunnel to an exit.
pub struct Entrance {
    pub exit: Program,
    pub peer: PeerV1,
    /// Datagrams of a run that were not taken yet.
    came: VecDeque<Vec<u8>>,
}

impl Entrance {
    /// An exit with these words, and an entrance that opens ports.
    pub fn start(words: &[&str]) -> Entrance {
        Entrance::join(words, PeerV1::join)
    }

    /// As [`Entrance::start`], joined to the exit in this way.
    pub fn join(words: &[&str], join: impl FnOnce(SocketAddr) -> PeerV1) -> Entrance {
        let exit = start_receptor("127.0.0.1:0", words);
        let peer = join(exit.address_of("receptor listening"));
        Entrance { exit, peer, came: VecDeque::new() }
    }

    /// Opens the control stream, whose client sends this at once.
    pub fn open(&mut self, first: &[u8]) {
        self.peer.send(&Frame::new(kind::OPEN, CONTROL, &[&OPEN_HEAD, first].concat()));
    }

    /// Sends data of the client.
    pub fn say(&mut self, data: &[u8]) {
        self.peer.send(&Frame::new(kind::DATA, CONTROL, data));
    }

    /// The exit's request for a port, which is for `transport`.
    pub fn asked(&mut self, transport: u8) -> [u8; 4] {
        let frame = self.peer.receive_kind(kind::LISTEN);
        assert_eq!((frame.stream, frame.flags), (CONTROL, 0));
        assert_eq!(frame.payload[4..], [transport, 0, 0, 0]);
        frame.payload[..4].try_into().expect("4 bytes")
    }

    /// The port is open.
    pub fn give(&mut self, request: [u8; 4]) {
        let payload = [&request[..], &address(PORT)].concat();
        self.peer.send(&Frame::new(kind::LISTENING, CONTROL, &payload));
    }

    /// A client has connected to the port.
    pub fn come(&mut self, stream: u32, request: [u8; 4], transport: u8) {
        let client = address(SocketAddrV4::new(Ipv4Addr::new(10, 1, 1, 1), 40_000));
        let control = CONTROL.to_be_bytes();
        let parts =
            [&[transport, 1, 0, 0][..], &client, &address(PORT), &control, &request, &[0; 4]];
        self.peer.send(&Frame::new(kind::BESIDE, stream, &parts.concat()));
    }

    /// A SOCKS client's association: its port's request.
    pub fn associate(&mut self) -> [u8; 4] {
        self.open(&[5, 1, 0]);
        assert_eq!(self.peer.receive_data(CONTROL, 2), [5, 0]);
        self.say(&socks_request(3, SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0)));
        let request = self.asked(UDP);
        self.give(request);
        let granted = [&[5, 0, 0, 1, 10, 9, 8, 7][..], &PORT.port().to_be_bytes()].concat();
        assert_eq!(self.peer.receive_data(CONTROL, 10), granted);
        request
    }

    /// A run of datagrams of one size, the last perhaps shorter.
    pub fn send(&mut self, stream: u32, datagrams: &[Vec<u8>]) {
        let size = (datagrams[0].len() as u16).to_be_bytes();
        self.peer.send(&Frame::new(
            kind::DATAGRAMS,
            stream,
            &[&size[..], &datagrams.concat()].concat(),
        ));
    }

    /// The next datagram.
    pub fn receive(&mut self, stream: u32) -> Vec<u8> {
        while self.came.is_empty() {
            let frame = self.peer.receive_kind(kind::DATAGRAMS);
            assert_eq!((frame.stream, frame.flags), (stream, 0));
            let (size, run) = frame.payload.split_at(2);
            let size = u16::from_be_bytes([size[0], size[1]]);
            self.came.extend(run.chunks(size.into()).map(<[u8]>::to_vec));
        }
        self.came.pop_front().expect("it was waited for")
    }

    /// The reason for which a stream is ended, and the code of that.
    pub fn reset_of(&mut self, stream: u32) -> (u8, String) {
        let frame = self.peer.receive_kind(kind::RESET);
        assert_eq!((frame.stream, frame.flags), (stream, 0));
        (frame.payload[1], String::from_utf8_lossy(&frame.payload[2..]).into_owned())
    }
}

/// An address as frames have it.
pub fn address(address: SocketAddrV4) -> [u8; 20] {
    let mut bytes = [0; 20];
    bytes[0] = 4;
    bytes[2..4].copy_from_slice(&address.port().to_be_bytes());
    bytes[4..8].copy_from_slice(&address.ip().octets());
    bytes
}

/// The address as one of IPv4.
pub fn v4(address: SocketAddr) -> SocketAddrV4 {
    let SocketAddr::V4(v4) = address else { panic!("an IPv4 address") };
    v4
}

/// A request of SOCKS 5.
pub fn socks_request(command: u8, to: SocketAddrV4) -> Vec<u8> {
    [&[5, command, 0, 1][..], &to.ip().octets(), &to.port().to_be_bytes()].concat()
}

/// A datagram of SOCKS to or from this address.
pub fn with_header(at: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let at = v4(at);
    [&[0, 0, 0, 1][..], &at.ip().octets(), &at.port().to_be_bytes(), payload].concat()
}
