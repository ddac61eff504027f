//! Any bytes for the SOCKS proxy; the first says whether users are set.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sockmux_uring::endpoint::proxy::Conversation;
use sockmux_uring::endpoint::proxy::socks::{Socks, SocksConfig};

#[path = "../../tests/core"]
mod support {
    pub(crate) mod conversation;
    use sockmux_uring::endpoint::proxy::{Conversation, Step, Unreached};
}

fuzz_target!(|data: &[u8]| {
    let Some((&users, data)) = data.split_first() else { return };
    let make = || {
        let users = (users & 1 == 1).then(|| vec![("a".into(), "b".into())]);
        Box::new(Socks::new(SocksConfig { users })) as Box<dyn Conversation>
    };
    support::conversation::run(&make, data);
});
