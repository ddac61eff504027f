//! Counters, and how they are logged: as structured fields, at the end of a run and of a tunnel. Each struct is
//! destructured in full, so the compiler reports a counter that is not logged.

use tracing::{debug, info};

use super::Cx;
use crate::io::driver::{Driver, DriverCounters};
use crate::serial_line;
use crate::session;
use crate::tls::record;
use crate::worker::way::Way;

/// Why a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// A stop was requested and all streams have ended.
    Drained,
    /// A stop was requested and the drain deadline passed; this many streams were reset.
    DeadlinePassed(usize),
    /// A second stop was requested: no drain.
    AtOnce,
    /// Another process was to be taken over from, and goes on.
    NotTakenOver,
    /// The only link, which was passed in at start, has ended.
    LinkEnded {
        /// The tunnel was up, nothing was outstanding, and the peer closed the link.
        in_order: bool,
    },
}

/// Counters of the worker, beside those of driver and sessions.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::worker) struct Counters {
    /// Turns of the event loop.
    pub(in crate::worker) turns: u64,
    /// Synchronous sends that bypass the driver: batches that end in a frame head, and data that
    /// precedes spliced payload.
    pub(in crate::worker) direct_sends: u64,
    /// Completions whose key no longer exists.
    pub(in crate::worker) stale: u64,
    /// Streams reset because the buffers for slow readers were exhausted.
    pub(in crate::worker) spill_exhausted: u64,
    /// Payload bytes spliced from and to local sockets, including those of a plain relay.
    pub(in crate::worker) spliced_from_local: u64,
    pub(in crate::worker) spliced_to_local: u64,
    /// Fallbacks from splicing to copying because a pipe with free bytes had no free slot.
    pub(in crate::worker) pipe_full: u64,
    /// Fallbacks from splicing to copying because the socket does not support it.
    pub(in crate::worker) splice_refused: u64,
    /// Tunnels that went on over another connection.
    pub(in crate::worker) resumed: u64,
    /// The same because the link is encrypted.
    pub(in crate::worker) splice_encrypted: u64,
    /// Datagrams received from and sent to sockets.
    pub(in crate::worker) datagrams_in: u64,
    pub(in crate::worker) datagrams_out: u64,
    /// Datagrams dropped: no tunnel, no room, or refused by the socket.
    pub(in crate::worker) datagrams_dropped: u64,
    /// Flows evicted to make room for newer ones.
    pub(in crate::worker) flows_evicted: u64,
    /// Streams and flows of closed tunnels.
    pub(in crate::worker) past_streams: u64,
    /// Payload bytes of closed tunnels, received from and sent to the peer.
    pub(in crate::worker) past_bytes_in: u64,
    pub(in crate::worker) past_bytes_out: u64,
    /// Bytes that a plain relay moved from clients to servers (up) and back (down).
    pub(in crate::worker) relayed_up: u64,
    pub(in crate::worker) relayed_down: u64,
    /// Connections to forwarded ports from a client other than the expected one.
    pub(in crate::worker) strangers: u64,
    /// Connections to the receptor's port that closed before their first byte.
    pub(in crate::worker) silent: u64,
}

impl Counters {
    /// Counts bytes moved by a plain relay.
    pub(in crate::worker) fn relayed(&mut self, way: Way, bytes: usize) {
        match way {
            Way::Up => self.relayed_up += bytes as u64,
            Way::Down => self.relayed_down += bytes as u64,
        }
    }
}

/// Logs the last lines of a run.
pub(in crate::worker) fn log_stopped<D: Driver>(cx: &Cx<D>, stopped: Stopped) {
    let (how, streams_reset, in_order) = match stopped {
        Stopped::Drained => ("Drained", None, None),
        Stopped::DeadlinePassed(streams) => ("DeadlinePassed", Some(streams), None),
        Stopped::AtOnce => ("AtOnce", None, None),
        Stopped::NotTakenOver => ("NotTakenOver", None, None),
        Stopped::LinkEnded { in_order } => ("LinkEnded", None, Some(in_order)),
    };
    let Counters {
        turns,
        direct_sends,
        stale,
        spill_exhausted,
        spliced_from_local,
        spliced_to_local,
        pipe_full,
        splice_refused,
        resumed,
        splice_encrypted,
        datagrams_in,
        datagrams_out,
        datagrams_dropped,
        flows_evicted,
        past_streams,
        past_bytes_in,
        past_bytes_out,
        relayed_up,
        relayed_down,
        strangers,
        silent,
    } = cx.counters;
    info!(
        how,
        streams_reset,
        in_order,
        spliced_from_local,
        spliced_to_local,
        splice_fallbacks = pipe_full + splice_refused + cx.buffers.pipes.refused,
        splice_encrypted,
        resumed,
        datagrams_in,
        datagrams_out,
        datagrams_dropped,
        flows_evicted,
        silent_strangers = silent,
        "stopped"
    );
    let splices = cx.buffers.pipes.counts.splices.get();
    debug!(
        turns,
        splices,
        direct_sends,
        ahead_reads = cx.buffers.ahead_reads,
        copied_bytes = cx.buffers.copied_bytes(),
        stale,
        spill_exhausted,
        pipe_full,
        splice_refused,
        splice_encrypted,
        past_streams,
        past_bytes_in,
        past_bytes_out,
        relayed_up,
        relayed_down,
        strangers,
        "counts"
    );
    log_driver_counts(cx.driver.counters());
}

fn log_driver_counts(counters: &DriverCounters) {
    let &DriverCounters {
        enters,
        submissions,
        receives,
        sends,
        polls,
        completions,
        stale,
        no_buffers,
        queue_full,
        overflows,
        retries,
        zero_copy_sends,
        zero_copy_copied,
    } = counters;
    debug!(
        enters,
        submissions,
        receives,
        sends,
        polls,
        completions,
        stale,
        no_buffers,
        queue_full,
        overflows,
        retries,
        zero_copy_sends,
        zero_copy_copied,
        "driver counts"
    );
}

/// Logs the counters of a closed tunnel.
pub(in crate::worker) fn log_tunnel_counts(counters: &session::SessionCounters) {
    let &session::SessionCounters {
        frames_in,
        frames_out,
        payload_bytes_in,
        payload_bytes_out,
        discarded_bytes,
        ignored_frames,
        unsuited_frames,
        unknown_ids,
        stale_keys,
        opened,
        accepted,
    } = counters;
    debug!(
        frames_in,
        frames_out,
        payload_bytes_in,
        payload_bytes_out,
        discarded_bytes,
        ignored_frames,
        unsuited_frames,
        unknown_ids,
        stale_keys,
        opened,
        accepted,
        "tunnel counts"
    );
}

/// Logs the counters of a closed link that was encrypted.
pub(in crate::worker) fn log_key_counts(counters: &record::RecordCounters) {
    let &record::RecordCounters { key_updates_in, key_updates_out } = counters;
    debug!(key_updates_in, key_updates_out, "key counts");
}

/// Logs the counters of a closed serial line.
pub(in crate::worker) fn log_line_counts(counters: &serial_line::LineCounters) {
    let &serial_line::LineCounters {
        frames_sent,
        frames_retransmitted,
        frames_received,
        frames_damaged,
        duplicates,
        frames_refused,
        bytes_skipped,
    } = counters;
    debug!(
        frames_sent,
        frames_retransmitted,
        frames_received,
        frames_damaged,
        duplicates,
        frames_refused,
        bytes_skipped,
        "line counts"
    );
}
