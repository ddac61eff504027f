//! How much of a stream may be sent: packets unacknowledged in 0.3, credit in 1.

use super::Session;
use super::stream::Stream;
use crate::wire::Protocol;

/// The limits on sending of one stream, by protocol and peer.
#[derive(Debug, Clone, Copy)]
pub(super) struct SendRule {
    pub(super) protocol: Protocol,
    /// 0.3: unacknowledged bytes at which sending stops.
    pub(super) limit: u64,
    /// Most payload bytes of a frame with datagrams.
    pub(super) payload_max: u64,
    /// Most payload bytes of a frame with stream data.
    pub(super) data_max: u64,
}

impl SendRule {
    /// Most payload bytes in one frame of this stream.
    #[inline]
    pub(super) fn frame_max(&self, stream: &Stream) -> u64 {
        if stream.datagrams.is_some() { self.payload_max } else { self.data_max }
    }

    /// Payload bytes that the stream's next frame may carry now.
    #[inline]
    pub(super) fn room(&self, stream: &Stream) -> u64 {
        match self.protocol {
            Protocol::V03 if stream.unacked_bytes > self.limit => 0,
            Protocol::V03 => self.frame_max(stream),
            // Datagrams are not subject to the windows.
            Protocol::V1 if stream.datagrams.is_some() => self.payload_max,
            Protocol::V1 => stream.credit_bytes.min(self.data_max),
        }
    }

    /// Bytes that the stream may send before the peer acknowledges or grants more.
    pub(super) fn sendable(&self, stream: &Stream) -> u64 {
        match self.protocol {
            // A packet may start below the limit and end beyond it.
            Protocol::V03 => match self.limit.checked_sub(stream.unacked_bytes) {
                Some(left) => (left / self.frame_max(stream) + 1) * self.frame_max(stream),
                None => 0,
            },
            Protocol::V1 => stream.credit_bytes,
        }
    }

    /// Whether more may be read ahead of what was sent.
    pub(super) fn wants(&self, stream: &Stream) -> bool {
        match self.protocol {
            Protocol::V03 => stream.ready_bytes + stream.unacked_bytes <= self.limit,
            Protocol::V1 => stream.ready_bytes < stream.credit_bytes,
        }
    }

    /// Counts bytes as sent.
    #[inline]
    pub(super) fn spend(&self, stream: &mut Stream, bytes: u64) {
        match self.protocol {
            Protocol::V03 => stream.unacked_bytes += bytes,
            Protocol::V1 => stream.credit_bytes -= bytes,
        }
    }
}

impl Session {
    pub(super) fn send_rule(&self) -> SendRule {
        SendRule {
            protocol: self.protocol,
            limit: self.peer.send_limit(),
            payload_max: self.payload_max(),
            data_max: self.data_max(),
        }
    }
}
