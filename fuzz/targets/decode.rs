//! Any bytes in any pieces.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/core"]
mod support {
    pub(crate) mod decode_target;
    pub(crate) mod reading;
}

fuzz_target!(|data: &[u8]| support::decode_target::run(data));
