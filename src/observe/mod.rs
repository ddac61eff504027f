//! What the program says of itself.

use std::io::IsTerminal;

use tracing::level_filters::LevelFilter;

use crate::params::cli::LogFormat;

/// Starts the log on standard error. `verbosity` is how often `-v` was given: none shows what an
/// operator acts on, one shows every stream, two everything.
pub fn start_log(verbosity: u8, format: LogFormat) {
    let level = match verbosity {
        0 => LevelFilter::INFO,
        1 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    let builder = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .with_target(false);
    // A second start (several relays in one process) keeps the first one's log.
    let _ = match format {
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}
