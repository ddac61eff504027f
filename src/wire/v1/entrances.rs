//! Entrances at the other end: ENTRANCE and ENTRANCE_STATE, encoding and decoding.

use std::net::SocketAddr;

use bytes::{Buf, BufMut};

use super::decode::get_address;
use super::encode::{header, put_address};
use super::{ADDRESS_BYTES, CONTROL_BYTES_MAX, kind, transport};
use crate::narrow::to_u32;
use crate::wire::{EntranceState, Frame, Route, Transport, WireError};

/// Bytes of an ENTRANCE: request, transport, three zeros, address.
pub(super) const ENTRANCE_BYTES: u32 = 8 + ADDRESS_BYTES;
/// Bytes of an ENTRANCE_STATE before its reason: request, code, three zeros, address.
pub(super) const STATE_BYTES_MIN: u32 = 8 + ADDRESS_BYTES;

/// Codes of an ENTRANCE_STATE.
mod code {
    pub(super) const OPEN: u8 = 0;
    pub(super) const REFUSED: u8 = 1;
    pub(super) const NOT_NOW: u8 = 2;
    pub(super) const CLOSED: u8 = 3;
}

/// ENTRANCE: asks for an entrance at this address of the peer's host.
pub fn entrance(out: &mut Vec<u8>, request: u32, carries: Transport, at: SocketAddr) {
    header(out, kind::ENTRANCE, Route::TUNNEL, ENTRANCE_BYTES);
    out.put_u32(request);
    out.put_slice(&[transport::byte(carries), 0, 0, 0]);
    put_address(out, at);
}

/// ENTRANCE_STATE: what has become of it. A longer reason is cut.
pub fn entrance_state(out: &mut Vec<u8>, request: u32, state: EntranceState<'_>) {
    let (code, reason) = match state {
        EntranceState::Open(_) => (code::OPEN, &[][..]),
        EntranceState::Refused(reason) => (code::REFUSED, reason),
        EntranceState::NotNow(reason) => (code::NOT_NOW, reason),
        EntranceState::Closed(reason) => (code::CLOSED, reason),
    };
    let reason = &reason[..reason.len().min((CONTROL_BYTES_MAX - STATE_BYTES_MIN) as usize)];
    header(out, kind::ENTRANCE_STATE, Route::TUNNEL, STATE_BYTES_MIN + to_u32(reason.len()));
    out.put_u32(request);
    out.put_slice(&[code, 0, 0, 0]);
    match state {
        EntranceState::Open(at) => put_address(out, at),
        _ => out.put_bytes(0, ADDRESS_BYTES as usize),
    }
    out.put_slice(reason);
}

/// Decodes the payload of one of these frames, whose length was checked.
pub(super) fn read(kind: u8, mut payload: &[u8]) -> Result<Frame<'_>, WireError> {
    let (request, what) = (payload.get_u32(), payload.get_u8());
    payload.advance(3);
    let at = get_address(&mut payload);
    let unknown = WireError::Flags { kind, flags: u16::from(what) };
    if kind == kind::ENTRANCE {
        let (transport, at) = transport::read(what).zip(at).ok_or(unknown)?;
        return Ok(Frame::Entrance { request, transport, at });
    }
    let state = match what {
        code::OPEN => EntranceState::Open(at.ok_or(unknown)?),
        code::NOT_NOW => EntranceState::NotNow(payload),
        code::CLOSED => EntranceState::Closed(payload),
        // REFUSED, and what a later version may say.
        _ => EntranceState::Refused(payload),
    };
    Ok(Frame::EntranceState { request, state })
}

#[cfg(test)]
mod tests {
    use super::super::{Decoder, HEADER_BYTES, MAGIC};
    use super::*;
    use crate::wire::DecodeStep;

    /// The frame decoded from this payload.
    fn read(kind: u8, payload: &[u8]) -> Result<String, WireError> {
        let mut out = vec![MAGIC, kind, 0, 0, 0, 0, 0, 0];
        out.extend_from_slice(&to_u32(payload.len()).to_be_bytes());
        out.extend_from_slice(payload);
        match Decoder::new().step(&out)? {
            (_, DecodeStep::Frame(frame)) => Ok(format!("{frame:?}")),
            (_, step) => panic!("{step:?}"),
        }
    }

    #[test]
    fn what_is_not_known_ends_the_tunnel_but_for_a_state() {
        let payload = |what: u8, family: u8| {
            let mut payload = [0; ENTRANCE_BYTES as usize];
            (payload[4], payload[8]) = (what, family);
            payload
        };
        let flags = |kind: u8, flags: u16| Err(WireError::Flags { kind, flags });
        let asks = |what: u8, family: u8| read(kind::ENTRANCE, &payload(what, family));
        assert!(asks(0, 4).is_ok() && asks(1, 6).is_ok());
        assert_eq!(asks(2, 4), flags(kind::ENTRANCE, 2));
        assert_eq!(asks(0, 0), flags(kind::ENTRANCE, 0), "nowhere");
        let state = |what: u8, family: u8| read(kind::ENTRANCE_STATE, &payload(what, family));
        assert_eq!(state(0, 0), flags(kind::ENTRANCE_STATE, 0), "open, and nowhere");
        for (code, wanted) in
            [(0, "Open"), (1, "Refused"), (2, "NotNow"), (3, "Closed"), (9, "Refused")]
        {
            let said = state(code, 4).unwrap();
            assert!(said.contains(wanted), "{code}: {said}");
        }
    }

    #[test]
    fn a_reason_that_is_too_long_is_cut() {
        let mut out = Vec::new();
        entrance_state(&mut out, 1, EntranceState::Closed(&[b'x'; 1_000]));
        assert_eq!(out.len(), HEADER_BYTES + CONTROL_BYTES_MAX as usize);
        let mut decoder = Decoder::new();
        let (used, step) = decoder.step(&out).unwrap();
        let reason = vec![b'x'; (CONTROL_BYTES_MAX - STATE_BYTES_MIN) as usize];
        let state = EntranceState::Closed(&reason);
        let frame = Frame::EntranceState { request: 1, state };
        assert_eq!((used, step), (out.len(), DecodeStep::Frame(frame)));
    }
}
