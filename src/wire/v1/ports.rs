//! Port requests: LISTEN, LISTENING, UNLISTEN and BESIDE, encoding and decoding.

use std::net::SocketAddr;

use bytes::{Buf, BufMut};

use super::decode::{Header, get_address};
use super::encode::{header, put_address};
use super::{ADDRESS_BYTES, CONTROL_BYTES_MAX, kind, transport};
use crate::narrow::to_u32;
use crate::wire::{Frame, Relation, Route, StreamRef, Transport, WireError};

/// Bytes of a LISTEN: request, transport, three zeros.
pub(super) const LISTEN_BYTES: u32 = 8;
/// Bytes of a LISTENING before the reason of a refusal: request, address.
pub(super) const LISTENING_BYTES_MIN: u32 = 4 + ADDRESS_BYTES;
/// Bytes of an UNLISTEN: request.
pub(super) const UNLISTEN_BYTES: u32 = 4;
/// Bytes of a BESIDE: transport, what, port, two addresses, control stream, request, four zeros.
pub(super) const BESIDE_BYTES: u32 = 16 + 2 * ADDRESS_BYTES;

/// Kinds of related streams.
mod what {
    pub(super) const PORT: u8 = 1;
    pub(super) const CALL: u8 = 2;
}

/// LISTEN: requests a port for the client of this stream.
pub fn listen(out: &mut Vec<u8>, route: Route, request: u32, carries: Transport) {
    header(out, kind::LISTEN, route, LISTEN_BYTES);
    out.put_u32(request);
    out.put_slice(&[transport::byte(carries), 0, 0, 0]);
}

/// LISTENING: our listening address, or why we do not listen. A longer reason is cut.
pub fn listening(out: &mut Vec<u8>, route: Route, request: u32, result: Result<SocketAddr, &str>) {
    let reason = result.err().unwrap_or_default().as_bytes();
    let reason = &reason[..reason.len().min((CONTROL_BYTES_MAX - LISTENING_BYTES_MIN) as usize)];
    header(out, kind::LISTENING, route, LISTENING_BYTES_MIN + to_u32(reason.len()));
    out.put_u32(request);
    match result {
        Ok(address) => put_address(out, address),
        Err(_) => out.put_bytes(0, ADDRESS_BYTES as usize),
    }
    out.put_slice(reason);
}

/// UNLISTEN: the port is not needed any more.
pub fn unlisten(out: &mut Vec<u8>, route: Route, request: u32) {
    header(out, kind::UNLISTEN, route, UNLISTEN_BYTES);
    out.put_u32(request);
}

/// BESIDE: opens a related stream. The addresses are the client's and the entrance's, or for a call
/// the server's and our own.
pub fn related(
    out: &mut Vec<u8>,
    route: Route,
    carries: Transport,
    relation: Relation,
    (client, entrance): (SocketAddr, SocketAddr),
) {
    let (what, port, control, request) = match relation {
        Relation::Port { control, request } => (what::PORT, 0, control, request),
        Relation::Call { control, port } => (what::CALL, port, control, 0),
    };
    header(out, kind::BESIDE, route, BESIDE_BYTES);
    out.put_slice(&[transport::byte(carries), what]);
    out.put_u16(port);
    put_address(out, client);
    put_address(out, entrance);
    out.put_u32(control);
    out.put_u32(request);
    out.put_bytes(0, 4);
}

/// Decodes the payload of one of these frames, whose length was checked.
pub(super) fn read(header: Header, mut payload: &[u8]) -> Result<Frame<'_>, WireError> {
    let Header { kind, name, number, .. } = header;
    Ok(match kind {
        kind::LISTEN => {
            let (request, carries) = (payload.get_u32(), payload.get_u8());
            let unknown = WireError::Flags { kind, flags: u16::from(carries) };
            let transport = transport::read(carries).ok_or(unknown)?;
            Frame::Listen { to: name, request, transport }
        }
        kind::LISTENING => {
            let (request, address) = (payload.get_u32(), get_address(&mut payload));
            Frame::Listening { to: name, request, result: address.ok_or(payload) }
        }
        kind::UNLISTEN => Frame::Unlisten { to: name, request: payload.get_u32() },
        kind::BESIDE => {
            let (carries, relation, port) = (payload.get_u8(), payload.get_u8(), payload.get_u16());
            let (client, entrance) = (get_address(&mut payload), get_address(&mut payload));
            let (control, request) = (payload.get_u32(), payload.get_u32());
            let what = match relation {
                what::PORT => Some(Relation::Port { control, request }),
                what::CALL => Some(Relation::Call { control, port }),
                _ => None,
            };
            match (transport::read(carries), what) {
                // A call is always a TCP connection.
                (Some(Transport::Udp), Some(Relation::Call { .. })) => None,
                (Some(transport), Some(what)) if name == StreamRef::Theirs(number) => {
                    Some(Frame::Related { from: number, transport, what, client, entrance })
                }
                _ => None,
            }
            .ok_or(WireError::Flags { kind, flags: u16::from_be_bytes([carries, relation]) })?
        }
        kind => return Err(WireError::Type { kind }),
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Decoder, HEADER_BYTES, MAGIC};
    use super::*;
    use crate::wire::DecodeStep;

    /// The frame decoded from this flag and payload.
    fn read(kind: u8, flag: u8, payload: &[u8]) -> Result<String, WireError> {
        let mut out = vec![MAGIC, kind, 0, flag, 0, 0, 0, 7];
        out.extend_from_slice(&to_u32(payload.len()).to_be_bytes());
        out.extend_from_slice(payload);
        let mut decoder = Decoder::new();
        match decoder.step(&out)? {
            (_, DecodeStep::Frame(frame)) => Ok(format!("{frame:?}")),
            (_, step) => panic!("{step:?}"),
        }
    }

    #[test]
    fn what_is_not_known_ends_the_tunnel() {
        let flags = |kind: u8, flags: u16| Err(WireError::Flags { kind, flags });
        let listen = |carries: u8| read(kind::LISTEN, 0, &[0, 0, 0, 1, carries, 0, 0, 0]);
        assert!(listen(0).is_ok() && listen(1).is_ok());
        assert_eq!(listen(2), flags(kind::LISTEN, 2));
        let related = |flag: u8, carries: u8, what: u8| {
            let mut payload = [0; BESIDE_BYTES as usize];
            (payload[0], payload[1]) = (carries, what);
            read(kind::BESIDE, flag, &payload)
        };
        assert!(related(1, 0, 1).is_ok() && related(1, 1, 1).is_ok() && related(1, 0, 2).is_ok());
        assert_eq!(related(1, 0, 0), flags(kind::BESIDE, 0));
        assert_eq!(related(1, 0, 3), flags(kind::BESIDE, 3));
        assert_eq!(related(1, 2, 1), flags(kind::BESIDE, 0x0201));
        assert_eq!(related(1, 1, 2), flags(kind::BESIDE, 0x0102), "a call of datagrams");
        assert_eq!(related(0, 0, 1), flags(kind::BESIDE, 1), "numbered by who opens it");
    }

    #[test]
    fn a_reason_that_is_too_long_is_cut() {
        let mut out = Vec::new();
        let route = Route { id: 3, peer_id: 0, opener: true };
        listening(&mut out, route, 1, Err(&"x".repeat(1_000)));
        assert_eq!(out.len(), HEADER_BYTES + CONTROL_BYTES_MAX as usize);
        let mut decoder = Decoder::new();
        let (used, step) = decoder.step(&out).unwrap();
        let reason = vec![b'x'; (CONTROL_BYTES_MAX - LISTENING_BYTES_MIN) as usize];
        let frame = Frame::Listening { to: StreamRef::Theirs(3), request: 1, result: Err(&reason) };
        assert_eq!((used, step), (out.len(), DecodeStep::Frame(frame)));
    }
}
