//! The real program where time is measured, or much of the machine is used: these tests do not run
//! beside the others.

#[path = "../testkit/mod.rs"]
mod testkit;

mod costs;
mod datagrams_table;
mod delay;
mod serial;
mod serial_tls;
mod stopped_peer;
