//! Any bytes as the beginning of a connection with a PROXY header.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/testkit/pure/mod.rs"]
mod pure;

fuzz_target!(|data: &[u8]| pure::proxy_header_target::run(data));
