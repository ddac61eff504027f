//! The codecs of both protocols behind one decoder and one encoder.

use std::net::SocketAddr;

use super::{Frame, Route, Transport, WireError, v1, v03};
use crate::narrow::{to_u16, to_u32};

/// The protocols that a session can speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// SockMux 0.3, the original's.
    V03,
    /// SockMux 1, ours.
    V1,
}

/// Result of one step of decoding.
#[derive(Debug, PartialEq, Eq)]
pub enum DecodeStep<'a> {
    /// A frame is complete. Payload that it announces follows in the next steps.
    Frame(Frame<'a>),
    /// The bytes consumed are payload of the last frame.
    Payload,
    /// The bytes consumed complete no frame for the session: all of them, or what is only there since the
    /// connection takes up a lane (the rest of its hello, and what was read over the one before).
    More,
}

/// Each side sends one HELLO and two HELLOOKs, then the agreed protocol.
pub(crate) const HELLO_PACKETS: u8 = 3;

/// Decodes a connection from its first byte, in the protocol that its hello agrees on.
#[derive(Debug)]
pub struct Decoder {
    newest: u8,
    hello_packets: u8,
    reader: ProtocolDecoder,
    /// See [`v03::Decoder::peer_name`], once SockMux 1 is read.
    peer_name: String,
    /// SockMux 1 goes on where another connection broke.
    resumed: Option<Box<v1::Decoder>>,
    /// Bytes behind the hello that were read already.
    skip_bytes: u64,
}

#[derive(Debug)]
enum ProtocolDecoder {
    V03 { decoder: v03::Decoder, agreed_v1: bool },
    V1(v1::Decoder),
}

impl Decoder {
    /// `newest`: the newest protocol that we offer in our own hello (0 is 0.3).
    pub fn new(newest: u8) -> Decoder {
        let reader = ProtocolDecoder::V03 { decoder: v03::Decoder::new(), agreed_v1: false };
        Decoder {
            newest,
            hello_packets: 0,
            reader,
            peer_name: String::new(),
            resumed: None,
            skip_bytes: 0,
        }
    }

    /// The peer's host name as it reports it, for the log; empty before its hello.
    pub fn peer_name(&self) -> &str {
        match &self.reader {
            ProtocolDecoder::V03 { decoder, .. } => decoder.peer_name(),
            ProtocolDecoder::V1(_) => &self.peer_name,
        }
    }

    /// Decodes bytes at the front of `input`, and returns how many were consumed. To be called with
    /// the rest until it returns [`DecodeStep::More`]. After an error the decoder is not usable any more.
    ///
    /// # Errors
    /// [`WireError`] when the bytes do not conform to the protocol.
    #[inline]
    pub fn step<'a>(&'a mut self, input: &'a [u8]) -> Result<(usize, DecodeStep<'a>), WireError> {
        if self.hello_packets == HELLO_PACKETS {
            self.hello_packets += 1;
            if let ProtocolDecoder::V03 { agreed_v1: true, decoder } = &self.reader {
                decoder.peer_name().clone_into(&mut self.peer_name);
                let resumed = self.resumed.take().map(|decoder| *decoder);
                self.reader = ProtocolDecoder::V1(resumed.unwrap_or_default());
            }
        }
        match &mut self.reader {
            ProtocolDecoder::V1(_) if self.skip_bytes > 0 => {
                let skipped =
                    usize::try_from(self.skip_bytes).unwrap_or(usize::MAX).min(input.len());
                self.skip_bytes -= skipped as u64;
                Ok((skipped, DecodeStep::More))
            }
            ProtocolDecoder::V1(decoder) => decoder.step(input),
            ProtocolDecoder::V03 { decoder, agreed_v1 } => {
                let (consumed, step) = decoder.step(input)?;
                if self.hello_packets < HELLO_PACKETS {
                    match &step {
                        DecodeStep::Frame(Frame::Hello { offer, .. }) => {
                            self.hello_packets += 1;
                            *agreed_v1 =
                                self.newest >= 1 && offer.is_some_and(|offer| offer.newest >= 1);
                        }
                        DecodeStep::Frame(Frame::HelloOk { .. }) => {
                            self.hello_packets += 1;
                            if self.resumed.is_some() {
                                // It says nothing to a session that is up.
                                return Ok((consumed, DecodeStep::More));
                            }
                        }
                        _ => {}
                    }
                }
                Ok((consumed, step))
            }
        }
    }
}

impl Decoder {
    /// Behind the hello of its connection, this one goes on where `broken` stood when its own connection
    /// broke. Of what comes first it has read `skip_bytes` already.
    pub fn take_up(&mut self, broken: Decoder, skip_bytes: u64) {
        self.skip_bytes = skip_bytes;
        self.resumed = match broken.reader {
            ProtocolDecoder::V03 { .. } => broken.resumed,
            ProtocolDecoder::V1(mut decoder) => {
                decoder.forget_part();
                Some(Box::new(decoder))
            }
        };
    }

    /// Bytes of the last frame as far as a lane counts them, without its payload. Nothing of the hello counts.
    #[inline]
    pub fn counted_bytes(&self) -> u64 {
        match &self.reader {
            ProtocolDecoder::V03 { .. } => 0,
            ProtocolDecoder::V1(decoder) => decoder.counted_bytes(),
        }
    }

    /// Payload bytes left of the current frame, which may bypass the decoder. 0 in 0.3, whose
    /// frames are small.
    #[inline]
    pub fn payload_left(&self) -> u32 {
        match &self.reader {
            ProtocolDecoder::V1(decoder) if self.skip_bytes == 0 => decoder.payload_left(),
            ProtocolDecoder::V03 { .. } | ProtocolDecoder::V1(_) => 0,
        }
    }

    /// `bytes` of payload have bypassed the decoder.
    ///
    /// # Panics
    /// If fewer are left.
    #[inline]
    pub fn payload_passed(&mut self, bytes: u32) {
        match &mut self.reader {
            ProtocolDecoder::V03 { .. } => assert_eq!(bytes, 0, "payload of 0.3 does not pass"),
            ProtocolDecoder::V1(decoder) => decoder.payload_passed(bytes),
        }
    }
}

/// Encodes frames of streams in either protocol, and appends them to a buffer. Of a frame with
/// payload it writes the part before the payload.
#[derive(Debug, Clone, Copy)]
pub struct Encoder(pub Protocol);

/// An id of 0.3.
fn short(id: u32) -> u16 {
    to_u16(id)
}

impl Encoder {
    /// Opens a stream; first data may follow. 0.3 does not announce the transport; in SockMux 1 a
    /// datagram stream has no first data.
    pub fn open(
        self,
        out: &mut Vec<u8>,
        route: Route,
        transport: Transport,
        addresses: (SocketAddr, SocketAddr),
        first_bytes: u32,
    ) {
        let (client, entrance) = addresses;
        match self.0 {
            Protocol::V03 => {
                v03::Encoder.connect(out, short(route.id), client, entrance, first_bytes);
            }
            Protocol::V1 => v1::open(out, route, transport, (client, entrance), first_bytes),
        }
    }

    /// The stream has connected to its server. First data follows in 0.3 only.
    pub fn opened(
        self,
        out: &mut Vec<u8>,
        route: Route,
        addresses: (SocketAddr, SocketAddr),
        first_bytes: u32,
    ) {
        let (server, own) = addresses;
        match self.0 {
            Protocol::V03 => {
                let (id, peer_id) = (short(route.id), short(route.peer_id));
                v03::Encoder.connected(out, id, peer_id, server, own, first_bytes);
            }
            Protocol::V1 => v1::opened(out, route, server, own),
        }
    }

    /// Stream data; its payload follows.
    #[inline]
    pub fn data(self, out: &mut Vec<u8>, route: Route, bytes: u32) {
        match self.0 {
            Protocol::V03 => {
                v03::Encoder.data(out, short(route.id), short(route.peer_id), bytes);
            }
            Protocol::V1 => v1::data(out, route, bytes),
        }
    }

    /// A run of datagrams of `size_bytes` each, the last perhaps shorter; its payload follows. In
    /// 0.3 a run is one datagram, and not an empty one.
    #[inline]
    pub fn datagrams(self, out: &mut Vec<u8>, route: Route, size_bytes: u32, bytes: u32) {
        match self.0 {
            Protocol::V03 => {
                assert!((1..=size_bytes).contains(&bytes), "0.3 carries one datagram a packet");
                v03::Encoder.data(out, short(route.id), short(route.peer_id), bytes);
            }
            Protocol::V1 => v1::datagrams(out, route, size_bytes, bytes),
        }
    }

    /// Bytes consumed (0.3), or granted (1).
    #[inline]
    pub fn consumed(self, out: &mut Vec<u8>, route: Route, bytes: u64) {
        match self.0 {
            Protocol::V03 => {
                v03::Encoder.consumed(out, short(route.id), short(route.peer_id), bytes);
            }
            Protocol::V1 => v1::credit(out, route, to_u32(bytes)),
        }
    }

    /// The end of data.
    pub fn end(self, out: &mut Vec<u8>, route: Route) {
        match self.0 {
            Protocol::V03 => v03::Encoder.data(out, short(route.id), short(route.peer_id), 0),
            Protocol::V1 => v1::end(out, route),
        }
    }

    /// Urgent data; its byte follows.
    pub fn urgent(self, out: &mut Vec<u8>, route: Route) {
        match self.0 {
            Protocol::V03 => v03::Encoder.urgent(out, short(route.id), short(route.peer_id), 1),
            Protocol::V1 => v1::urgent(out, route),
        }
    }

    /// Ends the stream: with a reset for this reason, or in good order, which 0.3 distinguishes.
    pub fn close(self, out: &mut Vec<u8>, route: Route, reset: Option<&str>) {
        match (self.0, reset) {
            (Protocol::V03, reset) => {
                let text = reset.map_or(String::from("DO close"), |reason| format!("#{reason}"));
                v03::Encoder.close(out, Some(short(route.id)), short(route.peer_id), &text);
            }
            (Protocol::V1, reset) => {
                v1::reset(out, route, v1::code::RESET, reset.unwrap_or("closed"));
            }
        }
    }

    /// Refuses an open. `reason` is empty where a 0.3 peer gets the original's text.
    pub fn refuse(self, out: &mut Vec<u8>, peer_id: u32, reason: &str) {
        match self.0 {
            Protocol::V03 if reason.is_empty() => {
                v03::Encoder.close(out, None, short(peer_id), "No server");
            }
            Protocol::V03 => {
                v03::Encoder.close(out, None, short(peer_id), &format!("#{reason}"));
            }
            Protocol::V1 => v1::reset(out, Route::theirs(peer_id), v1::code::REFUSED, reason),
        }
    }

    /// Refuses an open for which no server was tried. For a peer of ours.
    pub fn not_taken(self, out: &mut Vec<u8>, peer_id: u32, reason: &str) {
        match self.0 {
            Protocol::V03 => v03::Encoder.not_taken(out, short(peer_id), reason),
            Protocol::V1 => v1::reset(out, Route::theirs(peer_id), v1::code::NOT_TAKEN, reason),
        }
    }

    /// No stream is accepted any more. For a peer of ours.
    pub fn going_away(self, out: &mut Vec<u8>, reason: &str) {
        match self.0 {
            Protocol::V03 => v03::Encoder.going_away(out, reason),
            Protocol::V1 => v1::going_away(out, reason),
        }
    }

    /// Requests a sign of life, to be answered with the same payload.
    pub fn ping(self, out: &mut Vec<u8>, payload: &[u8]) {
        match self.0 {
            Protocol::V03 => v03::Encoder.ping(out, payload),
            Protocol::V1 => v1::ping(out, payload),
        }
    }

    /// Answers a ping that had these ids (0.3 swaps them).
    pub fn pong(self, out: &mut Vec<u8>, ids: (u16, u16), payload: &[u8]) {
        match self.0 {
            Protocol::V03 => v03::Encoder.pong(out, ids, payload),
            Protocol::V1 => v1::pong(out, payload),
        }
    }
}
