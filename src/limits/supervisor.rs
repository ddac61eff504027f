//! The service manager: how often it is told something.

/// Shortest time between two lines of status for the service manager, in milliseconds: tunnels may come
/// and go by the thousand.
pub const STATUS_MILLIS: u64 = 1_000;
/// How long after a message to the service manager that found no room it is tried again.
pub const NOTIFY_AGAIN_MILLIS: u64 = 100;
/// Shortest time of its watchdog that is heeded, in milliseconds: below it the loop would be busy with it.
pub const WATCHDOG_MILLIS_MIN: u64 = 20;
