//! What the encoder writes is read as what was meant.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/core"]
mod support {
    pub(crate) mod bytes;
    pub(crate) mod choice;
    pub(crate) mod reading;
    pub(crate) mod roundtrip_target;
}

fuzz_target!(|data: &[u8]| support::roundtrip_target::run(data));
