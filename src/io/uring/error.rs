//! Why io_uring cannot be used, in words: which step failed, the likely cause, what to do.

use std::fmt;
use std::fs;
use std::io;

/// What was being done when io_uring failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetupStep {
    /// Making the ring (`io_uring_setup`).
    Ring,
    /// Registering a ring of receive buffers (`io_uring_register`).
    Buffers,
    /// Restricting the ring to the operations in use (`io_uring_register`).
    Restrict,
    /// Running an operation that does nothing (`io_uring_enter`).
    Enter,
    /// Receiving from a socket, multishot, into a buffer that the kernel chose.
    Receive,
}

impl fmt::Display for SetupStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ring => "making the ring (io_uring_setup)",
            Self::Enter => "running an operation (io_uring_enter)",
            Self::Buffers => "registering receive buffers (io_uring_register)",
            Self::Restrict => "restricting the ring to its operations (io_uring_register)",
            Self::Receive => "receiving into a registered buffer",
        })
    }
}

/// io_uring cannot be used here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("io_uring: {step} failed with {}: {cause}; {remedy}", io::Error::from_raw_os_error(*.errno))]
pub struct SetupError {
    /// Which step failed.
    pub step: SetupStep,
    /// The kernel's error number.
    pub errno: i32,
    /// The likely cause.
    pub cause: String,
    /// What to do about it.
    pub remedy: String,
}

impl SetupError {
    /// Explains `error` by what this machine says of itself.
    pub(super) fn of(step: SetupStep, error: &io::Error, pinned_bytes: u64) -> Self {
        let errno = error.raw_os_error().unwrap_or(libc::EIO);
        Self::explain(step, errno, &Surroundings::read(pinned_bytes))
    }

    fn explain(step: SetupStep, errno: i32, here: &Surroundings) -> Self {
        let (cause, remedy) = match errno {
            libc::EPERM | libc::EACCES => forbidden(here),
            libc::ENOSYS => (
                format!(
                    "this kernel ({}) has no io_uring, or a sandbox such as gVisor stands in for it",
                    here.kernel
                ),
                "use a Linux kernel of 6.1 or later, outside such a sandbox".to_owned(),
            ),
            libc::EINVAL if here.is_older_than(6, 1) => (
                format!("this kernel ({}) is too old: DEFER_TASKRUN came with 6.1", here.kernel),
                "use a Linux kernel of 6.1 or later".to_owned(),
            ),
            libc::EINVAL => (
                format!("this kernel ({}) refuses the ring's flags or sizes", here.kernel),
                "use a Linux kernel of 6.1 or later with an unrestricted io_uring, and sizes that \
                 are powers of two"
                    .to_owned(),
            ),
            libc::ENOMEM => no_memory(here),
            libc::EMFILE | libc::ENFILE => (
                "no descriptor is left for the ring".to_owned(),
                "raise the limit on open files (ulimit -n, or LimitNOFILE= of the unit)".to_owned(),
            ),
            libc::ETIME => (
                "the operation never completed".to_owned(),
                "update the kernel; this one's io_uring does not work".to_owned(),
            ),
            _ => (
                format!("this kernel ({}) does not do what the engine needs", here.kernel),
                "use a Linux kernel of 6.1 or later".to_owned(),
            ),
        };
        Self { step, errno, cause, remedy }
    }
}

fn forbidden(here: &Surroundings) -> (String, String) {
    match here.io_uring_disabled {
        Some(2) => (
            "kernel.io_uring_disabled is 2: io_uring is off for everybody".to_owned(),
            "run `sysctl kernel.io_uring_disabled=0` as root".to_owned(),
        ),
        Some(1) => (
            "kernel.io_uring_disabled is 1: io_uring is for members of the group \
             kernel.io_uring_group and for CAP_SYS_ADMIN only"
                .to_owned(),
            "join that group, or run `sysctl kernel.io_uring_disabled=0` as root".to_owned(),
        ),
        _ if here.seccomp_filtered => (
            "a seccomp filter of this process forbids it, as the default profile of Docker and \
             containerd does"
                .to_owned(),
            "give the container a profile that allows io_uring_setup, io_uring_enter and \
             io_uring_register (docker run --security-opt seccomp=PROFILE.json)"
                .to_owned(),
        ),
        _ => (
            "a security policy forbids it (kernel.io_uring_disabled is not set, and no seccomp \
             filter is seen)"
                .to_owned(),
            "allow io_uring in the policy of SELinux, AppArmor or the sandbox around this process"
                .to_owned(),
        ),
    }
}

fn no_memory(here: &Surroundings) -> (String, String) {
    let need_kib = here.pinned_bytes.div_ceil(1024);
    let remedy = format!(
        "raise the limit to {need_kib} KiB or more for each ring (ulimit -l, or LimitMEMLOCK= of \
         the unit)"
    );
    match here.memlock_bytes {
        Some(limit) => (
            format!(
                "the kernel cannot lock memory for the ring: it needs {need_kib} KiB, and \
                 RLIMIT_MEMLOCK allows this user {} KiB, other programs' included",
                limit / 1024
            ),
            remedy,
        ),
        None => (
            format!("the kernel has no memory for the ring, which needs {need_kib} KiB"),
            "free memory, or raise the memory limit of the container".to_owned(),
        ),
    }
}

/// What the machine says that bears on io_uring.
#[derive(Debug, Clone, Default)]
struct Surroundings {
    /// `kernel.io_uring_disabled`; kernels before 6.6 have none.
    io_uring_disabled: Option<u32>,
    seccomp_filtered: bool,
    /// The limit on locked memory; `None`: unlimited, or not to be found out.
    memlock_bytes: Option<u64>,
    pinned_bytes: u64,
    /// Release, such as `6.12.0-1`.
    kernel: String,
}

impl Surroundings {
    fn read(pinned_bytes: u64) -> Self {
        // A missing file is one cause the less to name.
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        Self {
            io_uring_disabled: text("/proc/sys/kernel/io_uring_disabled").trim().parse().ok(),
            seccomp_filtered: field(&text("/proc/self/status"), "Seccomp:") == Some("2"),
            memlock_bytes: field(&text("/proc/self/limits"), "Max locked memory")
                .and_then(|limit| limit.parse().ok()),
            pinned_bytes,
            kernel: text("/proc/sys/kernel/osrelease").trim().to_owned(),
        }
    }

    fn is_older_than(&self, major: u32, minor: u32) -> bool {
        let mut numbers = self.kernel.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(a)), Some(Ok(b))) => (a, b) < (major, minor),
            _ => false,
        }
    }
}

/// The first word after `name` at the beginning of a line.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(errno: i32, here: Surroundings) -> String {
        let kernel = if here.kernel.is_empty() { "6.12.0".to_owned() } else { here.kernel.clone() };
        SetupError::explain(SetupStep::Ring, errno, &Surroundings { kernel, ..here }).to_string()
    }

    fn assert_says(text: &str, parts: &[&str]) {
        for part in parts {
            assert!(text.contains(part), "no {part:?} in {text:?}");
        }
    }

    #[test]
    fn eperm_names_the_sysctl_and_its_value() {
        let off = Surroundings { io_uring_disabled: Some(2), ..Default::default() };
        assert_says(
            &words(libc::EPERM, off),
            &["io_uring_setup", "Operation not permitted", "io_uring_disabled is 2", "=0"],
        );
        let group = Surroundings { io_uring_disabled: Some(1), ..Default::default() };
        assert_says(&words(libc::EPERM, group), &["io_uring_disabled is 1", "io_uring_group"]);
    }

    #[test]
    fn eperm_without_the_sysctl_is_the_container_or_a_policy() {
        let filtered = Surroundings {
            io_uring_disabled: Some(0),
            seccomp_filtered: true,
            ..Default::default()
        };
        assert_says(&words(libc::EPERM, filtered), &["seccomp", "--security-opt"]);
        assert_says(&words(libc::EACCES, Surroundings::default()), &["SELinux"]);
    }

    #[test]
    fn enosys_and_einval_name_the_kernel() {
        assert_says(&words(libc::ENOSYS, Surroundings::default()), &["gVisor", "6.12.0", "6.1 or"]);
        let old = Surroundings { kernel: "5.15.0-91-generic".to_owned(), ..Default::default() };
        assert_says(&words(libc::EINVAL, old), &["5.15.0-91-generic", "too old", "DEFER_TASKRUN"]);
        assert_says(&words(libc::EINVAL, Surroundings::default()), &["flags or sizes"]);
    }

    #[test]
    fn enomem_says_need_and_limit() {
        let limited = Surroundings {
            memlock_bytes: Some(64 << 10),
            pinned_bytes: 100 << 10,
            ..Default::default()
        };
        assert_says(&words(libc::ENOMEM, limited), &["100 KiB", "64 KiB", "LimitMEMLOCK"]);
        let unlimited = Surroundings { pinned_bytes: 100 << 10, ..Default::default() };
        assert_says(&words(libc::ENOMEM, unlimited), &["100 KiB", "container"]);
    }

    #[test]
    fn anything_else_still_has_step_cause_and_remedy() {
        for errno in [libc::EMFILE, libc::ETIME, libc::EOPNOTSUPP] {
            let error = SetupError::explain(SetupStep::Receive, errno, &Surroundings::default());
            assert!(!error.cause.is_empty() && !error.remedy.is_empty());
            assert_says(&error.to_string(), &["receiving into a registered buffer"]);
        }
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        let kernel = |release: &str| Surroundings { kernel: release.into(), ..Default::default() };
        assert!(kernel("5.15.0").is_older_than(6, 1));
        assert!(kernel("6.0.9").is_older_than(6, 1));
        assert!(!kernel("6.1.0-18-amd64").is_older_than(6, 1));
        assert!(!kernel("6.12").is_older_than(6, 1));
        assert!(!kernel("unreadable").is_older_than(6, 1));
    }

    #[test]
    fn what_the_machine_says_is_found() {
        let limits = "Limit   Soft   Hard  Units\nMax locked memory         8388608  1  bytes\n";
        assert_eq!(field(limits, "Max locked memory"), Some("8388608"));
        assert_eq!(field("Name:\tx\nSeccomp:\t2\nSeccomp_filters:\t1\n", "Seccomp:"), Some("2"));
        assert!(!Surroundings::read(0).kernel.is_empty());
    }
}
