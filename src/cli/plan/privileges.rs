//! What the process gives up once its ports are open.

use std::fmt;

use clap::ValueEnum;

/// `--user` and `--sandbox`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Privileges {
    /// Whom the process goes on as; `None`: as who started it.
    pub user: Option<RunAs>,
    /// How far it is fenced in.
    pub sandbox: Sandbox,
}

/// A user, by name or number, and the group, if it is not the user's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunAs {
    /// The user.
    pub user: String,
    /// The group.
    pub group: Option<String>,
}

/// As `NAME` or `NAME:GROUP`.
impl fmt::Display for RunAs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.user)?;
        self.group.iter().try_for_each(|group| write!(f, ":{group}"))
    }
}

/// How far the process is fenced in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Sandbox {
    /// As far as the kernel can and no command line suffers
    #[default]
    Auto,
    /// Commands too (exec:, proc@); not to start where the kernel cannot
    On,
    /// Not at all
    Off,
}
