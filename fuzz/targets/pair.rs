//! Two sessions on a link, as in the simulation.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/core"]
mod support {
    pub(crate) mod bytes;
    pub(crate) mod choice;
    pub(crate) mod pair_target;
    pub(crate) mod script;
    pub(crate) mod side;
    pub(crate) mod world;
}

static PATTERN: LazyLock<support::script::Pattern> = LazyLock::new(support::script::Pattern::new);

fuzz_target!(|data: &[u8]| support::pair_target::run(data, &PATTERN));
