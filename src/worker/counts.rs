//! Logs counters as structured fields, at the end of a run and of a tunnel. Each struct is
//! destructured in full, so the compiler reports a counter that is not logged.

use tracing::{debug, info};

use super::{Counters, Stopped, Worker};
use crate::io::driver::{Driver, DriverCounters};
use crate::serial_line;
use crate::session;

impl<D: Driver> Worker<D> {
    /// Logs the last lines of a run.
    pub(super) fn log_stopped(&self, stopped: Stopped) {
        let (how, streams_reset, in_order) = match stopped {
            Stopped::Drained => ("Drained", None, None),
            Stopped::DeadlinePassed(streams) => ("DeadlinePassed", Some(streams), None),
            Stopped::AtOnce => ("AtOnce", None, None),
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
            datagrams_in,
            datagrams_out,
            datagrams_dropped,
            flows_evicted,
            past_bytes_in,
            past_bytes_out,
            relayed_up,
            relayed_down,
            strangers,
            silent,
        } = self.cx.counters;
        info!(
            how,
            streams_reset,
            in_order,
            spliced_from_local,
            spliced_to_local,
            splice_fallbacks = pipe_full + splice_refused + self.cx.buffers.pipes.refused,
            datagrams_in,
            datagrams_out,
            datagrams_dropped,
            flows_evicted,
            silent_strangers = silent,
            "stopped"
        );
        let splices = self.cx.buffers.pipes.counts.splices.get();
        debug!(
            turns,
            splices,
            direct_sends,
            ahead_reads = self.cx.buffers.ahead_reads,
            copied_bytes = self.cx.buffers.copied_bytes(),
            stale,
            spill_exhausted,
            pipe_full,
            splice_refused,
            past_bytes_in,
            past_bytes_out,
            relayed_up,
            relayed_down,
            strangers,
            "counts"
        );
        log_driver_counts(self.cx.driver.counters());
    }
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
pub(super) fn log_tunnel_counts(counters: &session::SessionCounters) {
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

/// Logs the counters of a closed serial line.
pub(super) fn log_line_counts(counters: &serial_line::LineCounters) {
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
