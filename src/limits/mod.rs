//! Every bound of the program in one place, each with its reason.
//!
//! Queues, tables and buffers elsewhere take their size from here, so that the most memory a
//! process can hold follows from these files alone.
//!
//! Files, whose constants are all found here, by their names alone:
//!
//! - `cli`: the command line, parameter files and the plan.
//! - `session`: streams, original peers, control frames, keep-alive and round trip.
//! - `windows`: bytes in flight of one stream.
//! - `link_window`: frames, and bytes in flight over the whole link.
//! - `datagrams`: their queues, buffers and read pauses.
//! - `connections`: ports, clients, the persistent connection, and the worker's waits.
//! - `peers`: peers on their way in, and what each may cause in a turn.
//! - `names`: resolving servers, clients, and the destinations of SOCKS flows.
//! - `buffers`: received data, data held for slow readers, and gathered sends.
//! - `resume`: lanes that outlive their connection.
//! - `memory`: what all of that takes together, and how it is divided where there is less.
//! - `copying`: sends without a copy, splicing and pipes.
//! - `drivers`: io_uring and epoll.
//! - `serial_line`: serial devices, and the link layer over them.
//! - `tls`: encrypted links.
//! - `log`: queued lines, and the rate of lines that others can cause.
//! - `commands`: commands as links and as servers.
//! - `control`: the control socket.
//! - `supervisor`: messages to the service manager.
//! - `proxies`: SOCKS, telnet, FTP, HTTP, the PROXY header, and port requests.
//! - `identity`: keys, peers and secrets.
//! - `demo`: the demo's traffic.

mod buffers;
mod cli;
mod commands;
mod connections;
mod control;
mod copying;
mod datagrams;
mod demo;
mod drivers;
mod identity;
mod link_window;
mod log;
mod memory;
mod names;
mod peers;
mod proxies;
mod resume;
mod serial_line;
mod session;
mod supervisor;
mod tls;
mod windows;

pub use self::buffers::*;
pub use self::cli::*;
pub use self::commands::*;
pub use self::connections::*;
pub use self::control::*;
pub use self::copying::*;
pub use self::datagrams::*;
pub use self::demo::*;
pub use self::drivers::*;
pub use self::identity::*;
pub use self::link_window::*;
pub use self::log::*;
pub use self::memory::*;
pub use self::names::*;
pub use self::peers::*;
pub use self::proxies::*;
pub use self::resume::*;
pub use self::serial_line::*;
pub use self::session::*;
pub use self::supervisor::*;
pub use self::tls::*;
pub use self::windows::*;
