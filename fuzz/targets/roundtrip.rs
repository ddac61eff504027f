//! What the encoder writes is read as what was meant.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/testkit/pure/mod.rs"]
mod pure;

fuzz_target!(|data: &[u8]| pure::roundtrip_target::run(data));
