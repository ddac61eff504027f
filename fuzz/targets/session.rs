//! A session with any peer and any local sockets.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/core"]
mod support {
    pub(crate) mod bytes;
    pub(crate) mod choice;
    pub(crate) mod session_target;
}

fuzz_target!(|data: &[u8]| support::session_target::run(data));
