//! Records of TLS: authentic ones that hold anything, or a connection with rustls at its other end.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/testkit/pure/mod.rs"]
mod pure;

fuzz_target!(|data: &[u8]| pure::record_target::run(data));
