//! A session with any peer and any local sockets.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/testkit/pure/mod.rs"]
mod pure;

fuzz_target!(|data: &[u8]| pure::session_target::run(data));
