//! The ceilings of the process, by the limits that the system sets it.

use tracing::info;

use crate::io::memory::Memory;
use crate::limits::{BASE_BYTES, RECEIVE_BYTES, STACK_BYTES};
use crate::policy::ceilings::Ceilings;

/// `ulimit -v` leaves no room for what is needed at least.
#[derive(Debug, thiserror::Error)]
#[error(
    "{limit_mib} MiB of address space (ulimit -v) are too little: {needed_mib} MiB are needed at \
     least; raise it, or limit memory by a control group"
)]
pub struct TooLittle {
    limit_mib: u64,
    needed_mib: u64,
}

/// The ceilings of this process, which are logged where they are below the highest.
///
/// # Errors
/// [`TooLittle`]
pub(super) fn ceilings() -> Result<Ceilings, TooLittle> {
    let memory = Memory::of_process();
    let ceilings = within(&memory)?;
    if ceilings != Ceilings::within(None) {
        let mib = |bytes: u64| bytes >> 20;
        info!(
            address_space_mib = memory.address_space.map(mib),
            group_mib = memory.groups.map(mib),
            pool_mib = mib(ceilings.pool_bytes()),
            connections = ceilings.connections,
            tunnels = ceilings.tunnels,
            strangers = ceilings.strangers,
            "memory is limited"
        );
    }
    Ok(ceilings)
}

fn within(memory: &Memory) -> Result<Ceilings, TooLittle> {
    let of_space = memory.mapped + RECEIVE_BYTES + BASE_BYTES + STACK_BYTES;
    let of_group = memory.resident + RECEIVE_BYTES + BASE_BYTES;
    if let Some(limit_bytes) = memory.address_space {
        let needed_bytes = of_space + Ceilings::within(Some(0)).most_bytes();
        if limit_bytes < needed_bytes {
            let (limit_mib, needed_mib) = (limit_bytes >> 20, (needed_bytes >> 20) + 1);
            return Err(TooLittle { limit_mib, needed_mib });
        }
    }
    let room = |limit: Option<u64>, taken| limit.map(|limit| limit.saturating_sub(taken));
    let rooms = [room(memory.address_space, of_space), room(memory.groups, of_group)];
    Ok(Ceilings::within(rooms.into_iter().flatten().min()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Memory =
        Memory { address_space: None, mapped: 20 << 20, groups: None, resident: 8 << 20 };

    #[test]
    fn the_least_limit_divides_what_is_left_of_it() {
        let of = |address_space, groups| {
            let memory = Memory { address_space, groups, ..SMALL };
            within(&memory).expect("enough").pool_bytes() >> 20
        };
        assert_eq!(of(None, None), 1024);
        // 20 + 34 + 8 + 16 MiB are for other things.
        assert_eq!(of(Some(256 << 20), None), 89);
        // 8 + 34 + 8.
        assert_eq!(of(None, Some(256 << 20)), 103);
        assert_eq!(of(Some(256 << 20), Some(128 << 20)), 39);
        assert_eq!(of(None, Some(64 << 20)), 7);
        // As for containers: too little is taken for as much as there has to be.
        assert_eq!(of(None, Some(1 << 20)), 4);
    }

    #[test]
    fn too_little_address_space_says_how_much_is_needed() {
        let memory = Memory { address_space: Some(80 << 20), ..SMALL };
        let error = within(&memory).expect_err("too little").to_string();
        assert!(error.contains("80 MiB") && error.contains("87 MiB are needed"), "{error}");
    }
}
