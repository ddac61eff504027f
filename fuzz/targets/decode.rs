//! Any bytes in any pieces.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/testkit/pure/mod.rs"]
mod pure;

fuzz_target!(|data: &[u8]| pure::decode_target::run(data));
