//! Any client and any servers of the HTTP proxy, by a script.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sockmux_uring::proxy_proto::Conversation;
use sockmux_uring::proxy_proto::http::{Http, HttpConfig};

#[path = "../../tests/testkit/proxy"]
mod proxy {
    pub(crate) mod http_script;
    use sockmux_uring::proxy_proto::{Conversation, ProxyStep, Unreached};
}

fuzz_target!(|data: &[u8]| {
    let make = || Box::new(Http::new(HttpConfig { via: "relay".into(), users: None })) as Box<dyn Conversation>;
    proxy::http_script::run(&make, data);
});
