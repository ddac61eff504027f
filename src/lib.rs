//! sockmux-uring: carry many TCP and UDP flows over one persistent connection.
//!
//! The way of a byte, and the module that has it in hand:
//!
//! ```text
//! client -> entrance -> stream -> session -> frame writer -> link === link -> frame reader -> session -> stream -> exit -> server
//! ```
//!
//! Each layer knows only those below it: [`process`] runs a `worker`, which is a loop over what the
//! tunnel consists of; [`session`] is one tunnel as a pure state machine; [`wire`] turns bytes into
//! frames and back; [`io`] is the only place with descriptors, clocks and `unsafe`. [`cli`] turns the
//! command line into a plan, [`control`] is what operators ask a process, [`policy`] says who may do what, [`proxy_proto`] speaks to clients of
//! proxies.

pub mod cli;
pub mod control;
pub mod demo;
pub mod identity;
pub mod io;
pub mod limits;
pub mod link;
mod narrow;
pub mod observe;
pub mod policy;
pub mod process;
pub mod proxy_proto;
pub mod serial_line;
pub mod session;
pub mod tls;
pub mod wire;
mod worker;
