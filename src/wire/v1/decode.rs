//! Decoding of SockMux 1.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::Buf;

use super::entrances::{self, ENTRANCE_BYTES, STATE_BYTES_MIN};
use super::ports::{self, BESIDE_BYTES, LISTEN_BYTES, LISTENING_BYTES_MIN, UNLISTEN_BYTES};
use super::{
    ADDRESS_BYTES, CONTROL_BYTES_MAX, DATA_BYTES_MAX, FIRST_BYTES_MAX, FLAG_SENDERS, HEADER_BYTES,
    MAGIC, OPEN_BYTES, RUN_BYTES, code, is_run, kind, transport,
};
use crate::limits::DATAGRAM_BYTES_MAX;
use crate::narrow::to_u32;
use crate::wire::{CloseKind, DecodeStep, Frame, StreamRef, Transport, WireError};

/// Decodes SockMux 1 from pieces of any size. Buffers at most one control frame; payload is only
/// counted.
#[derive(Debug)]
pub struct Decoder {
    header: [u8; HEADER_BYTES],
    header_have: usize,
    state: State,
    /// Control payload of a frame that arrived in pieces.
    carry: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Header,
    /// Bytes of control payload that are missing; then this much first data, or this many bytes of
    /// datagrams follow.
    Control {
        missing: u32,
        behind_bytes: u32,
    },
    Payload {
        left: u32,
    },
}

#[derive(Clone, Copy)]
pub(super) struct Header {
    pub(super) kind: u8,
    pub(super) name: StreamRef,
    pub(super) number: u32,
    bytes: u32,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder {
    /// A decoder at the first byte after the hello.
    pub fn new() -> Self {
        Decoder {
            header: [0; HEADER_BYTES],
            header_have: 0,
            state: State::Header,
            carry: Vec::with_capacity(CONTROL_BYTES_MAX as usize),
        }
    }

    /// As [`crate::wire::v03::Decoder::step`].
    ///
    /// # Errors
    /// [`WireError`] when the bytes cannot be SockMux 1.
    pub fn step<'a>(&'a mut self, input: &'a [u8]) -> Result<(usize, DecodeStep<'a>), WireError> {
        let mut at = 0;
        loop {
            let rest = &input[at..];
            match self.state {
                State::Header => {
                    let take = rest.len().min(HEADER_BYTES - self.header_have);
                    self.header[self.header_have..][..take].copy_from_slice(&rest[..take]);
                    self.header_have += take;
                    at += take;
                    if self.header_have > 0 && self.header[0] != MAGIC {
                        return Err(WireError::Magic { found: self.header[0] });
                    }
                    if self.header_have < HEADER_BYTES {
                        return Ok((at, DecodeStep::More));
                    }
                    self.header_have = 0;
                    self.carry.clear();
                    let header = self.header()?;
                    match header.kind {
                        kind::DATA => {
                            self.state = State::Payload { left: header.bytes };
                            let frame = Frame::Data { to: header.name, bytes: header.bytes };
                            return Ok((at, DecodeStep::Frame(frame)));
                        }
                        kind::URGENT => {
                            self.state = State::Payload { left: header.bytes };
                            let frame = Frame::Urgent { to: header.name, bytes: header.bytes };
                            return Ok((at, DecodeStep::Frame(frame)));
                        }
                        kind => {
                            let missing = control_bytes(kind, header.bytes);
                            let behind_bytes = header.bytes - missing;
                            self.state = State::Control { missing, behind_bytes };
                        }
                    }
                }
                State::Control { missing, behind_bytes } => {
                    let (taken, step) = self.read_control(rest, missing, behind_bytes)?;
                    return Ok((at + taken, step));
                }
                State::Payload { left } => {
                    let take = rest.len().min(left as usize);
                    if take == 0 {
                        return Ok((0, DecodeStep::More));
                    }
                    let left = left - to_u32(take);
                    self.state = if left > 0 { State::Payload { left } } else { State::Header };
                    return Ok((take, DecodeStep::Payload));
                }
            }
        }
    }

    #[inline]
    fn read_control<'a>(
        &'a mut self,
        input: &'a [u8],
        missing: u32,
        behind_bytes: u32,
    ) -> Result<(usize, DecodeStep<'a>), WireError> {
        let whole = self.carry.is_empty() && input.len() >= missing as usize;
        let take = input.len().min(missing as usize);
        if !whole {
            self.carry.extend_from_slice(&input[..take]);
        }
        if take < missing as usize {
            let missing = missing - to_u32(take);
            self.state = State::Control { missing, behind_bytes };
            return Ok((take, DecodeStep::More));
        }
        self.state = match behind_bytes {
            0 => State::Header,
            left => State::Payload { left },
        };
        let header = self.header()?;
        let payload = if whole { &input[..take] } else { &self.carry[..] };
        Ok((take, DecodeStep::Frame(control(header, payload, behind_bytes)?)))
    }

    /// Bytes of the last frame's head and control payload, as far as a lane counts them: what only reports
    /// on the lane itself is not part of it.
    pub fn counted_bytes(&self) -> u64 {
        match self.header[1] {
            kind::LANE_TAKEN | kind::LANE_READ => 0,
            kind => {
                let bytes = (&self.header[8..]).get_u32();
                HEADER_BYTES as u64 + u64::from(control_bytes(kind, bytes))
            }
        }
    }

    /// Forgets the part of a head, or of control payload, that was read: the frame will come whole.
    pub fn forget_part(&mut self) {
        self.header_have = 0;
        self.carry.clear();
        if let State::Control { .. } = self.state {
            self.state = State::Header;
        }
    }

    /// Payload bytes left of the current frame.
    pub fn payload_left(&self) -> u32 {
        match self.state {
            State::Payload { left } => left,
            State::Header | State::Control { .. } => 0,
        }
    }

    /// `bytes` of payload have bypassed the decoder.
    ///
    /// # Panics
    /// If fewer are left.
    pub fn payload_passed(&mut self, bytes: u32) {
        let left = self.payload_left().checked_sub(bytes).expect("more passed than was announced");
        self.state = if left > 0 { State::Payload { left } } else { State::Header };
    }

    fn header(&self) -> Result<Header, WireError> {
        let mut fields = &self.header[1..];
        let (kind, flags) = (fields.get_u8(), fields.get_u16());
        let (number, bytes) = (fields.get_u32(), fields.get_u32());
        let (least, most) = match kind {
            kind::OPEN => (OPEN_BYTES, OPEN_BYTES + FIRST_BYTES_MAX),
            kind::OPENED => (2 * ADDRESS_BYTES, 2 * ADDRESS_BYTES),
            kind::DATA => (1, DATA_BYTES_MAX),
            kind::DATAGRAMS => (RUN_BYTES, RUN_BYTES + DATAGRAM_BYTES_MAX),
            kind::END => (0, 0),
            kind::RESET => (2, CONTROL_BYTES_MAX),
            kind::CREDIT => (4, 4),
            kind::URGENT => (1, 1),
            kind::LANE_TAKEN | kind::LANE_READ => (8, 8),
            kind::LISTEN => (LISTEN_BYTES, LISTEN_BYTES),
            kind::LISTENING => (LISTENING_BYTES_MIN, CONTROL_BYTES_MAX),
            kind::UNLISTEN => (UNLISTEN_BYTES, UNLISTEN_BYTES),
            kind::BESIDE => (BESIDE_BYTES, BESIDE_BYTES),
            kind::ENTRANCE => (ENTRANCE_BYTES, ENTRANCE_BYTES),
            kind::ENTRANCE_STATE => (STATE_BYTES_MIN, CONTROL_BYTES_MAX),
            kind::PING | kind::PONG | kind::GOING_AWAY => (0, CONTROL_BYTES_MAX),
            _ => return Err(WireError::Type { kind }),
        };
        if !(least..=most).contains(&bytes) {
            return Err(WireError::Oversize { kind, bytes, limit: most });
        }
        if flags & !FLAG_SENDERS != 0 {
            return Err(WireError::Flags { kind, flags });
        }
        let senders = flags & FLAG_SENDERS != 0;
        let name = if senders { StreamRef::Theirs(number) } else { StreamRef::Ours(number) };
        Ok(Header { kind, name, number, bytes })
    }
}

/// How many of a frame's payload bytes are control payload, which stands before what is only counted.
fn control_bytes(kind: u8, bytes: u32) -> u32 {
    match kind {
        kind::DATA | kind::URGENT => 0,
        kind::OPEN => OPEN_BYTES,
        kind::DATAGRAMS => RUN_BYTES,
        _ => bytes,
    }
}

fn control(header: Header, mut payload: &[u8], behind_bytes: u32) -> Result<Frame<'_>, WireError> {
    let to = header.name;
    Ok(match header.kind {
        kind::OPEN => open(header, payload, behind_bytes)?,
        kind::DATAGRAMS => {
            let size_bytes = u32::from(payload.get_u16());
            if !is_run(size_bytes, behind_bytes) {
                return Err(WireError::Run { size_bytes, bytes: behind_bytes });
            }
            Frame::Datagrams { to, size_bytes, bytes: behind_bytes }
        }
        kind::OPENED => Frame::Opened { from: None, to, first_bytes: 0 },
        kind::END => Frame::End { to },
        kind::RESET => {
            let kind = match payload.get_u16() {
                code::REFUSED => CloseKind::Refused,
                code::NOT_TAKEN => CloseKind::NotTaken,
                _ => CloseKind::Reset,
            };
            Frame::Close { from: None, to, reason: payload, kind }
        }
        kind::CREDIT => Frame::Consumed { to, bytes: u64::from(payload.get_u32()) },
        kind::PING => Frame::Ping { ids: (0, 0), payload },
        kind::PONG => Frame::Pong { payload },
        kind::GOING_AWAY => Frame::GoingAway { reason: payload },
        kind::LANE_TAKEN => Frame::LaneTaken { total_bytes: payload.get_u64() },
        kind::LANE_READ => Frame::LaneRead { position: payload.get_u64() },
        kind @ (kind::ENTRANCE | kind::ENTRANCE_STATE) => return entrances::read(kind, payload),
        _ => return ports::read(header, payload),
    })
}

fn open(header: Header, mut payload: &[u8], first_bytes: u32) -> Result<Frame<'_>, WireError> {
    let Header { kind, number, bytes, .. } = header;
    let carries = payload.get_u8();
    let transport = transport::read(carries);
    if transport.is_none() || header.name != StreamRef::Theirs(number) {
        return Err(WireError::Flags { kind, flags: u16::from(carries) });
    }
    if transport == Some(Transport::Udp) && first_bytes > 0 {
        return Err(WireError::Oversize { kind, bytes, limit: OPEN_BYTES });
    }
    payload.advance(3);
    let (client, entrance) = (get_address(&mut payload), get_address(&mut payload));
    Ok(Frame::Open { from: Some(number), client, entrance, transport, first_bytes })
}

/// Takes an address from a payload whose length was checked. `None` is what a peer writes that has
/// none.
pub(super) fn get_address(payload: &mut &[u8]) -> Option<SocketAddr> {
    let (mut address, rest) = payload.split_at(ADDRESS_BYTES as usize);
    *payload = rest;
    let (family, _, port) = (address.get_u8(), address.get_u8(), address.get_u16());
    let ip = match family {
        4 => IpAddr::V4(Ipv4Addr::from(address.get_u32())),
        6 => IpAddr::V6(Ipv6Addr::from(address.get_u128())),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::super::encode;
    use super::*;
    use crate::wire::{EntranceState, Relation, Route};

    fn read(bytes: &[u8], piece: usize) -> Result<(Vec<String>, Vec<u8>), WireError> {
        let mut decoder = Decoder::new();
        let (mut frames, mut payload) = (Vec::new(), Vec::new());
        for mut input in bytes.chunks(piece) {
            loop {
                let (n, step) = decoder.step(input)?;
                match step {
                    DecodeStep::Frame(frame) => frames.push(format!("{frame:?}")),
                    DecodeStep::Payload => payload.extend_from_slice(&input[..n]),
                    DecodeStep::More => {
                        assert_eq!(n, input.len(), "More must consume everything");
                        break;
                    }
                }
                input = &input[n..];
            }
        }
        Ok((frames, payload))
    }

    #[test]
    fn pieces_of_any_size_read_the_same() {
        let mut out = Vec::new();
        let opener = Route { id: 0x0010_0003, peer_id: 0, opener: true };
        let other = Route { id: 9, peer_id: 0x0010_0003, opener: false };
        let client = "127.0.0.1:40000".parse().unwrap();
        let entrance = "[2001:db8::1]:80".parse().unwrap();
        encode::open(&mut out, opener, Transport::Tcp, (client, entrance), 5);
        out.extend_from_slice(b"first");
        encode::open(&mut out, opener, Transport::Udp, (client, entrance), 0);
        encode::opened(&mut out, other, client, entrance);
        encode::data(&mut out, opener, 4);
        out.extend_from_slice(b"data");
        encode::credit(&mut out, other, 4);
        encode::urgent(&mut out, opener);
        out.push(b'!');
        encode::datagrams(&mut out, opener, 3, 7);
        out.extend_from_slice(b"onetwo3");
        encode::datagrams(&mut out, other, 0, 0);
        encode::end(&mut out, opener);
        encode::ping(&mut out, b"12345678");
        encode::pong(&mut out, b"12345678");
        encode::reset(&mut out, other, code::NOT_TAKEN, "no exit");
        encode::reset(&mut out, other, code::REFUSED, "no server");
        encode::reset(&mut out, other, code::RESET, "gone");
        encode::going_away(&mut out, "drain");
        encode::lane_taken(&mut out, 1 << 40);
        encode::lane_read(&mut out, 1 << 50);
        ports::listen(&mut out, other, 7, Transport::Udp);
        ports::listening(&mut out, opener, 7, Ok(client));
        ports::listening(&mut out, opener, 8, Err("none free"));
        ports::unlisten(&mut out, other, 7);
        let port = Relation::Port { control: 3, request: 7 };
        ports::related(&mut out, opener, Transport::Udp, port, (client, entrance));
        entrances::entrance(&mut out, 9, Transport::Tcp, entrance);
        entrances::entrance_state(&mut out, 9, EntranceState::Open(entrance));
        entrances::entrance_state(&mut out, 9, EntranceState::Closed(b"gone"));
        let call = Relation::Call { control: 3, port: 2_000 };
        ports::related(&mut out, opener, Transport::Tcp, call, (client, entrance));
        let whole = read(&out, out.len()).unwrap();
        assert_eq!(whole.0.len(), 26, "{:?}", whole.0);
        assert_eq!(whole.1, b"firstdata!onetwo3");
        for piece in 1..=64 {
            assert_eq!(read(&out, piece).unwrap(), whole, "pieces of {piece}");
        }
    }

    #[test]
    fn headers_that_do_not_fit_end_the_tunnel() {
        let frame = |kind: u8, flags: u16, bytes: u32| {
            let mut out = vec![MAGIC, kind];
            out.extend_from_slice(&flags.to_be_bytes());
            out.extend_from_slice(&7u32.to_be_bytes());
            out.extend_from_slice(&bytes.to_be_bytes());
            read(&out, 12).unwrap_err()
        };
        assert_eq!(read(&[3], 1), Err(WireError::Magic { found: 3 }));
        assert_eq!(frame(0x7f, 0, 0), WireError::Type { kind: 0x7f });
        assert_eq!(frame(0x14, 0, 0), WireError::Type { kind: 0x14 });
        assert_eq!(frame(kind::END, 4, 0), WireError::Flags { kind: kind::END, flags: 4 });
        for (kind, bytes) in [
            (kind::DATA, 0),
            (kind::DATA, DATA_BYTES_MAX + 1),
            (kind::DATAGRAMS, 1),
            (kind::DATAGRAMS, 2 + DATAGRAM_BYTES_MAX + 1),
            (kind::END, 1),
            (kind::CREDIT, 5),
            (kind::OPEN, 3),
            (kind::RESET, 1),
            (kind::PING, CONTROL_BYTES_MAX + 1),
            (kind::LISTEN, 7),
            (kind::LISTEN, 9),
            (kind::LISTENING, 23),
            (kind::LISTENING, CONTROL_BYTES_MAX + 1),
            (kind::UNLISTEN, 3),
            (kind::BESIDE, 55),
            (kind::BESIDE, 57),
            (kind::ENTRANCE, 27),
            (kind::ENTRANCE, 29),
            (kind::ENTRANCE_STATE, 27),
            (kind::ENTRANCE_STATE, CONTROL_BYTES_MAX + 1),
        ] {
            assert!(matches!(frame(kind, 0, bytes), WireError::Oversize { .. }), "{kind} {bytes}");
        }
    }

    #[test]
    fn bytes_that_are_no_run_end_the_tunnel() {
        let frame = |size_bytes: u32, bytes: u32| {
            let mut out = vec![MAGIC, kind::DATAGRAMS, 0, 0, 0, 0, 0, 7];
            out.extend_from_slice(&(2 + bytes).to_be_bytes());
            out.extend_from_slice(&size_bytes.to_be_bytes()[2..]);
            read(&out, 3).map(|(frames, _)| frames.len())
        };
        for (size_bytes, bytes) in [(0, 0), (1, 1), (1, 65_507), (1_000, 1_001), (65_507, 65_507)] {
            assert_eq!(frame(size_bytes, bytes), Ok(1), "{size_bytes} {bytes}");
        }
        for (size_bytes, bytes) in [(0, 1), (1, 0), (1_000, 999), (65_535, 65_507)] {
            let found = frame(size_bytes, bytes);
            assert_eq!(found, Err(WireError::Run { size_bytes, bytes }));
        }
    }

    #[test]
    fn an_open_says_what_it_carries_and_brings_no_datagram() {
        let frame = |carries: u8, first_bytes: u32| {
            let mut out = vec![MAGIC, kind::OPEN, 0, 1, 0, 0, 0, 7];
            out.extend_from_slice(&(OPEN_BYTES + first_bytes).to_be_bytes());
            out.push(carries);
            out.resize(HEADER_BYTES + OPEN_BYTES as usize, 0);
            read(&out, out.len()).map(|(frames, _)| frames.len())
        };
        assert_eq!((frame(0, 0), frame(0, 9), frame(1, 0)), (Ok(1), Ok(1), Ok(1)));
        let oversize = WireError::Oversize { kind: kind::OPEN, bytes: 53, limit: 44 };
        assert_eq!(frame(1, 9), Err(oversize));
        assert_eq!(frame(2, 0), Err(WireError::Flags { kind: kind::OPEN, flags: 2 }));
    }
}
