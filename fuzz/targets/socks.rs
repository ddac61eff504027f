//! Any bytes for the SOCKS proxy, and as a datagram for a port of it; the first says whether users are
//! set.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sockmux_uring::proxy_proto::Conversation;
use sockmux_uring::proxy_proto::socks::{Socks, SocksConfig};
use sockmux_uring::cli::plan::User;

#[path = "../../tests/testkit/proxy"]
mod proxy {
    pub(crate) mod conversation;
    pub(crate) mod socks_datagram;
    use sockmux_uring::proxy_proto::socks::datagram;
    use sockmux_uring::proxy_proto::{Conversation, ProxyStep, PortUse, Unreached};
}

fuzz_target!(|data: &[u8]| {
    let Some((&users, data)) = data.split_first() else { return };
    let make = || {
        let users = (users & 1 == 1).then(|| vec![User { name: "a".into(), password: "b".into() }]);
        Box::new(Socks::new(SocksConfig::from(users))) as Box<dyn Conversation>
    };
    proxy::conversation::run(&make, data);
    proxy::socks_datagram::run(data);
});
