//! How the persistent connection comes back.

pub mod backoff;
