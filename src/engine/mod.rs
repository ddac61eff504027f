//! The only place with descriptors, clocks and `unsafe`.
//!
//! The worker is written against [`driver::Driver`]: it starts operations and is told of their
//! ends. How the kernel is asked is the driver's business ([`uring`] or [`epoll`]), and the bytes go
//! from operation to operation as refcounted [`chunk`]s, never copied on the way.

mod choice;
pub mod chunk;
pub mod command;
mod congestion;
mod datagram;
mod device;
mod direct;
pub mod driver;
pub mod epoll;
mod fifo;
mod gather;
mod inherited;
mod link;
mod net;
mod pipe;
mod region;
mod relay;
mod resolver;
pub mod serial;
pub mod signals;
mod slots;
mod stdio;
mod unix;
pub mod uring;
mod worker;

pub use inherited::Inherited;
pub use link::LinkError;
pub use relay::{Relay, RunError, SetupError, StopHandle};
pub use worker::Stopped;
