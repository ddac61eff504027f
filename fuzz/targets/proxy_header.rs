//! Any bytes as the beginning of a connection with a PROXY header.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/core"]
mod support {
    pub(crate) mod proxy_header_target;
}

fuzz_target!(|data: &[u8]| support::proxy_header_target::run(data));
