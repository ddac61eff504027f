//! Another user for the rest of the process's life.

use std::ffi::CString;

use nix::unistd::{
    Gid, Group, Uid, User, getegid, geteuid, getgrouplist, setgroups, setresgid, setresuid, setuid,
};

use super::SandboxError;
use crate::cli::plan::RunAs;

/// Who the process is to be.
struct Identity {
    user: Uid,
    group: Gid,
    /// The group and all others that the user is in.
    groups: Vec<Gid>,
}

/// Makes the process another user's, for good. The C library does it for all threads.
///
/// # Errors
/// There is no such user or group, or the process may not.
pub(super) fn become_user(run_as: &RunAs) -> Result<(), SandboxError> {
    let refused = |error| SandboxError::User { run_as: run_as.clone(), error };
    let identity = look_up(run_as)?;
    if !geteuid().is_root() && (geteuid(), getegid()) == (identity.user, identity.group) {
        return Ok(());
    }
    let Identity { user, group, groups } = identity;
    // In this order: each takes away what the one before needs.
    setgroups(&groups)
        .and_then(|()| setresgid(group, group, group))
        .and_then(|()| setresuid(user, user, user))
        .map_err(refused)?;
    if !user.is_root() && setuid(Uid::from_raw(0)).is_ok() {
        return Err(SandboxError::StaysRoot { run_as: run_as.clone() });
    }
    Ok(())
}

fn look_up(run_as: &RunAs) -> Result<Identity, SandboxError> {
    let asked = |error| SandboxError::User { run_as: run_as.clone(), error };
    let missing = |what| SandboxError::NoSuch { run_as: run_as.clone(), what };
    let named_group = match &run_as.group {
        None => None,
        Some(name) => Some(match Group::from_name(name).map_err(asked)? {
            Some(group) => group.gid,
            None => Gid::from_raw(name.parse().map_err(|_| missing("group"))?),
        }),
    };
    let name = &run_as.user;
    let found = match User::from_name(name).map_err(asked)? {
        Some(user) => Some(user),
        None => {
            let number = Uid::from_raw(name.parse().map_err(|_| missing("user"))?);
            User::from_uid(number).map_err(asked)?
        }
    };
    match (found, named_group) {
        (Some(user), named_group) => {
            let group = named_group.unwrap_or(user.gid);
            let name = CString::new(user.name).map_err(|_| missing("user"))?;
            let groups = getgrouplist(&name, group).map_err(asked)?;
            Ok(Identity { user: user.uid, group, groups })
        }
        // A number that has no entry is in no group but the one given.
        (None, Some(group)) => {
            let user = Uid::from_raw(name.parse().map_err(|_| missing("user"))?);
            Ok(Identity { user, group, groups: vec![group] })
        }
        (None, None) => Err(SandboxError::GroupNeeded { run_as: run_as.clone() }),
    }
}
