//! A serial line: one end given anything, or two on a line that spoils bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/testkit/pure/mod.rs"]
mod pure;

fuzz_target!(|data: &[u8]| pure::line_target::run(data));
