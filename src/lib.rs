//! sockmux-uring: carry many TCP and UDP flows over one persistent connection.
//!
//! The way of a byte, and the module that has it in hand:
//!
//! ```text
//! client -> entrance -> stream -> session -> frame writer -> link === link -> frame reader -> session -> stream -> exit -> server
//! ```
//!
//! Four layers, each knowing only the one below it: [`params`] turns the command line into a
//! plan; `wire` turns bytes into frames and back; `session` is one tunnel as a pure state
//! machine; `engine` is the only place with descriptors, clocks and `unsafe`.

pub mod demo;
pub mod endpoint;
pub mod engine;
pub mod limits;
pub mod line;
pub mod link;
pub mod observe;
pub mod params;
pub mod session;
pub mod wire;
