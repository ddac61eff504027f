//! Two sessions on a link, as in the simulation.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/testkit/pure/mod.rs"]
mod pure;

static PATTERN: LazyLock<pure::script::Pattern> = LazyLock::new(pure::script::Pattern::new);

fuzz_target!(|data: &[u8]| pure::pair_target::run(data, &PATTERN));
