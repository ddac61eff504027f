//! Fuzz target: two sessions in a world that follows from the bytes.

use sockmux_uring::limits::{ID_REUSE_DISTANCE, STREAMS_MAX, WINDOW_BUDGET_BYTES};

use super::bytes::Bytes;
use super::script::Pattern;
use super::world::random_run;

/// Runs the world that the bytes describe. The world checks its invariants.
pub(crate) fn run(data: &[u8], pattern: &Pattern) {
    let summary = random_run(&mut Bytes(data), pattern, false);
    assert!(summary.refused + summary.reset <= 2 * summary.streams);
    assert!(summary.reset_half_closed <= summary.reset);
    assert!(summary.most_streams <= summary.streams);
    assert!(summary.largest_id <= STREAMS_MAX * ID_REUSE_DISTANCE + 2);
    assert!(summary.was_cut || summary.streams > 0 || summary.given_up > 0);
    assert!(summary.streams > 0 || summary.payload_bytes + summary.late_frames == 0);
    let datagrams = summary.datagrams + summary.datagrams_dropped;
    assert!(summary.streams > 0 || datagrams == 0);
    assert!(summary.extra_window_bytes <= WINDOW_BUDGET_BYTES);
}
