//! Any client and any server of FTP, by a script.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/testkit/proxy"]
mod proxy {
    pub(crate) mod ftp_script;
    use sockmux_uring::proxy_proto::{Conversation, Lead, ProxyStep, Target, PortUse, Unreached, ftp};
}

fuzz_target!(|data: &[u8]| {
    proxy::ftp_script::run(data);
});
