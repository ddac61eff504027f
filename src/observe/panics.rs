//! Logging of panics: a panic is a fault of this program, and has to be found in the log.
//!
//! The standard library's own hook writes to standard error directly, which would block for ever on
//! a reader that does not read.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::{self, PanicHookInfo};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tracing::{error, field};

use super::writer::Queue;
use crate::limits::LOG_EXIT_MILLIS;

/// Logs all panics from now on, behind the queued lines.
pub(super) fn log_all(queue: Arc<Queue>) {
    panic::set_hook(Box::new(move |panic| {
        log(panic);
        // Written at once, since a panic that cannot unwind aborts the process after this.
        queue.flush(Duration::from_millis(LOG_EXIT_MILLIS));
    }));
}

fn log(panic: &PanicHookInfo<'_>) {
    let location = panic.location().map(field::display);
    let thread = thread::current();
    // Set if `RUST_BACKTRACE` is.
    let backtrace = Backtrace::capture();
    let backtrace =
        (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
    let payload = panic.payload();
    // It may have several lines. As a text field it is logged in one.
    let reason = payload.downcast_ref::<&str>().copied();
    let reason = reason.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    error!(
        location,
        reason,
        thread = thread.name(),
        backtrace,
        "panicked, which is a fault of this program: please report it"
    );
}
