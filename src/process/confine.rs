//! The privileges of the process, given up when nothing that needs them is left to do.

use tracing::{info, warn};

use super::SetupError;
use crate::cli::fence::Fence;
use crate::cli::plan::{Plan, Sandbox};
use crate::io::sandbox::{self, SandboxError};
use crate::observe::Log;

/// Gives up what the plan says, on all threads.
///
/// # Errors
/// [`SandboxError`]: it cannot be done, and was demanded.
pub(super) fn confine(plan: &Plan, log: &Log) -> Result<(), SetupError> {
    let privileges = &plan.privileges;
    if let Some(user) = &privileges.user {
        sandbox::become_user(user)?;
        info!(%user, "user changed");
    }
    let fence = Fence::of(plan);
    let lacking = sandbox::put_up(&fence, |errand| log.run(errand)).join("; ");
    match privileges.sandbox {
        _ if lacking.is_empty() => info!(sandbox = %fence, "sandbox ready"),
        Sandbox::On => return Err(SandboxError::Lacking { lacking }.into()),
        Sandbox::Auto | Sandbox::Off => warn!(lacking, "sandbox incomplete"),
    }
    Ok(())
}
