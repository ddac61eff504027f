//! Files, by Landlock: what the plan opens again, and what the system's resolver reads.
//!
//! Rules are of directories, not of files: a file that is written anew, a FIFO made again or a device
//! plugged in again has the name of the one before, and nothing else of it.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};

use super::Errand;
use crate::cli::fence::Needs;

/// What is handled, as far as the kernel has it: Linux 6.12's. Connecting to Unix sockets is not among
/// it.
const HANDLED: ABI = ABI::V6;

/// Where libraries and their debugging information are.
const LIBRARIES: [&str; 6] = ["/usr", "/lib", "/lib32", "/lib64", "/nix/store", "/gnu/store"];

/// What the system's resolver reads, beside its libraries.
const RESOLVER: [&str; 8] = [
    "/etc",
    "/run/systemd/resolve",
    "/run/systemd/machines",
    "/run/NetworkManager",
    "/run/resolvconf",
    "/run/nscd",
    "/run/connman",
    "/var/lib/sss",
];

/// Its files that may be links to elsewhere.
const RESOLVER_FILES: [&str; 4] =
    ["/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/gai.conf"];

/// Names its modules, in the line `hosts:`.
const MODULES: &str = "/etc/nsswitch.conf";

/// Modules whose needs are known.
const KNOWN_MODULES: [&str; 14] = [
    "altfiles",
    "compat",
    "dns",
    "files",
    "mdns",
    "mdns4",
    "mdns4_minimal",
    "mdns6",
    "mdns6_minimal",
    "mdns_minimal",
    "mymachines",
    "myhostname",
    "resolve",
    "sss",
];

/// Lets this thread, those that it starts, and those that `on_other_threads` reaches open what the plan
/// needs.
///
/// # Errors
/// Why the kernel does not, or not all of it.
pub(super) fn narrow(needs: &Needs, on_other_threads: impl Fn(Errand)) -> Result<(), String> {
    let created = ruleset(needs).map_err(|error| error.to_string())?;
    let theirs = created.try_clone().map_err(|error| error.to_string())?;
    let status = created.restrict_self().map_err(|error| error.to_string())?;
    // What an older Landlock leaves out the filter of system calls forbids.
    if status.ruleset == RulesetStatus::NotEnforced {
        return Err("this kernel has none, or it is not enabled".to_owned());
    }
    // It fails where ours has failed.
    on_other_threads(Box::new(|| drop(theirs.restrict_self())));
    Ok(())
}

/// A module of the resolver whose needs are not known.
pub(super) fn unknown_module() -> Option<String> {
    unknown_module_in(&fs::read_to_string(MODULES).unwrap_or_default())
}

fn unknown_module_in(text: &str) -> Option<String> {
    let hosts = text.lines().find_map(|line| line.trim_start().strip_prefix("hosts:"))?;
    let hosts = hosts.split('#').next()?;
    // Behind a module may stand what to do then, as [NOTFOUND=return].
    let mut words = hosts.split('[').flat_map(|part| match part.split_once(']') {
        Some((_, behind)) => behind.split_whitespace(),
        None => part.split_whitespace(),
    });
    words.find(|word| !KNOWN_MODULES.contains(word)).map(str::to_owned)
}

fn ruleset(needs: &Needs) -> Result<RulesetCreated, RulesetError> {
    let ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(HANDLED))?
        .scope(Scope::from_all(HANDLED))?;
    let mut created = ruleset.create()?;
    for (path, access) in places(needs) {
        // One that is not there needs no rule.
        if let Ok(place) = PathFd::new(&path) {
            created = created.add_rule(PathBeneath::new(place, access))?;
        }
    }
    Ok(created)
}

fn places(needs: &Needs) -> Vec<(PathBuf, BitFlags<AccessFs>)> {
    let (mut read, opens) = (BTreeSet::new(), AccessFs::ReadFile | AccessFs::WriteFile);
    // What a panic's backtrace is made of.
    let traces = env::var_os("RUST_BACKTRACE").is_some_and(|set| set != "0");
    if traces {
        read.extend(env::current_exe());
        read.insert(PathBuf::from("/proc"));
    }
    if traces || needs.names {
        read.extend(LIBRARIES.map(PathBuf::from));
    }
    if needs.names {
        read.extend(RESOLVER.map(PathBuf::from));
        read.extend(RESOLVER_FILES.iter().flat_map(|path| directories(Path::new(path))));
    }
    read.extend(needs.peers.iter().flat_map(|path| directories(path)));
    let read = read.into_iter().map(|path| (path, AccessFs::ReadFile.into()));
    let opened = needs.opened.iter().flat_map(|path| directories(path));
    let opened = opened.map(|path| (path, opens | AccessFs::IoctlDev));
    // The directory is locked before a file of it is removed.
    let removes = AccessFs::ReadDir | AccessFs::RemoveFile;
    let removed = needs.removed.iter().map(|path| (parent(path), removes));
    let appended = needs.appended.iter().flat_map(|path| directories(path));
    let appended = appended.map(|path| (path, AccessFs::WriteFile | AccessFs::MakeReg));
    read.chain(opened).chain(removed).chain(appended).collect()
}

/// The directory that a path names its file in, and the one that the file is in now.
fn directories(path: &Path) -> impl Iterator<Item = PathBuf> {
    let now = fs::canonicalize(path).ok().map(|file| parent(&file));
    [parent(path)].into_iter().chain(now)
}

fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_of_the_resolver_are_found_between_what_to_do() {
        for (text, unknown) in [
            ("", None),
            ("passwd: ldap\nhosts: files dns # ldap\n", None),
            ("hosts:files mymachines mdns4_minimal [NOTFOUND=return] dns\n", None),
            ("hosts: resolve [!UNAVAIL=return] files ldap [SUCCESS=return] dns", Some("ldap")),
            ("  hosts: wins", Some("wins")),
        ] {
            assert_eq!(unknown_module_in(text).as_deref(), unknown, "{text}");
        }
    }

    #[test]
    fn a_file_is_opened_where_its_name_is_and_where_it_leads() {
        let directory = tempfile::tempdir().unwrap();
        let (name, there) = (directory.path().join("link"), directory.path().join("there"));
        fs::create_dir(&there).unwrap();
        fs::write(there.join("file"), "").unwrap();
        std::os::unix::fs::symlink(there.join("file"), &name).unwrap();
        let found: Vec<_> = directories(&name).collect();
        assert_eq!(found, [directory.path().to_owned(), fs::canonicalize(&there).unwrap()]);
        assert_eq!(parent(Path::new("fifo")), Path::new("."));
    }
}
