//! Encoding of SockMux 1.

use std::net::{IpAddr, SocketAddr};

use bytes::BufMut;

use super::{
    ADDRESS_BYTES, CONTROL_BYTES_MAX, DATA_BYTES_MAX, FLAG_SENDERS, MAGIC, OPEN_BYTES, RUN_BYTES,
    is_run, kind, transport,
};
use crate::narrow::{to_u16, to_u32};
use crate::wire::{Route, Transport};

pub(super) fn header(out: &mut Vec<u8>, kind: u8, route: Route, bytes: u32) {
    let (number, flags) = match route {
        Route { opener: true, id, .. } => (id, FLAG_SENDERS),
        Route { peer_id, .. } => (peer_id, 0),
    };
    out.put_slice(&[MAGIC, kind]);
    out.put_u16(flags);
    out.put_u32(number);
    out.put_u32(bytes);
}

pub(super) fn put_address(out: &mut Vec<u8>, address: SocketAddr) {
    let mut host = [0; 16];
    let family = match address.ip() {
        IpAddr::V4(v4) => {
            host[..4].copy_from_slice(&v4.octets());
            4
        }
        IpAddr::V6(v6) => {
            host = v6.octets();
            6
        }
    };
    out.put_slice(&[family, 0]);
    out.put_u16(address.port());
    out.put_slice(&host);
}

/// OPEN; first data follows.
pub(crate) fn open(
    out: &mut Vec<u8>,
    route: Route,
    carries: Transport,
    (client, entrance): (SocketAddr, SocketAddr),
    first_bytes: u32,
) {
    let carries = transport::byte(carries);
    assert!(carries == transport::BYTES || first_bytes == 0, "no datagram goes with OPEN");
    header(out, kind::OPEN, route, OPEN_BYTES + first_bytes);
    out.put_slice(&[carries, 0, 0, 0]);
    put_address(out, client);
    put_address(out, entrance);
}

/// OPENED: the stream has connected to its server.
pub(crate) fn opened(out: &mut Vec<u8>, route: Route, server: SocketAddr, own: SocketAddr) {
    header(out, kind::OPENED, route, 2 * ADDRESS_BYTES);
    put_address(out, server);
    put_address(out, own);
}

/// DATA; its payload follows.
pub(crate) fn data(out: &mut Vec<u8>, route: Route, bytes: u32) {
    assert!((1..=DATA_BYTES_MAX).contains(&bytes), "a DATA frame of {bytes} bytes");
    header(out, kind::DATA, route, bytes);
}

/// DATAGRAMS; its datagrams follow.
pub(crate) fn datagrams(out: &mut Vec<u8>, route: Route, size_bytes: u32, bytes: u32) {
    assert!(is_run(size_bytes, bytes), "{bytes} bytes of datagrams of {size_bytes}");
    header(out, kind::DATAGRAMS, route, RUN_BYTES + bytes);
    out.put_u16(to_u16(size_bytes));
}

/// END: end of data in this direction.
pub(crate) fn end(out: &mut Vec<u8>, route: Route) {
    header(out, kind::END, route, 0);
}

/// RESET: ends the stream, with a reason.
pub(crate) fn reset(out: &mut Vec<u8>, route: Route, code: u16, reason: &str) {
    let reason = &reason.as_bytes()[..reason.len().min(CONTROL_BYTES_MAX as usize - 2)];
    header(out, kind::RESET, route, 2 + to_u32(reason.len()));
    out.put_u16(code);
    out.put_slice(reason);
}

/// CREDIT: grants bytes.
pub(crate) fn credit(out: &mut Vec<u8>, route: Route, bytes: u32) {
    header(out, kind::CREDIT, route, 4);
    out.put_u32(bytes);
}

/// URGENT; its byte follows.
pub(crate) fn urgent(out: &mut Vec<u8>, route: Route) {
    header(out, kind::URGENT, route, 1);
}

/// PING, to be answered with the same payload.
pub(crate) fn ping(out: &mut Vec<u8>, payload: &[u8]) {
    header(out, kind::PING, Route::TUNNEL, to_u32(payload.len()));
    out.put_slice(payload);
}

/// PONG.
pub(crate) fn pong(out: &mut Vec<u8>, payload: &[u8]) {
    header(out, kind::PONG, Route::TUNNEL, to_u32(payload.len()));
    out.put_slice(payload);
}

/// GOING_AWAY: no stream is accepted any more.
pub(crate) fn going_away(out: &mut Vec<u8>, reason: &str) {
    let reason = &reason.as_bytes()[..reason.len().min(CONTROL_BYTES_MAX as usize)];
    header(out, kind::GOING_AWAY, Route::TUNNEL, to_u32(reason.len()));
    out.put_slice(reason);
}

/// LANE_READ: bytes of frames that were read so far.
pub(crate) fn lane_read(out: &mut Vec<u8>, position: u64) {
    header(out, kind::LANE_READ, Route::TUNNEL, 8);
    out.put_u64(position);
}

/// LANE_TAKEN: payload bytes of all streams that were read so far.
pub(crate) fn lane_taken(out: &mut Vec<u8>, total_bytes: u64) {
    header(out, kind::LANE_TAKEN, Route::TUNNEL, 8);
    out.put_u64(total_bytes);
}
