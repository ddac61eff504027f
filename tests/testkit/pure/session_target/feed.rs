//! Frames of an arbitrary peer.

use std::net::Ipv6Addr;

use sockmux_uring::limits::DATAGRAM_BYTES_MAX;
use sockmux_uring::wire::v03::Encoder;
use sockmux_uring::wire::{self, Protocol, Route, Transport};

use super::super::choice::Choice;
use super::Engine;

impl Engine {
    /// Any packet of a peer. Ids are small, so that they often name a stream.
    pub(super) fn feed(&mut self, choice: &mut impl Choice) {
        if self.fed_protocol == Protocol::V1 {
            return self.feed_v1(choice);
        }
        let mut out = Vec::new();
        let id = |choice: &mut dyn FnMut(u64) -> u64| match choice(10) {
            9 => 255,
            n => n as u16 + 2,
        };
        let mut below = |bound| choice.below(bound);
        let (from, to) = (id(&mut below), id(&mut below));
        let at = "192.0.2.1:1".parse().expect("an address");
        let count = |below: &mut dyn FnMut(u64) -> u64| match below(3) {
            0 => below(20),
            1 => below(2_000),
            _ => below(16_300),
        };
        let (kind, behind) = (below(20), count(&mut below) as u32);
        let mut payload_bytes = 0;
        match kind {
            0..=2 => {
                Encoder.connect(&mut out, from, at, at, behind);
                payload_bytes = behind;
            }
            3 | 4 => {
                Encoder.connected(&mut out, from, to, at, at, behind);
                payload_bytes = behind;
            }
            5..=7 => {
                Encoder.data(&mut out, from, to, behind);
                payload_bytes = behind;
            }
            8 | 9 => Encoder.consumed(&mut out, from, to, u64::from(behind)),
            10 => Encoder.data(&mut out, from, to, 0),
            11 => {
                Encoder.urgent(&mut out, from, to, behind);
                payload_bytes = behind;
            }
            12 | 13 => Encoder.close(&mut out, Some(from), to, "DO close"),
            14 if to & 1 == 0 => Encoder.close(&mut out, None, to, "#no"),
            14 => Encoder.not_taken(&mut out, to, "no"),
            15 => Encoder.close(&mut out, Some(from), to, "#reset"),
            16 => Encoder.closed(&mut out, from, to),
            17 if to & 1 == 0 => Encoder.ping(&mut out, &[b'x'; 40]),
            17 => Encoder.ping(&mut out, b"farewell"),
            18 => Encoder.packet_size(&mut out, 129 + below(16_256) as u16),
            _ => match below(7) {
                0 => Encoder.pong(&mut out, (1, 2), b"12\0"),
                1 => {
                    Encoder.hello_ok(&mut out, (9, 9), "x");
                    self.fed_protocol = self.protocol;
                }
                2 => Encoder.urgent_taken(&mut out, from, to, 3),
                3 => Encoder.first_data(&mut out),
                4 => Encoder.hello(&mut out, "again", None, None),
                5 => Encoder.going_away(&mut out, "drain"),
                _ => out.extend_from_slice(&[3, 0x0d, 0, 0, 0, 0, 0, 0]),
            },
        }
        out.resize(out.len() + payload_bytes as usize, b'p');
        self.read(&out);
    }

    /// Any frame of SockMux 1. Numbers are those of present or former streams, or small.
    fn feed_v1(&mut self, choice: &mut impl Choice) {
        let e = wire::Encoder(Protocol::V1);
        let mut out = Vec::new();
        let small = (choice.below(2) as u32) << 20 | choice.below(6) as u32;
        let ours = self.numbers.get(choice.below(8) as usize).copied();
        let route = match ours.filter(|_| choice.below(2) == 0) {
            Some(number) => Route { id: 0, peer_id: number, opener: false },
            None => Route { id: small, peer_id: small, opener: choice.below(4) != 3 },
        };
        let at = (([192, 0, 2, 1], 1).into(), (Ipv6Addr::LOCALHOST, 2).into());
        let most = choice.pick(&[20, 2_000, 40_000, 65_536]);
        let bytes = 1 + choice.below(most) as u32;
        let mut payload_bytes = 0;
        match choice.below(17) {
            0..=2 => {
                // One slot is reserved for streams of datagrams.
                let carries = if small & 7 == 5 { Transport::Udp } else { Transport::Tcp };
                let first_bytes = if carries == Transport::Udp { 0 } else { bytes - 1 };
                let route = Route { id: small, peer_id: 0, opener: true };
                e.open(&mut out, route, carries, at, first_bytes);
                payload_bytes = first_bytes;
            }
            3 => e.opened(&mut out, route, at, 0),
            4..=6 => {
                e.data(&mut out, route, bytes);
                payload_bytes = bytes;
            }
            7 => {
                let (size_bytes, bytes) = match bytes.min(DATAGRAM_BYTES_MAX) {
                    bytes if bytes < 3 => (0, 0),
                    bytes => (bytes.div_ceil(1 + bytes % 7), bytes),
                };
                // Every other time, that slot.
                let theirs = Route { id: small & !7 | 5, peer_id: 0, opener: true };
                let route = if bytes.is_multiple_of(2) { theirs } else { route };
                e.datagrams(&mut out, route, size_bytes, bytes);
                payload_bytes = bytes;
            }
            8 | 9 => {
                let credit_bytes = u64::from(bytes) << choice.pick(&[0, 8, 16]);
                e.consumed(&mut out, route, credit_bytes.min(u64::from(u32::MAX)));
            }
            10 | 11 => e.end(&mut out, route),
            12 => {
                e.urgent(&mut out, route);
                payload_bytes = 1;
            }
            13 => e.close(&mut out, route, Some("reset by the peer")),
            14 if bytes.is_multiple_of(2) => e.refuse(&mut out, route.peer_id, "no"),
            14 => e.not_taken(&mut out, route.peer_id, "no"),
            15 => match choice.below(4) {
                0 if small & 1 == 0 => e.ping(&mut out, &[b'x'; 40]),
                0 => e.ping(&mut out, b"farewell"),
                // Occasionally more or less than was sent, which ends the tunnel.
                3 => {
                    let link = self.session.link_counts();
                    let (low, high) = (link.consumed_bytes, link.sent_bytes + 1);
                    out.extend_from_slice(&[0xb1, 0x0b, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8]);
                    let total_bytes = low + choice.below(high - low + 1);
                    out.extend_from_slice(&total_bytes.to_be_bytes());
                }
                1 => e.pong(&mut out, (0, 0), b"12\0"),
                _ => out.extend_from_slice(&[0xb1, 0x0a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            },
            // The answer to the ping after the hello: windows may grow from now on.
            _ => e.pong(&mut out, (0, 0), b"0\0"),
        }
        out.resize(out.len() + payload_bytes as usize, b'p');
        self.read(&out);
    }
}
