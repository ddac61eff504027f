//! A peer that speaks SockMux 1 by hand: frames as a test wants them, right or wrong.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::net::connect;
use super::peer::{Peer, hello, kind as old_kind};

/// Type bytes of frames.
pub mod kind {
    pub const OPEN: u8 = 0x01;
    pub const OPENED: u8 = 0x02;
    pub const DATA: u8 = 0x03;
    pub const END: u8 = 0x04;
    pub const RESET: u8 = 0x05;
    pub const CREDIT: u8 = 0x06;
    pub const PING: u8 = 0x08;
    pub const PONG: u8 = 0x09;
    pub const GOING_AWAY: u8 = 0x0A;
    pub const DATAGRAMS: u8 = 0x0C;
    pub const LISTEN: u8 = 0x0D;
    pub const LISTENING: u8 = 0x0E;
    pub const UNLISTEN: u8 = 0x0F;
    pub const BESIDE: u8 = 0x10;
    pub const ENTRANCE: u8 = 0x11;
    pub const ENTRANCE_STATE: u8 = 0x12;
}

/// Flag: the stream's number was given by the sender of the frame.
pub const SENDERS: u16 = 1;

/// Flags of the offer.
pub const HALF_CLOSE: u8 = 1;
pub const DATAGRAMS: u8 = 2;
pub const PORTS: u8 = 8;
pub const ENTRANCES: u8 = 16;

/// First byte of every frame.
const MAGIC: u8 = 0xB1;

/// Bytes of an offer.
const OFFER_BYTES: usize = 16;

/// Bytes of a frame before its payload.
const HEADER_BYTES: usize = 12;

/// An OPEN before its first data: transport and two addresses, which are not known.
pub const OPEN_HEAD: [u8; 44] = [0; 44];

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u16,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    /// A frame of a stream that this peer opened, or of the tunnel.
    pub fn new(kind: u8, stream: u32, payload: &[u8]) -> Frame {
        let flags = if stream == 0 { 0 } else { SENDERS };
        Frame { kind, flags, stream, payload: payload.to_vec() }
    }

    /// As it goes over the connection.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = header(self.kind, self.flags, self.stream, self.payload.len() as u32);
        bytes.extend(&self.payload);
        bytes
    }
}

/// A frame's header, valid or not.
pub fn header(kind: u8, flags: u16, stream: u32, payload_bytes: u32) -> Vec<u8> {
    let mut bytes = vec![MAGIC, kind];
    bytes.extend(flags.to_be_bytes());
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload_bytes.to_be_bytes());
    bytes
}

/// A connection to a receptor in which SockMux 1 is spoken.
pub struct PeerV1(pub Peer);

impl PeerV1 {
    /// Connects to a receptor, offers SockMux 1 in the hello and takes the receptor's hello.
    pub fn join(receptor: SocketAddr) -> PeerV1 {
        PeerV1::join_offering(HALF_CLOSE | DATAGRAMS | PORTS, receptor)
    }

    /// As [`PeerV1::join`], with these flags in the offer.
    pub fn join_offering(flags: u8, receptor: SocketAddr) -> PeerV1 {
        PeerV1::greet(flags, connect(receptor)).expect("the receptor says hello")
    }

    /// As [`PeerV1::join`], over a connection to the receptor. `None`: the receptor has ended that.
    pub fn join_on(stream: TcpStream) -> Option<PeerV1> {
        PeerV1::greet(HALF_CLOSE | DATAGRAMS | PORTS, stream)
    }

    fn greet(flags: u8, stream: TcpStream) -> Option<PeerV1> {
        Some(PeerV1::ask(flags, &[], stream).hear()?.0)
    }

    /// As [`PeerV1::join_on`], with these bytes behind the offer. Returns those of the receptor, too.
    pub fn join_saying(lane: &[u8], stream: TcpStream) -> (PeerV1, Vec<u8>) {
        PeerV1::say(lane, stream).hear().expect("the receptor says hello")
    }

    /// Says the whole hello, with these bytes behind the offer; [`PeerV1::hear`] comes next.
    pub fn say(lane: &[u8], stream: TcpStream) -> PeerV1 {
        PeerV1::ask(HALF_CLOSE | DATAGRAMS | PORTS, lane, stream)
    }

    fn ask(flags: u8, lane: &[u8], mut stream: TcpStream) -> PeerV1 {
        let mut offering = hello(old_kind::HELLO);
        // Newest protocol 1, flags; a window of 1 MiB, 1000 streams.
        offering.payload.extend(b"SMXU\x01");
        offering.payload.push(flags);
        offering.payload.extend(b"\0\0\x00\x10\0\0\0\0\x03\xe8");
        offering.payload.extend(lane);
        let ok = hello(old_kind::HELLO_OK).bytes();
        stream.write_all(&[offering.bytes(), ok.clone(), ok].concat()).expect("a hello is sent");
        PeerV1(Peer { stream })
    }

    /// The receptor's hello; what it says behind its offer. `None`: it ends the connection.
    pub fn hear(mut self) -> Option<(PeerV1, Vec<u8>)> {
        let (mut answers, mut said) = (0, Vec::new());
        while answers < 2 {
            let frame = self.0.receive()?;
            answers += u32::from(frame.kind == old_kind::HELLO_OK);
            if frame.kind == old_kind::HELLO {
                let text = frame.payload.iter().position(|&byte| byte == 0)? + 1;
                said = frame.payload.get(text + OFFER_BYTES..).unwrap_or_default().to_vec();
            }
        }
        Some((self, said))
    }

    pub fn send(&mut self, frame: &Frame) {
        self.0.stream.write_all(&frame.bytes()).expect("the frame is sent");
    }

    /// The next frame. `None`: the connection has ended.
    pub fn receive(&mut self) -> Option<Frame> {
        let mut header = [0; HEADER_BYTES];
        self.0.stream.read_exact(&mut header).ok()?;
        assert_eq!(header[0], MAGIC, "a frame's first byte");
        let word = |at: usize| u32::from_be_bytes(header[at..at + 4].try_into().expect("4 bytes"));
        let mut payload = vec![0; word(8) as usize];
        self.0.stream.read_exact(&mut payload).ok()?;
        let flags = u16::from_be_bytes([header[2], header[3]]);
        Some(Frame { kind: header[1], flags, stream: word(4), payload })
    }

    /// The next frame of this kind, leaving out others.
    pub fn receive_kind(&mut self, kind: u8) -> Frame {
        loop {
            let frame = self.receive().unwrap_or_else(|| panic!("the end before {kind:#04x}"));
            if frame.kind == kind {
                return frame;
            }
        }
    }

    /// Whether the connection is still a tunnel's: a PING with this payload, of its own, is answered. What
    /// comes before the answer is lost.
    pub fn is_heard(&mut self, payload: &[u8]) -> bool {
        let ping = Frame::new(kind::PING, 0, payload);
        let is_sent = self.0.stream.write_all(&ping.bytes()).is_ok();
        is_sent && std::iter::from_fn(|| self.receive()).any(|frame| frame.payload == payload)
    }

    /// Panics unless the tunnel still answers, to a PING with a payload of this test's own.
    pub fn check_alive(&mut self, payload: &[u8]) {
        self.send(&Frame::new(kind::PING, 0, payload));
        while self.receive_kind(kind::PONG).payload != payload {}
    }

    /// The data of stream `stream` from here on, `count` bytes of it.
    pub fn receive_data(&mut self, stream: u32, count: usize) -> Vec<u8> {
        let mut data = Vec::new();
        while data.len() < count {
            let frame = self.receive_kind(kind::DATA);
            assert_eq!((frame.stream, frame.flags), (stream, 0));
            data.extend(frame.payload);
        }
        data
    }
}
