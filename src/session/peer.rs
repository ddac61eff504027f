//! The peer of a session: what it has offered, and the bounds that follow from that.

use crate::limits;
use crate::wire::v03::{self, LaneHello, Offer};

/// What the hello established about the peer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer {
    /// The peer's offer, if both sides made one.
    pub(super) offer: Option<Offer>,
    /// What it says of lanes, if both sides do.
    pub(super) lane: Option<LaneHello>,
    /// Largest packet that the peer accepts, header included, in bytes. A default until the peer
    /// reports it.
    pub(super) packet_bytes: u16,
    /// The peer has reported `packet_bytes`.
    pub(super) packet_size_said: bool,
    /// The peer accepts first data in CONNECT and CONNECTED.
    pub(super) first_data: bool,
}

impl Peer {
    pub(super) fn payload_max(&self) -> u64 {
        u64::from(self.packet_bytes) - v03::HEADER_BYTES as u64
    }

    /// Limit of a stream's unacknowledged bytes at which it stops sending.
    pub(super) fn send_limit(&self) -> u64 {
        match self.offer {
            Some(offer) => {
                let window = offer
                    .window_bytes
                    .clamp(limits::PEER_WINDOW_BYTES_MIN, limits::PEER_WINDOW_BYTES_MAX);
                u64::from(window) - self.payload_max()
            }
            None => limits::ORIGINAL_WINDOW_PACKETS * u64::from(self.packet_bytes),
        }
    }

    pub(super) fn streams_max(&self) -> u32 {
        match self.offer {
            Some(offer) => offer.streams_max.min(limits::STREAMS_MAX),
            None => limits::ORIGINAL_STREAMS_MAX,
        }
    }

    pub(super) fn id_max(&self) -> u32 {
        match self.offer {
            Some(_) => limits::STREAM_ID_FIRST + limits::STREAMS_MAX * limits::ID_REUSE_DISTANCE,
            None => limits::ORIGINAL_ID_MAX,
        }
    }

    pub(super) fn datagrams(&self) -> bool {
        self.offer.is_some_and(|offer| offer.datagrams)
    }

    pub(super) fn ports(&self) -> bool {
        self.offer.is_some_and(|offer| offer.ports)
    }

    pub(super) fn entrances(&self) -> bool {
        self.offer.is_some_and(|offer| offer.entrances)
    }

    pub(super) fn half_close(&self) -> bool {
        self.offer.is_some_and(|offer| offer.half_close)
    }
}
