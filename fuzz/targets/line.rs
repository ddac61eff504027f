//! A serial line: one end given anything, or two on a line that spoils bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/core"]
mod support {
    pub(crate) mod bytes;
    pub(crate) mod choice;
    pub(crate) mod line_target;
    pub(crate) mod line_world;
}

fuzz_target!(|data: &[u8]| support::line_target::run(data));
