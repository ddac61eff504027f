#![allow(unsafe_code)]
//! How much memory this process may take, as far as the system says, and how much it has taken.

use std::fs;
use std::path::Path;

use rustix::process::{Resource, getrlimit};

/// What the process is taken to have mapped where `/proc` does not say: somewhat more than it has.
const MAPPED_BYTES_UNSAID: u64 = 48 << 20;

/// From here on a limit of a group is none.
const NO_LIMIT_BYTES: u64 = 1 << 60;

/// Limits and their use, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Memory {
    /// Of address space (`ulimit -v`).
    pub(crate) address_space: Option<u64>,
    /// What of it is mapped.
    pub(crate) mapped: u64,
    /// The least of the control groups that the process is in, a container's among them.
    pub(crate) groups: Option<u64>,
    /// What is counted there, as far as it is this process's.
    pub(crate) resident: u64,
}

impl Memory {
    /// As it is now.
    pub(crate) fn of_process() -> Memory {
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let mapped = bytes_of(&status, "VmSize:").unwrap_or(MAPPED_BYTES_UNSAID);
        Memory {
            address_space: getrlimit(Resource::As).current,
            mapped,
            groups: limit_of_groups(&groups, |path| fs::read_to_string(path).ok()),
            resident: bytes_of(&status, "VmRSS:").unwrap_or(mapped),
        }
    }
}

/// A field of `/proc/self/status`, which is in KiB.
fn bytes_of(status: &str, field: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix(field))?;
    let kib: u64 = value.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib << 10)
}

/// Has all threads allocate from one heap, if address space is limited: the C library reserves 64 MiB of it for
/// each thread otherwise. To be called before there is a second thread.
pub fn spare_address_space() {
    #[cfg(target_env = "gnu")]
    if getrlimit(Resource::As).current.is_some() {
        // SAFETY: it sets a number of the allocator's, which has a lock for that; no memory is touched.
        unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
    }
}

/// The least limit of these groups, of either version, and of those that they are in. `groups` has the
/// form of `/proc/self/cgroup`.
fn limit_of_groups(groups: &str, read: impl Fn(&str) -> Option<String>) -> Option<u64> {
    let mut least: Option<u64> = None;
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (fields.next(), fields.next()) else { continue };
        let (root, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            _ if controllers.split(',').any(|controller| controller == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        // Within a container the path may be that outside of it, which is not there: its own is the root.
        for group in Path::new(group).ancestors() {
            let path = format!("{root}{}/{file}", group.display()).replace("//", "/");
            // "max" is no limit, and in the first version as much as there can be.
            let limit = read(&path).and_then(|text| text.trim().parse().ok());
            let limit = limit.filter(|&bytes: &u64| bytes < NO_LIMIT_BYTES);
            least = least.into_iter().chain(limit).min();
        }
    }
    least
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(groups: &str, files: &[(&str, &str)]) -> Option<u64> {
        limit_of_groups(groups, |path| {
            let found = files.iter().find(|(name, _)| *name == path);
            found.map(|(_, text)| (*text).to_owned())
        })
    }

    #[test]
    fn the_least_limit_of_a_group_and_those_above_it_holds() {
        let files = [
            ("/sys/fs/cgroup/memory.max", "max\n"),
            ("/sys/fs/cgroup/a/memory.max", "300\n"),
            ("/sys/fs/cgroup/a/b/memory.max", "500\n"),
        ];
        assert_eq!(limit("0::/a/b\n", &files), Some(300));
        assert_eq!(limit("0::/\n", &files), None);
        assert_eq!(limit("", &files), None);
        let in_container = [("/sys/fs/cgroup/memory.max", "67108864\n")];
        assert_eq!(limit("0::/\n", &in_container), Some(64 << 20));
        assert_eq!(limit("0::/docker/0123\n", &in_container), Some(64 << 20));
    }

    #[test]
    fn groups_of_the_first_version_are_found_by_their_controller() {
        let files = [("/sys/fs/cgroup/memory/a/memory.limit_in_bytes", "700\n")];
        assert_eq!(limit("9:cpu,cpuacct:/a\n4:memory:/a\n0::/\n", &files), Some(700));
        assert_eq!(limit("9:cpu,cpuacct:/a\nnonsense\n", &files), None);
        let none = [("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")];
        assert_eq!(limit("4:memory:/\n", &none), None);
    }

    #[test]
    fn fields_of_the_status_are_found_and_others_are_not() {
        let status = "Name:\tVmSize: 1 kB\nVmSize:\t   1234 kB\nThreads:\t2\n";
        assert_eq!(bytes_of(status, "VmSize:"), Some(1234 << 10));
        assert_eq!(bytes_of(status, "Threads:"), None);
        assert_eq!(bytes_of("", "VmRSS:"), None);
    }

    #[test]
    fn this_process_has_mapped_something_and_touched_less() {
        let memory = Memory::of_process();
        assert!(memory.resident > 0 && memory.resident <= memory.mapped, "{memory:?}");
    }
}
