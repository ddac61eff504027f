//! What a plan needs of the system once its ports are open, and how far the process can be fenced in
//! for it.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::hostlist::HostList;
use super::plan::{Device, Exit, ExitKind, LinkPlan, Plan, Sandbox};

/// How far the process is fenced in. Every fence but the first also ends core dumps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fence {
    /// Not at all.
    Open,
    /// Its commands would inherit a fence, and may need anything.
    Dumps,
    /// It and its commands have no new privileges, and none of the system calls that an administrator
    /// alone needs.
    Wide,
    /// What the plan needs, and nothing else.
    Narrow(Needs),
}

/// What a plan without commands needs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Needs {
    /// Names are looked up: by the system's resolver, which has files and libraries of its own.
    pub names: bool,
    /// FIFOs and devices that are opened again and again.
    pub opened: Vec<PathBuf>,
    /// Unix sockets that are removed in the end.
    pub removed: Vec<PathBuf>,
    /// The access log, which is opened again when it was rotated.
    pub appended: Option<PathBuf>,
    /// The peers file, which is read again when it has changed.
    pub peers: Option<PathBuf>,
}

impl Fence {
    /// That of a plan.
    pub fn of(plan: &Plan) -> Fence {
        match (plan.privileges.sandbox, runs_commands(plan)) {
            (Sandbox::Off, _) => Fence::Open,
            (Sandbox::Auto, true) => Fence::Dumps,
            (Sandbox::On, true) => Fence::Wide,
            (Sandbox::Auto | Sandbox::On, false) => Fence::Narrow(Needs::of(plan)),
        }
    }
}

/// For `--check`.
impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fence::Open => f.write_str("no sandbox"),
            Fence::Dumps => f.write_str(
                "no core dumps; commands would inherit the rest of a sandbox, and --sandbox on \
                 gives it to them",
            ),
            Fence::Wide => f.write_str(
                "no core dumps, no new privileges, no system calls of administration, for \
                 commands too",
            ),
            Fence::Narrow(needs) => {
                f.write_str("no core dumps, no new privileges, no commands, ")?;
                needs.fmt(f)
            }
        }
    }
}

impl Needs {
    fn of(plan: &Plan) -> Needs {
        let opened = match &plan.link {
            LinkPlan::Device(Device::Pair { input, output }) => {
                vec![input.clone(), output.clone()]
            }
            LinkPlan::Device(Device::Both { path, .. }) => vec![path.clone()],
            _ => Vec::new(),
        };
        let removed = plan.unix_entrances.iter().map(|entrance| &entrance.path);
        let removed = removed.map(PathBuf::as_path);
        let removed = removed.chain(plan.takeover.as_deref()).chain(plan.control.path());
        let removed = removed.map(Path::to_owned).collect();
        let peers = plan.encryption.as_ref().and_then(|encryption| encryption.peers_file.clone());
        let appended = plan.access_log.as_ref().and_then(|log| log.file.clone());
        Needs { names: looks_names_up(plan), opened, removed, appended, peers }
    }
}

/// The files, in a phrase.
impl fmt::Display for Needs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let uses = [
            (self.names, "to look names up"),
            (!self.opened.is_empty(), "to open the link again"),
            (!self.removed.is_empty(), "to remove Unix sockets"),
            (self.appended.is_some(), "to open the access log again"),
            (self.peers.is_some(), "to read the peers file again"),
        ];
        let uses: Vec<&str> = uses.iter().filter(|(any, _)| *any).map(|(_, what)| *what).collect();
        match uses.is_empty() {
            true => f.write_str("no files"),
            false => write!(f, "files only {}", uses.join(" and ")),
        }
    }
}

fn runs_commands(plan: &Plan) -> bool {
    let exits = &mut plan.exits.iter();
    matches!(plan.link, LinkPlan::Command(_))
        || exits.any(|exit| matches!(exit.way, ExitKind::Command(_)))
}

fn looks_names_up(plan: &Plan) -> bool {
    let by_link = match &plan.link {
        LinkPlan::Connect(target) => is_name(&target.host),
        LinkPlan::Relay { server, .. } => leads_to_name(server),
        _ => false,
    };
    by_link || plan.exits.iter().any(|exit| leads_to_name(&exit.way)) || asks_for_names(plan)
}

fn leads_to_name(way: &ExitKind) -> bool {
    match way {
        ExitKind::Server { target, .. } | ExitKind::Ftp(target) => is_name(&target.host),
        ExitKind::SamePort { host, .. } => is_name(host),
        ExitKind::Proxy(_) => true,
        ExitKind::Unix(_) | ExitKind::Command(_) => false,
    }
}

fn is_name(host: &str) -> bool {
    host.parse::<IpAddr>().is_err()
}

/// Whether some list is about the names of clients.
fn asks_for_names(plan: &Plan) -> bool {
    let permits = plan.permits.iter().map(|permit| &permit.sources);
    let mut lists = plan.reliable.iter().chain(permits).chain(plan.exits.iter().flat_map(lists_of));
    lists.any(HostList::has_name_patterns)
}

fn lists_of(exit: &Exit) -> impl Iterator<Item = &HostList> {
    let own = exit.options.permits.iter().map(|permit| &permit.sources);
    exit.clients.iter().chain(&exit.options.reliable).chain(own)
}
