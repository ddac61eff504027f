//! Any bytes for the telnet proxy.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sockmux_uring::proxy_proto::Conversation;
use sockmux_uring::proxy_proto::telnet::{Telnet, TelnetConfig};

#[path = "../../tests/testkit/proxy"]
mod proxy {
    pub(crate) mod conversation;
    use sockmux_uring::proxy_proto::{Conversation, ProxyStep, PortUse, Unreached};
}

fuzz_target!(|data: &[u8]| {
    let make = || {
        let config = TelnetConfig { banner_host: "relay".into() };
        Box::new(Telnet::new(config)) as Box<dyn Conversation>
    };
    proxy::conversation::run(&make, data);
});
