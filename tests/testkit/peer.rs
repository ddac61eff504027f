//! A peer that speaks SockMux 0.3 by hand: frames as a test wants them, right or wrong.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use super::net::{bounded, connect};

/// Frame types, as far as the tests use them.
pub mod kind {
    pub const HELLO: u8 = 0x01;
    pub const HELLO_OK: u8 = 0x41;
    pub const CONNECT: u8 = 0x02;
    pub const CONNECTED: u8 = 0x42;
    pub const SEND: u8 = 0x06;
    pub const SENT: u8 = 0x46;
    pub const SEND_OOB: u8 = 0x07;
    pub const SENT_OOB: u8 = 0x47;
    pub const CLOSE: u8 = 0x08;
    pub const CLOSED: u8 = 0x48;
    pub const ECHO: u8 = 0x09;
    pub const ECHO_OK: u8 = 0x49;
    pub const SET_OPTION: u8 = 0x0A;
    pub const CRYPT_ON: u8 = 0x0C;
}

/// "No id".
pub const NO_ID: u16 = 0x00FF;

/// The version byte of 0.3.
const VERSION: u8 = 3;

/// Bytes of a frame before its payload.
const HEADER_BYTES: usize = 8;

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub sender: u16,
    pub receiver: u16,
    pub payload: Vec<u8>,
}

impl Frame {
    pub fn new(kind: u8, sender: u16, receiver: u16, payload: &[u8]) -> Frame {
        Frame { kind, sender, receiver, payload: payload.to_vec() }
    }

    /// As it goes over the connection.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION, self.kind];
        bytes.extend(self.sender.to_be_bytes());
        bytes.extend(self.receiver.to_be_bytes());
        bytes.extend((self.payload.len() as u16).to_be_bytes());
        bytes.extend(&self.payload);
        bytes
    }
}

/// The next frame. `None`: there is none any more.
pub fn read_frame(input: &mut impl Read) -> Option<Frame> {
    let mut header = [0; HEADER_BYTES];
    input.read_exact(&mut header).ok()?;
    assert_eq!(header[0], VERSION, "a frame's version");
    let word = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    let mut payload = vec![0; usize::from(word(6))];
    input.read_exact(&mut payload).ok()?;
    Some(Frame { kind: header[1], sender: word(2), receiver: word(4), payload })
}

/// A connection to a receptor.
pub struct Peer {
    pub stream: TcpStream,
}

/// The first packet of a peer.
pub fn hello(kind: u8) -> Frame {
    Frame::new(kind, 0, 0, b"20020101-000000.000000 scripted\0")
}

impl Peer {
    /// Connects to a receptor and sends the original's hello.
    pub fn join(receptor: SocketAddr) -> Peer {
        Peer::greet(connect(receptor))
    }

    /// The next connector that dials `listener`, after the original's hello to it.
    pub fn accept(listener: &TcpListener) -> Peer {
        let (stream, _) = listener.accept().expect("a connector dials");
        Peer::greet(bounded(stream))
    }

    fn greet(stream: TcpStream) -> Peer {
        let mut peer = Peer { stream };
        for frame in [hello(kind::HELLO), hello(kind::HELLO_OK), hello(kind::HELLO_OK)] {
            peer.send(&frame);
        }
        // One HELLO and two HELLOOK come from each side; the test reads the rest.
        let mut answers = 0;
        while answers < 2 {
            let frame = peer.receive().expect("the other end says hello");
            answers += u32::from(frame.kind == kind::HELLO_OK);
        }
        peer
    }

    pub fn send(&mut self, frame: &Frame) {
        self.stream.write_all(&frame.bytes()).expect("the frame is sent");
    }

    /// The next frame. `None`: the connection has ended.
    pub fn receive(&mut self) -> Option<Frame> {
        read_frame(&mut self.stream)
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

    /// Panics unless the tunnel still answers, to an ECHO with a payload of this test's own.
    pub fn check_alive(&mut self, payload: &[u8]) {
        self.send(&Frame::new(kind::ECHO, NO_ID, NO_ID, payload));
        // There may be answers to earlier ones.
        while self.receive_kind(kind::ECHO_OK).payload != payload {}
    }
}
