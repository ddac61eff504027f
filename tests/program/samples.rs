//! The sample files of the repository are valid, and the service manager's unit starts what there is.

use std::fs;
use std::path::Path;

use crate::testkit::program::command;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The key that the samples name.
const KEY: &str = "/var/lib/sockmux-uring/sockmux.key";

#[test]
fn each_sample_file_can_be_run() {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("sockmux.key");
    let made = command().arg("keygen").arg(&key).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    let fingerprint = String::from_utf8(made.stdout).unwrap();
    let mut count = 0;
    for file in fs::read_dir(Path::new(ROOT).join("docs/samples")).unwrap() {
        let file = file.unwrap().path();
        let text = fs::read_to_string(&file).unwrap();
        let placeholder = format!("SHA256:{}", "A".repeat(43));
        let own =
            text.replace(KEY, &key.to_string_lossy()).replace(&placeholder, fingerprint.trim());
        let copy = folder.path().join(file.file_name().unwrap());
        fs::write(&copy, own).unwrap();
        let checked =
            command().arg("--check").arg(format!("+={}", copy.display())).output().unwrap();
        assert!(checked.status.success(), "{}: {checked:?}", file.display());
        count += 1;
    }
    assert!(count >= 3, "{count} sample files");
}

/// What the program calls that the default profiles of containers refuse, or that is easily left out.
const NEEDED: [&str; 12] = [
    "io_uring_setup",
    "io_uring_enter",
    "io_uring_register",
    "landlock_create_ruleset",
    "landlock_add_rule",
    "landlock_restrict_self",
    "seccomp",
    "splice",
    "recvmmsg",
    "sendmmsg",
    "prlimit64",
    "execve",
];

#[test]
fn the_seccomp_profile_has_io_uring_and_no_way_out() {
    let profile = fs::read(Path::new(ROOT).join("docs/containers/seccomp.json")).unwrap();
    let profile: serde_json::Value = serde_json::from_slice(&profile).unwrap();
    assert_eq!(profile["defaultAction"], "SCMP_ACT_ERRNO");
    let allowed: Vec<_> = profile["syscalls"].as_array().unwrap().iter().collect();
    assert!(allowed.iter().all(|rule| rule["action"] == "SCMP_ACT_ALLOW"));
    let names = allowed.iter().flat_map(|rule| rule["names"].as_array().unwrap());
    let names: Vec<_> = names.map(|name| name.as_str().unwrap()).collect();
    let missing: Vec<_> = NEEDED.iter().filter(|name| !names.contains(name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    for name in [
        "mount",
        "ptrace",
        "bpf",
        "init_module",
        "kexec_load",
        "setns",
        "perf_event_open",
        "unshare",
    ] {
        assert!(!names.contains(&name), "{name}");
    }
}

#[test]
fn the_unit_starts_the_files_that_the_samples_speak_of() {
    let unit = Path::new(ROOT).join("docs/systemd/sockmux-uring@.service");
    let unit = fs::read_to_string(unit).unwrap();
    assert!(unit.contains("\nExecStart=/usr/bin/sockmux-uring +=/etc/sockmux-uring/%i.conf\n"));
    // Until SIGKILL, 3 s more than streams have to end (limits::DRAIN_SECS).
    let wanted = format!("\nTimeoutStopSec={}\n", sockmux_uring::limits::DRAIN_SECS + 3);
    assert!(unit.contains(&wanted), "{wanted}");
}
