//! Policy: which exit a stream takes, which destinations proxies may reach, and how many streams
//! may exist at once.

pub mod connection_limits;
pub mod destinations;
pub mod routing;
pub mod wrong_passwords;
