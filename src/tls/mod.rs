//! TLS 1.3 on the persistent connection.

pub mod settings;
