//! Decoding of SockMux 0.3.

use bytes::Buf;

use super::offer::OFFER_BYTES;
use super::text::{host_in, read_addresses, read_count, until_nul};
use super::{
    HEADER_BYTES, LaneHello, NO_ID, NOT_TAKEN, Offer, PACKET_BYTES_MAX, PACKET_BYTES_MIN,
    PAYLOAD_BYTES_MAX, VERSION, id, kind, name, option,
};
use crate::limits::OPEN_TEXT_BYTES;
use crate::narrow::to_u32;
use crate::wire::{CloseKind, DecodeStep, Frame, StreamRef, WireError};

/// Decodes SockMux 0.3 from pieces of any size. Buffers at most one control packet; payload is only
/// counted.
#[derive(Debug)]
pub struct Decoder {
    header: [u8; HEADER_BYTES],
    header_have: usize,
    state: State,
    /// Control payload of a packet that arrived in pieces.
    carry: Vec<u8>,
    /// The peer's host name, from the last packet of its hello.
    peer_name: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Header,
    /// A control packet: this many payload bytes are to be collected in `carry`.
    Control {
        missing: u32,
    },
    /// CONNECT or CONNECTED: its text is collected up to the NUL; this many bytes of the packet are
    /// left.
    OpenText {
        left: u32,
    },
    /// Payload of the last frame returned.
    Payload {
        left: u32,
    },
    /// Payload of an ignored packet.
    Skip {
        left: u32,
    },
}

struct Header {
    kind: u8,
    from: u16,
    to: u16,
    bytes: u32,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder {
    /// A decoder at the start of a connection.
    pub fn new() -> Self {
        Decoder {
            header: [0; HEADER_BYTES],
            header_have: 0,
            state: State::Header,
            carry: Vec::with_capacity(OPEN_TEXT_BYTES),
            peer_name: String::new(),
        }
    }

    /// The peer's host name in the last packet of its hello, for the log; empty before that. Ours
    /// says it in HELLOOK, the original in HELLO too.
    pub fn peer_name(&self) -> &str {
        &self.peer_name
    }

    /// Decodes bytes at the front of `input`, and returns how many were consumed.
    ///
    /// To be called with the rest until it returns [`DecodeStep::More`]. After an error the decoder is
    /// not usable any more.
    ///
    /// # Errors
    /// [`WireError`] when the bytes cannot be SockMux 0.3.
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
                    if self.header[0] != VERSION && self.header_have > 0 {
                        return Err(WireError::Version { found: self.header[0] });
                    }
                    if self.header_have < HEADER_BYTES {
                        return Ok((at, DecodeStep::More));
                    }
                    self.header_have = 0;
                    let header = self.header();
                    if let Some(frame) = self.begin(&header)? {
                        return Ok((at, DecodeStep::Frame(frame)));
                    }
                }
                State::Control { missing } => {
                    let (taken, step) = self.read_control(rest, missing)?;
                    return Ok((at + taken, step));
                }
                State::OpenText { left } => {
                    let (taken, step) = self.read_open_text(rest, left);
                    return Ok((at + taken, step));
                }
                State::Payload { left } => {
                    let take = rest.len().min(left as usize);
                    debug_assert!(at == 0 && left > 0);
                    if take == 0 {
                        return Ok((0, DecodeStep::More));
                    }
                    let left = left - to_u32(take);
                    self.state = if left > 0 { State::Payload { left } } else { State::Header };
                    return Ok((take, DecodeStep::Payload));
                }
                State::Skip { left } => {
                    let take = rest.len().min(left as usize);
                    at += take;
                    let left = left - to_u32(take);
                    if left > 0 {
                        self.state = State::Skip { left };
                        return Ok((at, DecodeStep::More));
                    }
                    self.state = State::Header;
                    return Ok((at, DecodeStep::Frame(Frame::Ignored(self.header[1]))));
                }
            }
        }
    }

    #[inline]
    fn read_control<'a>(
        &'a mut self,
        input: &'a [u8],
        missing: u32,
    ) -> Result<(usize, DecodeStep<'a>), WireError> {
        let header = self.header();
        if self.carry.is_empty() && input.len() >= missing as usize {
            self.state = State::Header;
            let payload = &input[..missing as usize];
            if is_greeting(header.kind) {
                self.peer_name = host_in(payload);
            }
            return Ok((payload.len(), DecodeStep::Frame(control(&header, payload)?)));
        }
        let take = input.len().min(missing as usize);
        self.carry.extend_from_slice(&input[..take]);
        if take < missing as usize {
            self.state = State::Control { missing: missing - to_u32(take) };
            return Ok((take, DecodeStep::More));
        }
        self.state = State::Header;
        if is_greeting(header.kind) {
            self.peer_name = host_in(&self.carry);
        }
        Ok((take, DecodeStep::Frame(control(&header, &self.carry)?)))
    }

    #[inline]
    fn read_open_text(&mut self, input: &[u8], left: u32) -> (usize, DecodeStep<'static>) {
        let window = &input[..input.len().min(left as usize)];
        let nul = window.iter().position(|&b| b == 0);
        let take = nul.map_or(window.len(), |n| n + 1);
        let room = OPEN_TEXT_BYTES - self.carry.len();
        self.carry.extend_from_slice(&window[..take.min(room)]);
        let left = left - to_u32(take);
        self.state = State::OpenText { left };
        if nul.is_none() && left > 0 {
            return (take, DecodeStep::More);
        }
        self.state = if left > 0 { State::Payload { left } } else { State::Header };
        (take, DecodeStep::Frame(open(&self.header(), until_nul(&self.carry), left)))
    }

    fn header(&self) -> Header {
        let mut fields = &self.header[1..];
        Header {
            kind: fields.get_u8(),
            from: fields.get_u16(),
            to: fields.get_u16(),
            bytes: u32::from(fields.get_u16()),
        }
    }

    /// Handles a complete header: returns the frame if nothing else belongs to it, or sets the
    /// state that collects the rest.
    fn begin(&mut self, header: &Header) -> Result<Option<Frame<'static>>, WireError> {
        if header.bytes > PAYLOAD_BYTES_MAX {
            return Err(WireError::Oversize {
                kind: header.kind,
                bytes: header.bytes,
                limit: PAYLOAD_BYTES_MAX,
            });
        }
        self.carry.clear();
        let after_payload =
            if header.bytes > 0 { State::Payload { left: header.bytes } } else { State::Header };
        let (state, frame) = match header.kind {
            kind::SEND => {
                (after_payload, Some(Frame::Data { to: name(header.to), bytes: header.bytes }))
            }
            kind::SEND_OOB => {
                (after_payload, Some(Frame::Urgent { to: name(header.to), bytes: header.bytes }))
            }
            kind::CONNECT | kind::CONNECTED if header.bytes > 0 => {
                (State::OpenText { left: header.bytes }, None)
            }
            kind::CONNECT | kind::CONNECTED => (State::Header, Some(open(header, b"", 0))),
            kind::HELLO
            | kind::HELLO_OK
            | kind::SENT
            | kind::SENT_OOB
            | kind::CLOSE
            | kind::CLOSED
            | kind::ECHO
            | kind::ECHO_OK
            | kind::SETOPT
            | kind::CRYPT_ON => (State::Control { missing: header.bytes }, None),
            _ => (State::Skip { left: header.bytes }, None),
        };
        self.state = state;
        Ok(frame)
    }
}

fn open(header: &Header, text: &[u8], first_bytes: u32) -> Frame<'static> {
    if header.kind == kind::CONNECT {
        let (client, entrance) = read_addresses(text);
        Frame::Open { from: id(header.from), client, entrance, transport: None, first_bytes }
    } else {
        Frame::Opened { from: id(header.from), to: name(header.to), first_bytes }
    }
}

/// Whether the text of such a packet has the host's name.
fn is_greeting(kind: u8) -> bool {
    matches!(kind, kind::HELLO | kind::HELLO_OK)
}

fn control<'a>(header: &Header, payload: &'a [u8]) -> Result<Frame<'a>, WireError> {
    let ids = (header.from, header.to);
    let (from, to) = (id(header.from), name(header.to));
    Ok(match header.kind {
        kind::HELLO => {
            let text = until_nul(payload).len();
            let behind = payload.get(text + 1..).unwrap_or_default();
            let offer = Offer::decode(behind);
            let lane = offer.and_then(|_| LaneHello::decode(&behind[OFFER_BYTES..]));
            Frame::Hello { ids, offer, lane }
        }
        kind::HELLO_OK => Frame::HelloOk { ids },
        kind::SENT => {
            let bytes = read_count(payload).ok_or(WireError::Count { kind: header.kind })?;
            Frame::Consumed { to, bytes }
        }
        kind::SENT_OOB => Frame::UrgentTaken,
        kind::CLOSE => close(from, to, payload),
        kind::CLOSED => Frame::Closed { from, to },
        kind::ECHO => Frame::Ping { ids, payload },
        kind::ECHO_OK => Frame::Pong { payload },
        kind::CRYPT_ON => Frame::CipherOn,
        kind::SETOPT => set_option(payload),
        other => Frame::Ignored(other),
    })
}

fn close(from: Option<u32>, to: StreamRef, payload: &[u8]) -> Frame<'_> {
    let text = until_nul(payload);
    let not_taken = payload.get(text.len() + 1) == Some(&NOT_TAKEN);
    let reason = text.strip_prefix(b"#").unwrap_or(b"");
    let kind = match (from, reason) {
        (None, _) if not_taken => CloseKind::NotTaken,
        (None, _) => CloseKind::Refused,
        (_, b"") => CloseKind::Orderly,
        _ => CloseKind::Reset,
    };
    // The original refuses with "No server", which lacks the mark of a reason.
    let reason = if from.is_none() && reason.is_empty() { text } else { reason };
    Frame::Close { from, to, reason, kind }
}

fn set_option(payload: &[u8]) -> Frame<'_> {
    match *payload {
        [option::PACKET_SIZE, high, low, ..] => {
            let size = u16::from_be_bytes([high, low]);
            if (PACKET_BYTES_MIN..=PACKET_BYTES_MAX).contains(&size) {
                Frame::PacketSize(size)
            } else {
                Frame::Ignored(kind::SETOPT)
            }
        }
        [option::FIRST_DATA, on, ..] if on != 0 => Frame::FirstData,
        [option::GOING_AWAY, ..] => Frame::GoingAway { reason: until_nul(&payload[1..]) },
        _ => Frame::Ignored(kind::SETOPT),
    }
}

const _: () = assert!(NO_ID == 255, "the decoder takes 255 for no id");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::v03::Encoder;

    /// All frames in `bytes` as text, and all payload, read in pieces of `piece` bytes.
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

    fn sample() -> Vec<u8> {
        let mut out = Vec::new();
        let encode = Encoder;
        let client = "127.0.0.1:40000".parse().unwrap();
        let entrance = "[::1]:80".parse().unwrap();
        encode.hello(&mut out, "20260101-000000.000000 x", None, None);
        encode.hello_ok(&mut out, (7, 8), "20260101-000000.000000 x");
        encode.packet_size(&mut out, 16384);
        encode.first_data(&mut out);
        encode.connect(&mut out, 2, client, entrance, 5);
        out.extend_from_slice(b"first");
        encode.connected(&mut out, 3, 2, client, entrance, 0);
        encode.data(&mut out, 2, 3, 4);
        out.extend_from_slice(b"data");
        encode.consumed(&mut out, 3, 2, 4);
        encode.urgent(&mut out, 2, 3, 1);
        out.extend_from_slice(b"!");
        encode.ping(&mut out, b"123\0");
        out.extend_from_slice(&[3, 0x0d, 0, 0, 0, 0, 0, 3, 9, 9, 9]);
        out.extend_from_slice(&[3, 0x00, 0, 0, 0, 0, 0, 0]);
        encode.close(&mut out, Some(2), 3, "DO close");
        encode.closed(&mut out, 3, 2);
        out
    }

    #[test]
    fn pieces_of_any_size_read_the_same() {
        let bytes = sample();
        let whole = read(&bytes, bytes.len()).unwrap();
        assert_eq!(whole.0.len(), 14);
        assert_eq!(whole.1, b"firstdata!");
        for piece in 1..=64 {
            assert_eq!(read(&bytes, piece).unwrap(), whole, "pieces of {piece}");
        }
    }

    #[test]
    fn wrong_version_is_refused_at_its_first_byte() {
        assert_eq!(read(b"GET / HTTP/1.1\r\n", 1), Err(WireError::Version { found: b'G' }));
    }

    #[test]
    fn oversize_is_refused() {
        let packet = [3, kind::SEND, 0, 2, 0, 2, 0x3f, 0xf9];
        assert_eq!(
            read(&packet, 8),
            Err(WireError::Oversize { kind: 6, bytes: 16377, limit: 16376 })
        );
    }

    #[test]
    fn a_count_that_is_none_is_refused() {
        let packet = [3, kind::SENT, 0, 2, 0, 2, 0, 2, b'x', 0];
        assert_eq!(read(&packet, 10), Err(WireError::Count { kind: kind::SENT }));
    }

    #[test]
    fn connect_with_endless_text_is_bounded_and_read_on() {
        let mut bytes = vec![3, kind::CONNECT, 0, 2, 0, 255, 0x20, 0];
        bytes.resize(8 + 0x2000, b'x');
        bytes.extend_from_slice(&[3, 0, 0, 0, 0, 0, 0, 0]);
        for piece in [1, 100, bytes.len()] {
            let (frames, payload) = read(&bytes, piece).unwrap();
            assert_eq!(frames.len(), 2);
            assert!(payload.is_empty());
        }
    }

    #[test]
    fn closes_are_told_apart() {
        let kinds = |from, text: &'static [u8]| match close(from, StreamRef::Ours(1), text) {
            Frame::Close { kind, reason, .. } => (kind, reason),
            other => panic!("{other:?}"),
        };
        assert_eq!(kinds(Some(1), b"DO close"), (CloseKind::Orderly, &b""[..]));
        assert_eq!(kinds(Some(1), b"#reset"), (CloseKind::Reset, &b"reset"[..]));
        assert_eq!(kinds(None, b"No server"), (CloseKind::Refused, &b"No server"[..]));
        assert_eq!(kinds(None, b"#no server\0"), (CloseKind::Refused, &b"no server"[..]));
        assert_eq!(kinds(None, b"#no exit\0\x01"), (CloseKind::NotTaken, &b"no exit"[..]));
        assert_eq!(kinds(Some(1), b"#reset\0\x01"), (CloseKind::Reset, &b"reset"[..]));
    }

    #[test]
    fn options() {
        assert_eq!(set_option(&[3, 0x40, 0]), Frame::PacketSize(16384));
        assert_eq!(set_option(&[3, 0x40, 1]), Frame::Ignored(0x0a));
        assert_eq!(set_option(&[3, 0, 128]), Frame::Ignored(0x0a));
        assert_eq!(set_option(&[3, 0]), Frame::Ignored(0x0a));
        assert_eq!(set_option(&[2, 1, 0]), Frame::FirstData);
        assert_eq!(set_option(&[1; 136]), Frame::Ignored(0x0a));
        assert_eq!(set_option(b"g\0"), Frame::GoingAway { reason: b"" });
        assert_eq!(set_option(b"gdrain\0"), Frame::GoingAway { reason: b"drain" });
        assert_eq!(set_option(&[]), Frame::Ignored(0x0a));
    }
}
