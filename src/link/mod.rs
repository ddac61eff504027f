//! Re-establishing the persistent connection.

pub mod backoff;
