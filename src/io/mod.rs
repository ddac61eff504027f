//! The only place with descriptors, clocks and `unsafe`.
//!
//! The worker is written against [`driver::Driver`]: it starts operations and is told of their
//! ends. How the kernel is asked is the driver's business ([`uring`] or [`epoll`]), and the bytes go
//! from operation to operation as refcounted [`chunk`]s, never copied on the way.
#![warn(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss)]

/// Lets the simulated kernel answer a function, on a thread that has one (test builds only).
macro_rules! simulated {
    ($kernel:ident => $answer:expr) => {
        #[cfg(test)]
        if let Some(answer) = crate::io::sim::ask(|$kernel| $answer) {
            return answer;
        }
    };
}

pub mod chunk;
pub mod command;
pub(crate) mod congestion;
pub mod control;
pub(crate) mod datagram;
pub(crate) mod device;
pub(crate) mod direct;
pub mod driver;
pub mod epoll;
pub(crate) mod fifo;
pub(crate) mod gather;
pub(crate) mod inherited;
pub(crate) mod lent;
pub(crate) mod link;
pub(crate) mod lookout;
pub mod memory;
pub(crate) mod net;
pub mod notify;
pub(crate) mod pipe;
pub(crate) mod random;
pub(crate) mod region;
pub(crate) mod resolver;
pub mod sandbox;
pub mod serial;
pub mod signals;
#[cfg(test)]
pub(crate) mod sim;
pub(crate) mod slots;
pub(crate) mod stdio;
pub(crate) mod takeover;
pub(crate) mod unix;
pub mod uring;

pub use control::ControlError;
pub use inherited::Inherited;
pub use link::LinkError;
pub use notify::Notifier;
pub use takeover::TakeoverError;
